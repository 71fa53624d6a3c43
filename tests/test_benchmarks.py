"""The benchmarks can be imported: they use names that the package still has."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("program", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_imports_of_a_benchmark_exist(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in {"retrieval": ("sklearn",), "contest": ("sklearn", "skimage")}.get(program.stem, ()):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(FOLDER)
    assert runpy.run_path(str(program))["__doc__"]
