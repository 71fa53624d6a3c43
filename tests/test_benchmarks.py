"""The benchmarks are programs of their own; here it is only seen that they still fit the package."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("program", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_everything_a_benchmark_imports_is_there(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if program.stem == "retrieval":
        pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(FOLDER)
    assert runpy.run_path(str(program))["__doc__"]
