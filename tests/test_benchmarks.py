"""The benchmarks can be imported: they use names that the package still has."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("program", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_imports_of_a_benchmark_exist(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if program.stem == "retrieval":
        pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(FOLDER)
    assert runpy.run_path(str(program))["__doc__"]
