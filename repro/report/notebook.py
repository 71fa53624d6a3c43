"""A Jupyter notebook that loads the records and redraws the figures, to continue from; needs the package nbformat."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import repro
from repro import atomic
from repro.errors import ReproError
from repro.records.reading import read_records
from repro.records.runs import Records
from repro.report.figures.figure1 import STYLES

NAME = "report.ipynb"

INTRODUCTION = """# Records of the runs

Written by `repro report --format notebook`, version {version}. It loads the records of runs as pandas DataFrames and
redraws the figures of the report. The cells are a start: change them, and add others. The kernel needs `repro`, which
reads the records without torch.

Errors and precisions are in percent. `frames.runs` has a row per run, `frames.epochs` one per run and epoch,
`frames.evaluations` and `frames.retrievals` one per result.
"""
LOADING = """import matplotlib.pyplot as plt

import repro

RUNS = {folders!r}  # folders, as seen from this notebook
frames = repro.load_records(*RUNS)
frames.runs[["variant", "recipe", "scale", "changes", "seed", "data", "epochs_done", "finished"]]"""
ERRORS_TEXT = """## Errors

Mean, standard deviation and number of the evaluations of each net: of the seeds where there are several."""
ERRORS = """keys = ["data", "net", "recipe", "scale", "changes", "split", "views"]
errors = frames.evaluations.groupby(keys)[["top1_error", "top5_error"]].agg(["mean", "std", "count"])
errors.round(2)"""
CURVES_TEXT = """## Learning curves

Of each dataset and scale the mean over seeds, a line per net."""
CURVES = """metric = "val_top1_error"  # or train_loss, train_top1_error, val_top5_error
settings = ["data", "scale", "variant", "recipe", "changes"]
curves = frames.epochs[[metric]].dropna().join(frames.runs[settings], on="run").reset_index()
for (data, scale), rows in curves.groupby(["data", "scale"]):
    means = rows.pivot_table(index="epoch", columns=["variant", "recipe", "changes"], values=metric)
    axes = means.plot(title=f"{data}, {scale} scale", xlabel="epoch", ylabel=metric, ylim=(0, None), figsize=(7, 4))
    axes.legend(fontsize=8)"""
FIGURE_1_TEXT = """## Figure 1: epochs to 25% training error

By learning rate and seed, interpolated between epochs as in the report. The lowest seed chooses the learning rate of
each net; below the curves at that rate, a line per seed."""
FIGURE_1 = """from repro.paper.experiments import epochs_to_error

nets = frames.runs[frames.runs["variant"].isin({nets!r})]
train_errors = frames.epochs["train_top1_error"]
reached = {{run: epochs_to_error(list(train_errors[run]), 25) for run in nets.index if run in train_errors}}
nets = nets.assign(epochs_to_25=[reached.get(run) for run in nets.index]).astype({{"epochs_to_25": float}})
grid = nets.groupby(["recipe", "variant", "lr", "seed"])["epochs_to_25"].min().unstack("seed")
figure, axes = plt.subplots(figsize=(7, 4))
for number, (net, rates) in enumerate(grid.iloc[:, 0].dropna().groupby(["recipe", "variant"])):
    fastest = rates.idxmin()[-1]
    chosen = nets[(nets["recipe"] == net[0]) & (nets["variant"] == net[1]) & (nets["lr"] == fastest)]
    for run in chosen.index:
        label = f"{{net[1]}}, recipe {{net[0]}}, lr {{fastest:g}}" if run == chosen.index[0] else None
        axes.plot(train_errors[run], color=f"C{{number}}", label=label)
axes.axhline(25, color="grey", linestyle="--", label="25%")
axes.set(xlabel="epoch", ylabel="training error, %", ylim=(0, None))
axes.legend(fontsize=8)
grid.round(2)"""
FIGURES_TEXT = """## The report's figures"""
FIGURES = """from pathlib import Path

from repro.records.reading import read_records
from repro.report import draw_figures

draw_figures(read_records([Path(folder) for folder in RUNS]))"""


def write_notebook(folders: Sequence[Path], out_dir: Path) -> Path:
    """Write `report.ipynb` on the runs below `folders` into `out_dir` and return its path.

    The notebook refers to the folders by paths from `out_dir`, where Jupyter runs it. Raises ReproError if the package
    nbformat is not installed, or if the file cannot be written.
    """
    try:
        from nbformat import NotebookNode, v4, writes
    except ImportError:
        raise ReproError("the package nbformat is not installed: pip install nbformat") from None
    cells: list[NotebookNode] = []
    for number, (kind, source) in enumerate(_cells(read_records(folders), [_from(out_dir, each) for each in folders])):
        new_cell = v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
        cells.append(new_cell(source, id=f"cell-{number}"))  # not a random id: the same records give the same bytes
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReproError(
            f"cannot write the notebook to '{out_dir}' ({error.strerror}): choose another --out"
        ) from error
    atomic.write(out_dir / NAME, (writes(notebook) + "\n").encode())
    return out_dir / NAME


def _cells(records: Records, folders: Sequence[str]) -> list[tuple[str, str]]:
    """Return the kind, "markdown" or "code", and the source of each cell."""
    cells = [
        ("markdown", INTRODUCTION.format(version=repro.__version__).strip()),
        ("code", LOADING.format(folders=list(folders))),
        ("markdown", ERRORS_TEXT),
        ("code", ERRORS),
        ("markdown", CURVES_TEXT),
        ("code", CURVES),
    ]
    if any(run.variant in STYLES for run in records.runs):
        cells += [("markdown", FIGURE_1_TEXT), ("code", FIGURE_1.format(nets=list(STYLES)))]
    return [*cells, ("markdown", FIGURES_TEXT), ("code", FIGURES)]


def _from(out_dir: Path, folder: Path) -> str:
    """Return the path of a folder as seen from `out_dir`, absolute if it is on another drive."""
    try:
        return Path(os.path.relpath(folder.resolve(), out_dir.resolve())).as_posix()
    except ValueError:
        return folder.resolve().as_posix()
