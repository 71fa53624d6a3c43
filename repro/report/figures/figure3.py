"""Figure 3: the kernels of conv1 (Sec. 6.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.formatting import number
from repro.paper.intervals import error_interval, welch_interval
from repro.records.runs import Records, Run
from repro.report.figures.style import COLOURS, INK, NARROW, WIDE, Picture, finish, slug
from repro.report.measurements.context import Context, context_of, precedence, run_scale
from repro.report.measurements.filters import Floats, colourfulness, oriented, towers


def kernel_pictures(records: Records) -> Iterable[Picture]:
    """Yield Figure 3 of the first `alexnet` run of each context."""
    shown: dict[Context, tuple[Run, Floats]] = {}
    for run in sorted(records.runs, key=lambda run: run.seed):
        context = context_of(run)
        if run.variant == "alexnet" and context not in shown and (kernels := run.conv1()) is not None:
            shown[context] = run, kernels
    for context in sorted(shown, key=precedence):
        yield _kernel_picture(*shown[context])


def columns_for(kernels: int) -> int:
    """Return the number of kernels per row of one tower: 16 as in the paper, or the most that fill their rows."""
    if kernels % 16 == 0 or kernels < 2:
        return 16 if kernels >= 16 else max(kernels, 1)
    fitting = max(count for count in range(1, min(kernels, 16) + 1) if kernels % count == 0)
    return fitting if fitting > 4 else min(kernels, 16)


def kernel_grid(kernels: Floats, columns: int, gap: int = 1) -> Floats:
    """Return kernels [N, 3, h, w] side by side as an RGBA image [H, W, 4], each scaled to its largest weight.

    Values are 0 to 1, zero weights are grey, so that a kernel without colour shows none. The gaps between the kernels
    are transparent.
    """
    count, _, height, width = kernels.shape
    rows = math.ceil(count / columns)
    image = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    pixels = 0.5 + 0.5 * kernels / np.maximum(largest, np.finfo(np.float32).tiny)
    for index, kernel in enumerate(pixels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        image[top : top + height, left : left + width, :3] = kernel.transpose(1, 2, 0)
        image[top : top + height, left : left + width, 3] = 1
    return image


@dataclass(frozen=True)
class _Tower:
    """The kernels of a tower, [N, 3, h, w], with the colourfulness of each and whether it is oriented, both [N]."""

    kernels: Floats
    colourfulness: Floats
    oriented: NDArray[np.bool_]


def _kernel_picture(run: Run, kernels: Floats) -> Picture:
    pair = [_Tower(half, colourfulness(half), oriented(half)) for half in towers(kernels)]
    size, columns = kernels.shape[2], columns_for(len(pair[0].kernels))
    caption = (
        f"The {len(kernels)} kernels of conv1, {size}×{size}×3, learned on {run.data.label} "
        f"({run_scale(run).label}, recipe {run.recipe}, seed {run.seed}): tower 1 above tower 2, each kernel scaled to "
        f"its largest weight, zero grey; below, the colourfulness of each, the share of its energy that is not grey. "
        f"{_specialisation(*pair)} {_orientation(pair)}"
    )
    rows = math.ceil(len(pair[0].kernels) / columns)
    alt = (
        f"{len(kernels)} small square images in two blocks of {rows} rows of {columns}, above two rows of points. "
        f"{_specialisation(*pair)}"
    )
    title = f"{run.data.label}, {run_scale(run).label}, recipe {run.recipe}"
    narrow = _draw(pair, min(columns, 8), NARROW)
    return finish(_draw(pair, columns, WIDE), f"figure3-{slug(run.name)}", title, caption, alt, "figure-3", narrow)


def _draw(pair: Sequence[_Tower], columns: int, width: float) -> Figure:
    """Draw the kernels of both towers, one above the other, each under a line with its statistics, then the points."""
    grids = [kernel_grid(tower.kernels, columns) for tower in pair]
    label, gap, points, axis = 0.22, 0.06, 0.62, 0.42  # inches; the last two are heights of the panel and its axis
    panels = [width * grid.shape[0] / grid.shape[1] for grid in grids]
    figure = Figure(figsize=(width, sum(panels) + len(pair) * (label + gap) + label + points + axis))
    total = top = figure.get_figheight()
    for index, (tower, grid, panel) in enumerate(zip(pair, grids, panels, strict=True), 1):
        shares = f"colourfulness {tower.colourfulness.mean():.2f}, {tower.oriented.sum()} of {len(tower.kernels)}"
        figure.text(0.001, (top - label + gap) / total, f"Tower {index}: {shares} oriented", fontsize=8.5, va="bottom")
        axes = figure.add_axes((0, (top - label - panel) / total, 1, panel / total))
        # Pixels are enlarged without smoothing, so that single weights can be seen; in an SVG by the browser.
        axes.imshow(grid, interpolation="none", aspect="auto")
        axes.set_axis_off()
        top -= label + panel + gap
    left = 0.62 / width
    _draw_points(figure.add_axes((left, axis / total, 0.98 - left, points / total)), pair)
    return figure


def _draw_points(axes: Axes, pair: Sequence[_Tower]) -> None:
    """Draw the colourfulness of each kernel, a row of points per tower: filled if the kernel is oriented."""
    for row, tower in enumerate(pair):
        colour = COLOURS[row]
        for which, fill in ((tower.oriented, colour), (~tower.oriented, "none")):
            values = tower.colourfulness[which]
            axes.plot(values, [-row] * len(values), "o", color=colour, markerfacecolor=fill, markersize=4, alpha=0.7)
        mean = float(tower.colourfulness.mean())
        axes.plot([mean, mean], [-row - 0.32, -row + 0.32], color=INK, linewidth=1.4)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_ylim(-1.5, 0.5)
    axes.set_yticks([0, -1], ["tower 1", "tower 2"], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("colourfulness; filled: oriented, line: mean", fontsize=8.5, labelpad=2)


def _specialisation(first: _Tower, second: _Tower) -> str:
    """Return the towers' colourfulness, and which is the more colourful one, if chance does not explain that."""
    one, other = first.colourfulness, second.colourfulness
    interval = welch_interval(one.tolist(), other.tolist())
    means = f"Mean colourfulness is {one.mean():.2f} in tower 1 and {other.mean():.2f} in tower 2"
    if interval is None:
        return f"{means}."
    low, high = interval if one.mean() >= other.mean() else (-interval[1], -interval[0])
    means += f", a difference of {abs(one.mean() - other.mean()):.2f} [{number(low, 2)}, {number(high, 2)}]"
    if interval[0] <= 0 <= interval[1]:
        return f"{means}: the towers do not differ."
    agnostic, specific = (1, 2) if interval[1] < 0 else (2, 1)
    return f"{means}: tower {agnostic} is the more colour-agnostic, tower {specific} the more colour-specific one."


def _orientation(pair: Sequence[_Tower]) -> str:
    """Return how many kernels of both towers are oriented, with the interval of the share."""
    found = np.concatenate([tower.oriented for tower in pair])
    count, total = int(found.sum()), len(found)
    low, high = error_interval(count, total)
    return (
        f"{count} of {total} kernels, {100 * count / total:.0f}% [{low:.0f}, {high:.0f}], are more oriented than noise "
        f"with their spectrum."
    )
