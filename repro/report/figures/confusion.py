"""Which classes a net confuses, beside Figure 4: the confusion matrix of an evaluation, or its most frequent errors."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.evaluation.confusion import most_confused, read_confusion
from repro.records.runs import Evaluation, Records
from repro.records.schema import DataRecord
from repro.report.figures.figure4 import OTHER, class_name
from repro.report.figures.style import COLOURS, INK, NARROW, WIDE, Picture, finish, slug
from repro.report.measurements.context import precedence
from repro.report.measurements.evaluations import EvaluationKey, error_level, group_evaluations
from repro.report.table import with_interval

MOST_CLASSES = 25  # of a matrix that can be read; of more classes the pairs confused most are drawn
MOST_NUMBERED = 12  # classes of a matrix with numbers in its cells
PAIRS = 15


@dataclass(frozen=True)
class _Confusion:
    """An evaluation with the shares of its images: of each class (rows) by most probable class (columns).

    Attributes:
        evaluation: the evaluation.
        net: name of its net.
        key: recipe, data, scale, split and views.
        matrix: number of images, [classes, classes].
    """

    evaluation: Evaluation
    net: str
    key: EvaluationKey
    matrix: NDArray[np.int64]

    @property
    def data(self) -> DataRecord:
        return self.key.context.data

    @property
    def shares(self) -> NDArray[np.float64]:
        """Percentages of each row; zero for a class without images."""
        totals = np.maximum(self.matrix.sum(axis=1, keepdims=True), 1)
        shares: NDArray[np.float64] = 100 * self.matrix / totals
        return shares

    @property
    def pairs(self) -> list[tuple[str, str, int, float]]:
        """The pairs confused most: class, most probable class, number of images, and their share in percent."""
        return [
            (class_name(self.data, row), class_name(self.data, column), images, float(self.shares[row, column]))
            for row, column, images in most_confused(self.matrix, PAIRS)
        ]


def confusion_pictures(records: Records) -> Iterable[Picture]:
    """Yield the confusions on each dataset and split: of the run that counts most there, with most views."""
    groups = group_evaluations(records)
    shown: dict[tuple[DataRecord, str], _Confusion] = {}
    for key in sorted(groups, key=lambda key: (precedence(key.context), key.split != "test", -key.views)):
        if key.split == "train" or (key.context.data, key.split) in shown:
            continue
        candidates = sorted(groups[key].items(), key=lambda each: (each[0] != "alexnet", each[0]))
        for net, evaluations in candidates:
            found = _read(evaluations, net, key)
            if found is not None:
                shown[key.context.data, key.split] = found
                break
    for number, found in enumerate(shown.values(), 1):
        yield _picture(found, f"confusion-{number}-{slug(found.data.label)}-{found.key.split}")


def _read(evaluations: Sequence[Evaluation], net: str, key: EvaluationKey) -> _Confusion | None:
    """Return the confusions of the first evaluation whose predictions can be read, of two or more classes."""
    for each in evaluations:
        classes = each.classes or len(each.data.classes)
        if classes < 2:
            continue
        try:
            return _Confusion(each, net, key, read_confusion(each.predictions_path, classes))
        except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
            continue
    return None


def _picture(found: _Confusion, name: str) -> Picture:
    each, key = found.evaluation, found.key
    views = "centre view" if key.views == 1 else f"{key.views} views"
    seeds = f"seed{'s' if len(each.seeds) > 1 else ''} {'+'.join(map(str, each.seeds))}"
    origin = (
        f"{each.images:,} {key.split} images of {found.data.description} ({found.net}, {key.context.scale.label}, "
        f"recipe {each.recipe}, {seeds}, {views})"
    )
    matrix = len(found.matrix) <= MOST_CLASSES
    most = "; ".join(
        f"{row} taken for {column} ({images:,} image{'s' if images > 1 else ''})"
        for row, column, images, _ in found.pairs[:3]
    )
    level = error_level([each], "top1_error")
    caption = (
        f"Of {origin}, the share of each class (rows) by most probable class (columns), in percent. "
        if matrix
        else f"Of {origin}, the pairs of classes that are confused most: the share of the first class's images whose "
        f"most probable class is the second. "
    )
    caption += f"Top-1 error {with_interval(level, 1, '%')}. " if level else ""
    caption += f"Confused most: {most}." if most else "No image is confused."
    alt = f"Confused most: {most}" if most else "No image is confused"
    draw = _draw_matrix if matrix else _draw_pairs
    title = f"Confused classes: {found.data.label}, {key.split}"
    return finish(draw(found, WIDE), name, title, caption, alt, "figure-4", draw(found, NARROW))


def _draw_matrix(found: _Confusion, width: float) -> Figure:
    """Draw the matrix with the names of the classes, on a figure `width` inches wide."""
    classes = len(found.matrix)
    numbered = classes <= MOST_NUMBERED
    names = [class_name(found.data, label) for label in range(classes)]
    margin = 0.12 + 0.068 * max(map(len, names))  # inches, for names of 8 points
    side = min(width - margin - 0.05, 0.55 * classes)
    height = max(min(side, 4.6), 0.15 * classes)
    figure = Figure(figsize=(width, height + margin))
    total = height + margin
    axes = figure.add_axes((margin / width, 0.03 / total, side / width, height / total))
    # Transparent where there is nothing, so that the cells suit a dark page too.
    image = np.zeros((classes, classes, 4))
    image[..., :3] = [to_rgb(COLOURS[0])]
    image[range(classes), range(classes), :3] = to_rgb(COLOURS[2])
    image[..., 3] = 0.72 * found.shares / 100
    axes.imshow(image, interpolation="nearest", aspect="auto")
    axes.set_xticks(range(classes), names, rotation=90, fontsize=8)
    axes.set_yticks(range(classes), names, fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(True)
    if numbered:
        _write_shares(axes, found.shares)
    return figure


def _write_shares(axes: Axes, shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(shares > 0.5):
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=8, color=INK)


def _draw_pairs(found: _Confusion, width: float) -> Figure:
    """Draw a bar for each of the pairs that are confused most, on a figure `width` inches wide."""
    pairs = found.pairs
    figure = Figure(figsize=(width, 0.24 * max(len(pairs), 1) + 0.5))
    axes = figure.add_axes((0.02, 0.44 / figure.get_figheight(), 0.96, 1 - 0.46 / figure.get_figheight()))
    for line, (row, column, _, share) in enumerate(pairs):
        axes.barh(line, share, color=OTHER, height=0.84, alpha=0.55)
        axes.text(0.004, line, f"{row} → {column}", transform=axes.get_yaxis_transform(), fontsize=8, va="center")
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("% of the images of the first class")
    return figure
