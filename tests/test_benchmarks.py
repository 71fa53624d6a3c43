"""The benchmarks can be imported: they use names that the package still has."""

import runpy
import sys
from pathlib import Path

import pytest

from repro.preparation.sources.synthetic import IMAGES_PER_CLASS

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("program", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_imports_of_a_benchmark_exist(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in {"retrieval": ("sklearn",), "contest": ("sklearn", "skimage")}.get(program.stem, ()):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(FOLDER)
    assert runpy.run_path(str(program))["__doc__"]


def run_gpu(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run `gpu.py WORDS…` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / "gpu.py"), run_name="__main__")
    code: int = end.value.code
    return code


def test_the_benchmark_of_a_gpu_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The only check of this program where there is no GPU; it trains for a few updates, more than the images allow."""
    monkeypatch.setitem(IMAGES_PER_CLASS, "train", 20)
    words = ("--device", "cpu", "--scale", "smoke", "--steps", "1", "--precision", "fp32")
    assert run_gpu(monkeypatch, *words) == 0
    *_, head, rule, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 9
    assert row.startswith("| fp32 | ")
    roofline, step, share, feed, training, other, views = (
        float(cell.strip().rstrip("%").replace(",", "")) for cell in row.split("|")[2:-1]
    )
    assert min(roofline, step, feed, training, views) > 0
    # The printed speeds are rounded to whole numbers.
    assert share == pytest.approx(100 * step / roofline, rel=0.1)
    assert other == pytest.approx(100 * training / roofline, rel=0.1)


def test_the_benchmark_of_a_gpu_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_gpu(monkeypatch) == 3
    assert capsys.readouterr().err == "gpu.py: torch finds no GPU; --device cpu measures the CPU\n"
