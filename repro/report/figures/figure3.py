"""Figure 3: the kernels of conv1 (Sec. 6.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.paper.intervals import welch_interval
from repro.records import Records, Run
from repro.report.figures.style import Picture, finish, slug
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


def _kernel_picture(run: Run, kernels: Floats) -> Picture:
    halves = towers(kernels)
    size, columns = kernels.shape[2], columns_for(len(halves[0]))
    caption = (
        f"The {len(kernels)} kernels of conv1, {size}×{size}×3, learned on {run.data.label} "
        f"({run_scale(run).label}, recipe {run.recipe}, seed {run.seed}): tower 1 above tower 2, each kernel scaled to "
        f"its largest weight, zero grey. {_specialisation(*map(colourfulness, halves))}"
    )
    alt = f"{len(kernels)} small square images in two blocks of {math.ceil(len(halves[0]) / columns)} rows of {columns}"
    figure = _draw_towers(halves, columns)
    title = f"{run.data.label}, {run_scale(run).label}, recipe {run.recipe}"
    return finish(figure, f"figure3-{slug(run.name)}", title, caption, alt, "figure-3")


def _draw_towers(halves: tuple[Floats, Floats], columns: int) -> Figure:
    """Draw the kernels of both towers, one above the other, each under a line with its statistics."""
    grids = [kernel_grid(half, columns) for half in halves]
    height, width = grids[0].shape[:2]
    figure_width, label, gap = 7.4, 0.22, 0.06  # inches
    panel = figure_width * height / width
    figure = Figure(figsize=(figure_width, 2 * (panel + label) + gap))
    FigureCanvasAgg(figure)
    total = figure.get_figheight()
    for number, (grid, half) in enumerate(zip(grids, halves, strict=True)):
        bottom = (1 - number) * (panel + label + gap)
        axes = figure.add_axes((0, bottom / total, 1, panel / total))
        # Pixels are enlarged without smoothing, so that single weights can be seen.
        axes.imshow(grid, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        shares = f"colourfulness {colourfulness(half).mean():.2f}, {oriented(half).sum()} of {len(half)} oriented"
        text = f"Tower {number + 1}: {shares}"
        figure.text(0.001, (bottom + panel + gap) / total, text, fontsize=8.5, va="bottom")
    return figure


def _specialisation(first: Floats, second: Floats) -> str:
    """Return which tower is the more colourful one, if chance does not explain the difference."""
    interval = welch_interval(first.tolist(), second.tolist())
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "The towers do not differ in colourfulness, the share of a kernel's energy that is not grey."
    agnostic, specific = (1, 2) if interval[1] < 0 else (2, 1)
    return (
        f"Tower {agnostic} is the more colour-agnostic, tower {specific} the more colour-specific one, by the share "
        f"of a kernel's energy that is not grey."
    )
