"""Figure 3: the kernels of conv1 (Sec. 6.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.paper.intervals import welch_interval
from repro.report.conv1_filters import Floats, colourfulness, oriented, towers
from repro.report.figures.style import Picture, finish, slug
from repro.report.measure import Context, context_of, precedence, run_scale
from repro.report.records import Records, Run


def kernel_pictures(records: Records) -> Iterable[Picture]:
    """Figure 3 of the first `alexnet` run of each recipe, dataset and scale."""
    shown: dict[Context, tuple[Run, Floats]] = {}
    for run in sorted(records.runs, key=lambda run: run.seed):
        context = context_of(run)
        if run.variant == "alexnet" and context not in shown and (kernels := run.conv1()) is not None:
            shown[context] = run, kernels
    for context in sorted(shown, key=precedence):
        yield _kernel_picture(*shown[context])


def columns_for(kernels: int) -> int:
    """Kernels per row of one tower: 16 as in the paper, or the most that fills its rows; at least 1."""
    if kernels % 16 == 0 or kernels < 2:
        return 16 if kernels >= 16 else max(kernels, 1)
    fitting = max(count for count in range(1, min(kernels, 16) + 1) if kernels % count == 0)
    return fitting if fitting > 4 else min(kernels, 16)


def kernel_grid(kernels: Floats, columns: int, gap: int = 1) -> Floats:
    """Kernels [N, 3, h, w] side by side as an RGBA image, values 0–1; each stretched to its own contrast.

    Zero is grey, so that a kernel that sees no colour shows none. What lies between kernels is transparent.
    """
    count, _, height, width = kernels.shape
    rows = math.ceil(count / columns)
    image = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    strongest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    pixels = 0.5 + 0.5 * kernels / np.maximum(strongest, np.finfo(np.float32).tiny)
    for index, kernel in enumerate(pixels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        image[top : top + height, left : left + width, :3] = kernel.transpose(1, 2, 0)
        image[top : top + height, left : left + width, 3] = 1
    return image


def _kernel_picture(run: Run, kernels: Floats) -> Picture:
    halves = towers(kernels)
    columns = columns_for(len(halves[0]))
    grids = [kernel_grid(half, columns) for half in halves]
    height, width = grids[0].shape[:2]
    figure_width, label = 7.4, 0.22
    panel = figure_width * height / width
    figure = Figure(figsize=(figure_width, 2 * (panel + label) + 0.06))
    FigureCanvasAgg(figure)
    total = figure.get_figheight()
    colour = [colourfulness(half) for half in halves]
    for number, (grid, half) in enumerate(zip(grids, halves, strict=True)):
        bottom = (1 - number) * (panel + label + 0.06)
        axes = figure.add_axes((0, bottom / total, 1, panel / total))
        # Whole pixels, enlarged: a kernel's weights are to be seen, not smoothed.
        axes.imshow(grid, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        shares = f"colourfulness {colour[number].mean():.2f}, {oriented(half).sum()} of {len(half)} oriented"
        text = f"Tower {number + 1}: {shares}"
        figure.text(0.001, (bottom + panel + 0.06) / total, text, fontsize=8.5, va="bottom")
    size = kernels.shape[2]
    caption = (
        f"The {len(kernels)} kernels of conv1, {size}×{size}×3, learned on {run.data.label} ({run_scale(run)} "
        f"scale, recipe {run.recipe}, seed {run.seed}): tower 1 above tower 2, each kernel stretched to its own "
        f"contrast, zero grey. {_specialisation(*colour)}"
    )
    alt = f"{len(kernels)} small square images in two blocks of {math.ceil(len(halves[0]) / columns)} rows of {columns}"
    return finish(figure, f"figure3-{slug(run.name)}", "Figure 3: the kernels of conv1", caption, alt)


def _specialisation(first: Floats, second: Floats) -> str:
    """Which tower is the more colourful one, if chance does not explain the difference."""
    interval = welch_interval(first.tolist(), second.tolist())
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "The towers do not differ in colourfulness, the share of a kernel's energy that is not grey."
    agnostic, specific = (1, 2) if interval[1] < 0 else (2, 1)
    return (
        f"Tower {agnostic} is the more colour-agnostic, tower {specific} the more colour-specific one, by the share "
        f"of a kernel's energy that is not grey."
    )
