"""`report --format notebook`: the cells are executed, on the published records."""

import ast
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot
import pytest
from made_records import write_grid, write_run

import repro
from repro.cli.main import run
from repro.errors import ReproError
from repro.report.figures.draw import Pictures
from repro.report.notebook import write_notebook

PUBLISHED = Path(__file__).parents[2] / "outputs" / "reference"


def executed(path: Path) -> list[Any]:
    """Return the value of the last expression of each code cell, run one after the other as Jupyter does."""
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    names: dict[str, Any] = {}
    values = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, str(path), "exec"), names)
            values.append(eval(compile(ast.Expression(last.value), str(path), "eval"), names) if last else None)
    return values


@pytest.fixture
def figures() -> Any:
    """The module of matplotlib that notebooks draw with, without a display; its figures are closed at the end."""
    backend = matplotlib.get_backend()
    matplotlib.pyplot.switch_backend("agg")
    yield matplotlib.pyplot
    matplotlib.pyplot.close("all")
    matplotlib.pyplot.switch_backend(backend)


def test_the_cells_redraw_the_published_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Any) -> None:
    """The one test of the notebook on all published records: it takes seconds, as drawing their figures does."""
    pytest.importorskip("nbformat")
    path = write_notebook([PUBLISHED], tmp_path / "out")
    monkeypatch.chdir(path.parent)
    runs, errors, _, grid, pictures = executed(path)
    assert list(runs.index) == list(repro.load_records(PUBLISHED).runs.index)
    ten_views = errors.xs(10, level="views")
    alexnet = ten_views.xs("imagenette (10 classes)").xs("alexnet", level="net")
    assert alexnet.index.get_level_values("changes").tolist() == ["", "fine-tuned", "lr 0.005"]
    assert alexnet["top1_error", "count"].tolist() == [5, 3, 3]
    assert alexnet["top1_error", "mean"].round(1).tolist() == [21.6, 20.1, 22.9]
    tuned = ten_views.xs("catsdogs (2 classes)").xs("fine-tuned, lr 0.001", level="changes")
    assert tuned["top1_error", "count"].tolist() == [5]
    assert tuned["top1_error", "mean"].round(1).tolist() == [21.9]
    # By hand from the log: 25.682% after epoch 6 and 23.858% after epoch 7, so 25% at 6 + 0.682 / 1.824.
    assert grid.loc[("authors", "cifar-relu", 0.004), 0] == 6.37
    assert grid.loc[("authors", "cifar-relu", 0.016)].isna().all()
    seeds = len(list(PUBLISHED.rglob("cifar-relu-authors-paper-lr0.004-seed*")))
    assert grid.loc[("authors", "cifar-relu", 0.004)].notna().sum() == seeds >= 3
    assert isinstance(pictures, Pictures)
    assert "<figcaption><b>Recipe authors, paper scale.</b>" in pictures._repr_html_()
    titles = [axes.get_title() for number in figures.get_fignums() for axes in figures.figure(number).axes]
    assert {"catsdogs (2 classes), small scale", "imagenette (10 classes), small scale"} <= set(titles[:-1])
    lines = figures.figure(figures.get_fignums()[-1]).axes[0].get_lines()
    (first,) = [line for line in lines if line.get_label() == "cifar-relu, recipe authors, lr 0.004"]
    assert sum(line.get_color() == first.get_color() for line in lines) == seeds


def test_without_runs_and_without_figure_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Any) -> None:
    pytest.importorskip("nbformat")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    runs, errors, *_ = executed(write_notebook([tmp_path / "none"], tmp_path))
    assert len(runs) == len(errors) == 0
    write_run(tmp_path / "runs", epochs=1, weights=False)
    write_grid(tmp_path / "unfinished", "cifar-tanh", 0.001, [60, 50])  # never at 25%
    found = executed(write_notebook([tmp_path / "runs", tmp_path / "unfinished"], tmp_path))
    assert len(found[0]) == 1 + 5


def test_the_command_writes_the_same_bytes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nbformat")
    arguments = ["report", "--runs", str(PUBLISHED), "--out", str(tmp_path), "--format", "notebook"]
    contents = []
    for _ in range(2):
        assert run(arguments) == 0
        contents.append((tmp_path / "report.ipynb").read_bytes())
    assert contents[0] == contents[1]
    assert [each.name for each in tmp_path.iterdir()] == ["report.ipynb"]
    assert "report.ipynb" in capsys.readouterr().out.replace("\n", "")
    assert run([*arguments, "--compare"]) == 2


def test_without_nbformat_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(ReproError, match="pip install nbformat"):
        write_notebook([tmp_path], tmp_path)
