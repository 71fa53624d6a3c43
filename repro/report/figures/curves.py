"""The figures, each drawn from records: those of the paper in its order, then the curves of the training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repro.report.figures.style import COLOURS, INK, Picture, finish
from repro.report.measure import context_of, fine_tuned, precedence, run_scale, select_runs
from repro.report.records import Data, Epoch, Records, Run

STYLES: dict[str, Literal["-", "--"]] = {"authors": "-", "paper": "--"}
MOST_LINES = 8  # more cannot be told apart

Key = tuple[str, str, bool]  # of a line: variant, recipe, whether it is fine-tuned


@dataclass(frozen=True)
class _Line:
    """The runs of one variant under one recipe, from random weights or fine-tuned, drawn as one line: their mean."""

    variant: str
    recipe: str
    tuned: bool
    runs: tuple[Run, ...]

    @property
    def style(self) -> Literal["-", "--", "-."]:
        return STYLES.get(self.recipe, "-.")

    @property
    def name(self) -> str:
        return f"{self.variant}, recipe {self.recipe}{', fine-tuned' if self.tuned else ''}"

    def curve(self, metric: str) -> tuple[list[int], list[float], list[float], list[float]]:
        """Epochs, mean over seeds, lowest, highest; epochs without a finite number are left out."""
        values: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            for epoch in run.log:
                if math.isfinite(value := getattr(epoch, metric)):
                    values[epoch.epoch].append(value)
        epochs = sorted(values)
        means = [sum(values[epoch]) / len(values[epoch]) for epoch in epochs]
        return epochs, means, [min(values[epoch]) for epoch in epochs], [max(values[epoch]) for epoch in epochs]


def curve_pictures(records: Records) -> Iterable[Picture]:
    """Training curves of each dataset and scale, at most eight lines in a figure."""
    grouped: dict[tuple[Data, str], dict[Key, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(records.runs, key=lambda run: precedence(context_of(run))):
        if run.log:
            tuned = fine_tuned(run)
            # Fine-tuned runs, which have a rate of their own, stand beside those from random weights.
            as_from_random = replace(run, init_from=False, lr=math.nan) if tuned else run
            grouped[run.data, run_scale(as_from_random)][run.variant, run.recipe, tuned].append(run)
    for index, ((data, scale), lines) in enumerate(grouped.items(), 1):
        ordered = [_Line(*key, tuple(select_runs(runs))) for key, runs in sorted(lines.items(), key=_alexnet_first)]
        base = [line for line in ordered if line.variant == "alexnet"]
        others = [line for line in ordered if line.variant != "alexnet"]
        room = MOST_LINES - 1
        chunks = [others[start : start + room] for start in range(0, len(others), room)] or [[]]
        for part, chunk in enumerate(chunks, 1):
            name = f"curves-{index}" + (f"-{part}" if len(chunks) > 1 else "")
            yield _curve_picture(name, data.label, scale, len(data.classes), [*base, *chunk])


def _alexnet_first(item: tuple[Key, list[Run]]) -> tuple[bool, Key]:
    key, _ = item
    return key[0] != "alexnet", key


PANELS = (
    ("train_loss", "Training loss", "nats"),
    ("train_top1_error", "Training top-1 error (augmented views)", "%"),
    ("val_top1_error", "Validation top-1 error", "%"),
    ("val_top5_error", "Validation top-5 error", "%"),
)


def chance_level(metric: str, classes: int) -> float:
    """What guessing gives: the loss ln C, or the error of one guess or five, in percent; NaN without classes."""
    if classes < 2:
        return math.nan
    if metric == "train_loss":
        return math.log(classes)
    guesses = 5 if "top5" in metric else 1
    return 100 * max(0.0, 1 - guesses / classes)


def stalled(log: Sequence[Epoch], classes: int) -> list[int]:
    """The epochs whose training loss is within 1% of chance: the net has learned nothing yet."""
    chance = chance_level("train_loss", classes)
    return [epoch.epoch for epoch in log if abs(epoch.train_loss - chance) < 0.01 * chance]


def _curve_picture(name: str, data: str, scale: str, classes: int, lines: Sequence[_Line]) -> Picture:
    validated = any(line.curve("val_top1_error")[0] for line in lines)
    # One of five answers is always right where there are no more classes.
    panels = PANELS[:2] if not validated else PANELS[:3] if classes <= 5 else PANELS
    figure = Figure(figsize=(7.4, 5.6))
    FigureCanvasAgg(figure)
    grid = figure.subplots(math.ceil(len(panels) / 2), 2, sharex=True, squeeze=False)
    nets = dict.fromkeys((line.variant, line.tuned) for line in lines)
    colour = {net: COLOURS[index % len(COLOURS)] for index, net in enumerate(nets)}
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (metric, title, unit) in zip(grid.flat, panels, strict=False):
        for line in lines:
            _plot(axes, line, metric, colour[line.variant, line.tuned])
        chance = chance_level(metric, classes)
        if math.isfinite(chance):
            axes.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate("chance", (1, chance), xycoords=("axes fraction", "data"), xytext=(0, 2),
                          textcoords="offset points", ha="right", va="bottom", fontsize=7.5)  # fmt: skip
        axes.set_title(f"{title}, {unit}")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    stalls = False
    for line in lines:
        epochs, means, _, _ = line.curve("train_loss")
        still = set.intersection(*(set(stalled(run.log, classes)) for run in line.runs))
        points = [(epoch, mean) for epoch, mean in zip(epochs, means, strict=True) if epoch in still]
        if points:
            stalls = True
            grid.flat[0].plot(*zip(*points, strict=True), "o", color=colour[line.variant, line.tuned], markersize=4,
                              markerfacecolor="none")  # fmt: skip
    for axes in grid.flat[len(panels) - 2 : len(panels)]:  # the lowest of both columns
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    handles: list[Line2D] = []
    for line in lines:
        seeds = f", {len(line.runs)} seeds" if len(line.runs) > 1 else ""
        handles.append(Line2D([], [], color=colour[line.variant, line.tuned], linestyle=line.style,
                              label=f"{line.name}{seeds}"))  # fmt: skip
    if stalls:
        handles.append(Line2D([], [], color=INK, linestyle="", marker="o", markersize=4, markerfacecolor="none",
                              label="loss within 1% of chance"))  # fmt: skip
    columns = 3 if len(handles) > 4 else 2
    legend = 0.17 * math.ceil(len(handles) / columns) + 0.12  # inches
    figure.set_figheight(2.6 * len(grid) + legend)
    figure.legend(handles=handles, loc="lower left", ncols=columns, fontsize=8, bbox_to_anchor=(0.04, 0))
    figure.tight_layout(rect=(0, legend / figure.get_figheight(), 1, 1))
    caption = (
        f"Training on {data}, {classes} classes, {scale} scale. Colour tells the variant, the line's style the "
        f"recipe (authors solid, paper dashed); of several seeds the mean, with the range shaded."
    )
    if any(line.tuned for line in lines):
        caption += " Fine-tuned nets began with the weights of another run, the others with random ones."
    last = "; ".join(
        f"{line.name}: validation top-1 error {means[-1]:.1f}% after epoch {epochs[-1]}"
        for line in lines
        for epochs, means, _, _ in [line.curve("val_top1_error")]
        if epochs
    )
    return finish(figure, name, f"Training curves: {data}, {scale} scale", caption,
                    f"{len(panels)} panels of curves against epochs. {last}")  # fmt: skip


def _plot(axes: Axes, line: _Line, metric: str, colour: str) -> None:
    epochs, means, low, high = line.curve(metric)
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, means, line.style, color=colour, linewidth=1.5, marker=marker)
    if len(line.runs) > 1:
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
