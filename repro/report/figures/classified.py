"""Images with the bars of their most probable classes, in the manner of Figure 4's left half (Sec. 6.1)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro import atomic
from repro.errors import ReproError
from repro.report.figures.figure4 import CORRECT, OTHER, shortened
from repro.report.figures.style import figure_style

COLUMNS = 4
MOST_IMAGES = 48  # of a figure: with more, its file becomes too large to be opened


@dataclass(frozen=True)
class Bars:
    """An image with its most probable classes.

    Attributes:
        image: uint8 [S, S, 3].
        title: what stands under the image: its class, or the name of its file.
        names: the classes, the most probable first.
        probabilities: their probabilities.
        correct: which of them is the image's class, None if that is not among them or not known.
    """

    image: NDArray[np.uint8]
    title: str
    names: Sequence[str]
    probabilities: Sequence[float]
    correct: int | None = None


def check_ending(path: Path) -> None:
    """Raise ReproError if `path` does not have the ending of a format that is written."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ReproError(f"cannot draw '{path}': its name must end in .png, .svg or .pdf")


def write_bars(images: Sequence[Bars], path: Path) -> None:
    """Draw images above the bars of their classes, four per row, and write the figure to `path`, PNG, SVG or PDF.

    Raises ReproError if `path` has another ending, cannot be written, or if there are too many images.
    """
    check_ending(path)
    if len(images) > MOST_IMAGES:
        raise ReproError(f"a figure holds {MOST_IMAGES} images, not {len(images)}: name fewer")
    with figure_style():
        drawn = io.BytesIO()
        draw_bars(images).savefig(drawn, format=path.suffix[1:].lower(), dpi=200, facecolor="#fffefb")
    atomic.write(path, drawn.getvalue())


def draw_bars(images: Sequence[Bars]) -> Figure:
    """Draw images above the bars of their classes."""
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.9, 1.0] * rows)
    for each in axes.flat:
        each.set_axis_off()
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        picture, bars = axes[2 * row][column], axes[2 * row + 1][column]
        picture.imshow(image.image, interpolation="lanczos")
        bars.set_title(shortened(image.title), fontsize=8, fontweight="bold", loc="center", pad=2)
        lines = range(len(image.names))
        colours = [CORRECT if line == image.correct else OTHER for line in lines]
        bars.barh(lines, image.probabilities, color=colours, height=0.86, alpha=0.55)
        for line, name in zip(lines, image.names, strict=True):
            bars.text(0.02, line, shortened(name), fontsize=7, va="center")
        bars.set_xlim(0, 1)
        bars.set_ylim(max(len(image.names), 5) - 0.4, -0.6)
    return figure
