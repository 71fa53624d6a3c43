"""Learning curves for the page's chart of runs: rounded and thinned, so that thousands of runs stay a small page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from repro.records.runs import Run
from repro.report.figures.style import COLOURS
from repro.report.measurements.context import context_of, precedence

# Fields of `EpochRecord` in the order of the page's menu, with their titles and decimals.
METRICS = (
    ("val_top1_error", "Validation top-1 error, %", 2),
    ("val_top5_error", "Validation top-5 error, %", 2),
    ("train_top1_error", "Training top-1 error, %", 2),
    ("train_loss", "Training loss, nats", 4),
)
MOST_POINTS = 400  # of a curve
MOST_NUMBERS = 64_000  # of all curves: half a megabyte
FIRST_SHOWN = 6  # curves drawn when the page opens

VENDORED = "vendor/uplot"

T = TypeVar("T")


@dataclass(frozen=True)
class Explorer:
    """What the page needs to draw the curves of any of its runs.

    Attributes:
        data: a JSON document for a `<script>` element, see `explorer_data`.
        points: the largest number of epochs of a curve; None if all curves are complete.
        script: the chart library with its licence, and the page's use of it.
    """

    data: Markup
    points: int | None
    script: Markup


def build_explorer(runs: Sequence[Run]) -> Explorer:
    """Return the explorer of these runs."""
    points = points_per_curve(runs)
    longest = max((len(run.log) for run in runs), default=0)
    text = json.dumps(explorer_data(runs, points), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # "<" could end or hide the element that holds the document.
    return Explorer(Markup(text.replace("<", r"\u003c")), points if longest > points else None, Markup(_script()))


def points_per_curve(runs: Sequence[Run]) -> int:
    """Return the largest number of epochs that is kept of a curve."""
    curves = len(METRICS) * max(len(runs), 1)
    return max(8, min(MOST_POINTS, MOST_NUMBERS // curves))


def explorer_data(runs: Sequence[Run], points: int) -> dict[str, Any]:
    """Return the curves as a JSON object.

    `metrics` are the titles in order, `colours` those of the lines, `epochs` distinct lists of epochs. Each of `runs`
    has its name, the index of its epochs, and one list of values per metric, null for a metric that has none.
    `shown` are the indices of the runs whose curves are drawn first: one per net and recipe of the data that counts
    most.
    """
    epochs: dict[tuple[int, ...], int] = {}
    rows = []
    for run in runs:
        kept = thin(run.log, points)
        index = epochs.setdefault(tuple(epoch.epoch for epoch in kept), len(epochs))
        curves = [_rounded([getattr(epoch, name) for epoch in kept], decimals) for name, _, decimals in METRICS]
        rows.append({"name": run.name, "epochs": index, "curves": curves})
    return {
        "metrics": [title for _, title, _ in METRICS],
        "colours": list(COLOURS),
        "epochs": [list(each) for each in epochs],
        "runs": rows,
        "shown": _first_shown(runs),
    }


def thin(values: Sequence[T], count: int) -> Sequence[T]:
    """Return at most `count` values at equal distances, the first and the last among them."""
    if len(values) <= count:
        return values
    return [values[index] for index in np.linspace(0, len(values) - 1, count).round().astype(int)]


def _rounded(values: Sequence[float], decimals: int) -> list[float | None] | None:
    finite = [round(value, decimals) if math.isfinite(value) else None for value in values]
    return None if all(value is None for value in finite) else finite


def _first_shown(runs: Sequence[Run]) -> list[int]:
    ordered = sorted((index for index, run in enumerate(runs) if run.log), key=lambda index: _order(runs[index]))
    chosen: dict[tuple[str, str], int] = {}
    for index in ordered:
        if runs[index].data == runs[ordered[0]].data:
            chosen.setdefault((runs[index].variant, runs[index].recipe), index)
    return list(chosen.values())[:FIRST_SHOWN]


def _order(run: Run) -> tuple[object, ...]:
    return (*precedence(context_of(run)), run.variant != "alexnet", run.seed)


def chart_style() -> str:
    """Return the style sheet of the chart library."""
    return _read(f"{VENDORED}/uPlot.min.css")


def _script() -> str:
    licence = _read(f"{VENDORED}/LICENSE")
    return "\n".join((f"/*\n{licence}\n*/", _read(f"{VENDORED}/uPlot.iife.min.js"), _read("templates/explorer.js")))


def _read(name: str) -> str:
    return (resources.files("repro.report") / name).read_text(encoding="utf-8")
