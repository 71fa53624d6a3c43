"""The effect of each ingredient on the top-1 error, beside the paper's: without a layer, a tower, ten views, …"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.paper.baselines import BASELINES
from repro.paper.sections import section_order
from repro.paper.targets import Measurement, Scope, Target, load_targets
from repro.records.runs import Records
from repro.report.figures.style import COLOURS, INK, NARROW, WIDE, Picture, finish
from repro.report.measurements import measure
from repro.report.measurements.pretraining import PRETRAINED_ON

MOST_PLACES = 5  # more colours cannot be distinguished
PRETRAINED = "s"  # marks a net that was pre-trained on other images: a square


@dataclass(frozen=True)
class Effect:
    """A claim about a difference of top-1 errors, and each place (data, scale, recipe) with what was measured there."""

    target: Target
    measured: tuple[tuple[str, Measurement], ...]

    @property
    def label(self) -> str:
        """The change: "One view instead of ten"."""
        return self.target.quantity.partition(":")[0]


def effects(records: Records) -> list[Effect]:
    """Return the claims about differences of top-1 errors in the paper's order, of runs in which nothing was changed.

    Pre-training on other images is kept.
    """
    found = []
    for target in sorted(load_targets(), key=lambda each: section_order(each.section)):
        if target.measure == "top1_error" and target.baseline and target.baseline not in BASELINES:
            unchanged = (each for each in measure(target, records) if each.scope and _unchanged(each.scope))
            found.append(Effect(target, tuple((_place(each), each) for each in unchanged if each.interval)))
    return found


def _unchanged(scope: Scope) -> bool:
    return all(change.startswith(PRETRAINED_ON) for change in scope.changes)


def effect_pictures(records: Records) -> Iterable[Picture]:
    """Yield one figure of all effects, if any was measured."""
    rows = effects(records)
    found = list(dict.fromkeys(place for row in rows for place, _ in row.measured))
    places = found[:MOST_PLACES]
    rows = [replace(row, measured=tuple(each for each in row.measured if each[0] in places)) for row in rows]
    if not places:
        return
    caption = (
        "Rise in top-1 error through each change of the net, its training or its evaluation. An arrow stands for a "
        "claim without a number. Lines are 95% intervals, thin ones with an open symbol of another number of views "
        "than the claim’s. Only a measurement on the paper’s data and scale can confirm a number; elsewhere its side "
        "of zero counts."
    )
    if left_out := found[MOST_PLACES:]:
        caption += f" Not shown, for want of colours: {'; '.join(left_out)}."
    measured = sum(bool(row.measured) for row in rows)
    alt = f"A row for each of {len(rows)} changes, {measured} of them with intervals below the paper’s number."
    narrow = _draw(rows, places, narrow=True)
    yield finish(_draw(rows, places), "effects", "Effects on the top-1 error", caption, alt, "tables", narrow)


def _place(measurement: Measurement) -> str:
    """Return where a measurement was made: "imagenette, small scale"."""
    assert measurement.scope is not None
    words = [measurement.data, f"{measurement.scope.scale} scale"]
    if measurement.recipe != "authors":
        words.append(f"{measurement.recipe} recipe")
    return ", ".join(words)


def _draw(rows: Sequence[Effect], places: Sequence[str], narrow: bool = False) -> Figure:
    """Draw the effects below each other; in a narrow figure the labels are above the lines."""
    heads = 2 if narrow else 1  # lines of a row above its intervals
    tops, bottom = [], 0.0
    for row in rows:
        tops.append(bottom)
        bottom += heads + 0.8 * len(row.measured) + 0.9
    handles = _handles(rows, places)
    height, legend = 0.135 * bottom, 0.2 * (len(handles) if narrow else (len(handles) + 1) // 2)
    total = height + legend + 0.55
    figure = Figure(figsize=(NARROW if narrow else WIDE, total))
    left = 0.03 if narrow else 0.36
    axes = figure.add_axes((left, (legend + 0.5) / total, 0.97 - left, height / total))
    axes.axvline(0, color=INK, linewidth=0.9)
    for top, row in zip(tops, rows, strict=True):
        _draw_row(axes, top + heads, row, places)
        if narrow:
            axes.annotate(row.label, (0, top + 0.8), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    axes.set_xlim(_limits(rows))
    axes.set_ylim(bottom, 0)
    axes.set_yticks([] if narrow else [top + heads for top in tops], [] if narrow else [row.label for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("rise in top-1 error, points")
    figure.legend(handles=handles, loc="lower center", ncols=1 if narrow else 2, fontsize=8.5)
    return figure


def _draw_row(axes: Axes, at: float, row: Effect, places: Sequence[str]) -> None:
    """Draw the paper's and the authors' numbers of an effect at a height, and what was measured below them."""
    target = row.target
    if target.kind == "direction":
        axes.annotate("", (target.side, at), (0, at), arrowprops={"arrowstyle": "->", "color": INK})
    else:
        axes.plot(target.value, at, "D", color=INK, markersize=5, zorder=3)
    if target.authors is not None:
        axes.plot(target.authors, at, "x", color=INK, markersize=7, zorder=3)
    for place, measured in row.measured:
        if place in places and measured.interval and measured.scope:
            at += 0.8
            colour, planned = COLOURS[places.index(place)], measured.scope.views == target.views
            axes.plot(measured.interval, [at, at], color=colour, linewidth=2 if planned else 1)
            marker, fill = PRETRAINED if measured.scope.changes else "o", colour if planned else "w"
            axes.plot(measured.value, at, marker, color=colour, markersize=4.5, markerfacecolor=fill)


def _limits(rows: Sequence[Effect]) -> tuple[float, float]:
    """Return the ends of the axis: all numbers and some space, whatever the length of the intervals of few seeds."""
    numbers = [0.0, *(row.target.value for row in rows), *(each.value for row in rows for _, each in row.measured)]
    space = 2 + 0.1 * (max(numbers) - min(numbers))
    return min(numbers) - space, max(numbers) + space


def _handles(rows: Sequence[Effect], places: Sequence[str]) -> list[Line2D]:
    pretrained = Line2D(
        [], [], color=INK, marker=PRETRAINED, linestyle="", markersize=5, label="pre-trained on other images"
    )
    shown = any(each.scope and each.scope.changes for row in rows for _, each in row.measured)
    return [
        Line2D([], [], color=INK, marker="D", linestyle="", markersize=5, label="the paper"),
        Line2D([], [], color=INK, marker="x", linestyle="", markersize=7, label="the authors’ notes"),
        *(Line2D([], [], color=COLOURS[n], marker="o", linewidth=2, label=place) for n, place in enumerate(places)),
        *([pretrained] if shown else []),
    ]
