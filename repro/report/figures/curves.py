"""Training curves: loss and errors against epochs, for each dataset and scale."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repro.records.runs import Records, Run
from repro.records.schema import NET, DataRecord, EpochRecord
from repro.report.figures.style import COLOURS, INK, NARROW, WIDE, Picture, finish
from repro.report.measurements.context import RunScale, context_of, fine_tuned, precedence, run_scale
from repro.report.measurements.grid import select_runs

STYLES: dict[str, Literal["-", "--"]] = {"authors": "-", "paper": "--"}
MOST_LINES = 8  # more cannot be distinguished

Net = tuple[str, bool]  # variant, and whether it is fine-tuned: what has one colour


@dataclass(frozen=True, order=True)
class _Key:
    """What the runs of one line share."""

    variant: str
    recipe: str
    tuned: bool


@dataclass(frozen=True)
class _Line:
    """The runs of one variant under one recipe, from random weights or fine-tuned, drawn as the mean over seeds."""

    key: _Key
    runs: tuple[Run, ...]

    @property
    def net(self) -> Net:
        return self.key.variant, self.key.tuned

    @property
    def style(self) -> Literal["-", "--", "-."]:
        return STYLES.get(self.key.recipe, "-.")

    @property
    def name(self) -> str:
        return f"{self.key.variant}, recipe {self.key.recipe}{', fine-tuned' if self.key.tuned else ''}"

    def curve(self, metric: str) -> _Curve:
        """Return the mean and range over seeds of each epoch; epochs without a finite number are left out."""
        values: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            for epoch in run.log:
                if math.isfinite(value := getattr(epoch, metric)):
                    values[epoch.epoch].append(value)
        epochs = sorted(values)
        ordered = [values[epoch] for epoch in epochs]
        means = [sum(each) / len(each) for each in ordered]
        return _Curve(epochs, means, [min(each) for each in ordered], [max(each) for each in ordered])


@dataclass(frozen=True)
class _Curve:
    epochs: list[int]
    means: list[float]
    lowest: list[float]
    highest: list[float]


@dataclass(frozen=True)
class _Chart:
    """The lines of one figure, and the images and scale that they are about."""

    data: DataRecord
    scale: RunScale
    lines: Sequence[_Line]

    @property
    def classes(self) -> int:
        return len(self.data.classes)

    @property
    def panels(self) -> tuple[tuple[str, str, str], ...]:
        if not any(line.curve("val_top1_error").epochs for line in self.lines):
            return PANELS[:2]
        return PANELS if self.data.has_top5_error else PANELS[:3]

    @property
    def colours(self) -> dict[Net, str]:
        nets = dict.fromkeys(line.net for line in self.lines)
        return {net: COLOURS[index % len(COLOURS)] for index, net in enumerate(nets)}


def curve_pictures(records: Records) -> Iterable[Picture]:
    """Yield the training curves of each dataset and scale, with at most eight lines per figure."""
    grouped: dict[tuple[DataRecord, RunScale], dict[_Key, list[Run]]] = defaultdict(lambda: defaultdict(list))
    nets = (run for run in records.runs if run.kind == NET)  # baselines have a hinge loss, nets cross-entropy
    for run in sorted(nets, key=lambda run: precedence(context_of(run))):
        if run.log:
            tuned = fine_tuned(run)
            # Fine-tuned runs, which have their own learning rate, are shown beside those from random weights.
            scale = replace(run_scale(run), fine_tuned=False, lr=None) if tuned else run_scale(run)
            grouped[run.data, scale][_Key(run.variant, run.recipe, tuned)].append(run)
    for index, ((data, scale), runs_by_key) in enumerate(grouped.items(), 1):
        lines = [_Line(key, tuple(select_runs(runs))) for key, runs in sorted(runs_by_key.items())]
        base = [line for line in lines if line.key.variant == "alexnet"]
        others = [line for line in lines if line.key.variant != "alexnet"]
        room = MOST_LINES - 1
        chunks = [others[start : start + room] for start in range(0, len(others), room)] or [[]]
        for part, chunk in enumerate(chunks, 1):
            name = f"curves-{index}" + (f"-{part}" if len(chunks) > 1 else "")
            yield _curve_picture(name, _Chart(data, scale, [*base, *chunk]))


PANELS = (
    ("train_loss", "Training loss", "nats"),
    ("train_top1_error", "Training top-1 error (augmented)", "%"),
    ("val_top1_error", "Validation top-1 error", "%"),
    ("val_top5_error", "Validation top-5 error", "%"),
)


def chance_level(metric: str, classes: int) -> float:
    """Return what guessing gives: the loss ln C, or the error of one or five guesses in percent; NaN if C < 2."""
    if classes < 2:
        return math.nan
    if metric == "train_loss":
        return math.log(classes)
    guesses = 5 if "top5" in metric else 1
    return 100 * max(0.0, 1 - guesses / classes)


def stalled(log: Sequence[EpochRecord], classes: int) -> list[int]:
    """Return the epochs whose training loss is within 1% of chance: the net has learned nothing yet."""
    chance = chance_level("train_loss", classes)
    return [epoch.epoch for epoch in log if abs(epoch.train_loss - chance) < 0.01 * chance]


def _curve_picture(name: str, chart: _Chart) -> Picture:
    where = f"{chart.data.label}, {chart.scale.label}"
    caption = (
        f"Training on {chart.data.label}, {chart.classes} classes, {chart.scale.label}. The colour marks the variant, "
        f"the line style the recipe (authors solid, paper dashed); of several seeds the mean, with the range shaded."
    )
    if any(line.key.tuned for line in chart.lines):
        caption += " Fine-tuned nets started from the weights of another run, the others from random weights."
    last = "; ".join(
        f"{line.name}: validation top-1 error {curve.means[-1]:.1f}% after epoch {curve.epochs[-1]}"
        for line in chart.lines
        if (curve := line.curve("val_top1_error")).epochs
    )
    alt = f"{len(chart.panels)} panels of curves against epochs. {last}"
    return finish(_draw(chart), name, where, caption, alt, "runs", _draw(chart, narrow=True))


def _draw(chart: _Chart, narrow: bool = False) -> Figure:
    """Draw the panels in two columns, or below each other on a narrow figure, above the legend."""
    panels, colours = chart.panels, chart.colours
    across = 1 if narrow else 2
    figure = Figure(figsize=(NARROW if narrow else WIDE, 5.6))
    grid = figure.subplots(math.ceil(len(panels) / across), across, sharex=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (metric, title, unit) in zip(grid.flat, panels, strict=False):
        for line in chart.lines:
            _plot(axes, line, metric, colours[line.net])
        _draw_chance(axes, chance_level(metric, chart.classes))
        axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
        axes.set_title(f"{title}, {unit}")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    marked = [_mark_stalls(grid.flat[0], line, chart.classes, colours[line.net]) for line in chart.lines]
    for axes in grid.flat[len(panels) - across : len(panels)]:  # the lowest of each column
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    handles = _handles(chart.lines, colours, any(marked))
    columns = 1 if narrow else 3 if len(handles) > 4 else 2
    legend = 0.17 * math.ceil(len(handles) / columns) + 0.12  # inches
    figure.set_figheight((2.2 if narrow else 2.6) * len(grid) + legend)
    left = 0.04 * WIDE / figure.get_figwidth()
    figure.legend(handles=handles, loc="lower left", ncols=columns, fontsize=8, bbox_to_anchor=(left, 0))
    figure.tight_layout(rect=(0, legend / figure.get_figheight(), 1, 1))
    return figure


def _draw_chance(axes: Axes, level: float) -> None:
    if math.isfinite(level):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=":")
        # Beside the line, outside the axes, where neither the title nor a curve can be.
        axes.annotate("chance", (1, level), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", ha="left", va="center", fontsize=8)  # fmt: skip


def _mark_stalls(axes: Axes, line: _Line, classes: int, colour: str) -> bool:
    """Circle the epochs at which every run of a line is at chance; return whether there are any."""
    stalls = set.intersection(*(set(stalled(run.log, classes)) for run in line.runs))
    curve = line.curve("train_loss")
    points = [(epoch, mean) for epoch, mean in zip(curve.epochs, curve.means, strict=True) if epoch in stalls]
    if points:
        axes.plot(*np.transpose(points), "o", color=colour, markersize=4, markerfacecolor="none")
    return bool(points)


def _handles(lines: Sequence[_Line], colours: Mapping[Net, str], stalls: bool) -> list[Line2D]:
    handles = []
    for line in lines:
        seeds = f", {len(line.runs)} seeds" if len(line.runs) > 1 else ""
        label = f"{line.name}{seeds}"
        handles.append(Line2D([], [], color=colours[line.net], linestyle=line.style, label=label))
    if stalls:
        handles.append(Line2D([], [], color=INK, linestyle="", marker="o", markersize=4, markerfacecolor="none",
                              label="loss within 1% of chance"))  # fmt: skip
    return handles


def _plot(axes: Axes, line: _Line, metric: str, colour: str) -> None:
    curve = line.curve(metric)
    marker = "o" if len(curve.epochs) == 1 else None
    axes.plot(curve.epochs, curve.means, line.style, color=colour, linewidth=1.5, marker=marker)
    if len(line.runs) > 1:
        axes.fill_between(curve.epochs, curve.lowest, curve.highest, color=colour, alpha=0.18, linewidth=0)
