"""Figure 4: test images with their most probable labels; queries with the training images nearest to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.report.figures.style import INK, Picture, finish, slug
from repro.report.measure import Context, precedence, retrieval_scale
from repro.report.records import Records, Retrieval

RIGHT, OTHER = "#c8321f", "#6f9bd1"  # the correct label's bar is red, as in the paper
LONGEST = 24  # letters of a class's name under a picture


def retrieval_pictures(records: Records) -> Iterable[Picture]:
    """Both halves of Figure 4, of the first `alexnet` run of each recipe, data set and scale."""
    shown: dict[tuple[Context, str], Retrieval] = {}
    for each in sorted(records.retrievals, key=lambda each: each.seed):
        if each.variant == "alexnet":
            context = Context(each.recipe, each.data, retrieval_scale(records, each))
            shown.setdefault((context, each.split), each)
    for context, split in sorted(shown, key=lambda key: (precedence(key[0]), key[1] != "test")):
        each = shown[context, split]
        arrays = each.arrays()
        if arrays is not None and _whole(arrays):
            place = f"{each.data.label}, {split} ({context.scale} scale, recipe {each.recipe}, seed {each.seed})"
            yield _labelled(each, arrays, place)
            yield _neighbours(each, arrays, place)


def _whole(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the arrays have the shapes that the figure needs."""
    pictures = (arrays["labelled_images"].ndim, arrays["query_images"].ndim)
    nearest = [arrays[f"query_{space}_images"].ndim for space in ("fc7", "pixels")]
    return (
        pictures == (4, 4)
        and nearest == [5, 5]
        and min(len(arrays["labelled_images"]), len(arrays["query_images"])) > 0
    )


def class_name(retrieval: Retrieval, label: int) -> str:
    """The class's first name, cut to fit; its number if the list of classes is missing."""
    names = retrieval.data.classes
    name = names[label].split(",")[0].strip() if 0 <= label < len(names) and names[label] else f"class {label}"
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _labelled(each: Retrieval, arrays: dict[str, np.ndarray], place: str) -> Picture:
    images, labels = arrays["labelled_images"], arrays["labelled_labels"]
    columns = 4
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(7.4, 2.75 * rows))
    FigureCanvasAgg(figure)
    height = 1 / rows
    words = []
    for index, image in enumerate(images):
        left, top = (index % columns) / columns + 0.012, 1 - (index // columns) * height
        side = (1 / columns - 0.024) * 7.4 / (2.75 * rows)  # a square's height, as a share of the figure's
        axes = figure.add_axes((left, top - side - 0.01, 1 / columns - 0.024, side))
        _show(axes, image)
        true = int(labels[index])
        figure.text(left + (1 / columns - 0.024) / 2, top - side - 0.02, class_name(each, true), fontsize=8,
                    weight="bold", ha="center", va="top")  # fmt: skip
        bars = figure.add_axes((left, top - height + 0.02, 1 / columns - 0.024, height - side - 0.09))
        guesses, probabilities = arrays["labelled_top5"][index], arrays["labelled_probabilities"][index]
        places = list(range(len(guesses)))
        bars.barh(
            places,
            probabilities,
            color=[RIGHT if guess == true else OTHER for guess in guesses],
            height=0.86,
            alpha=0.55,
        )
        for where, guess in zip(places, guesses, strict=True):
            bars.text(0.02, where, class_name(each, int(guess)), fontsize=7, va="center")
        bars.set_xlim(0, 1)
        bars.set_ylim(4.6, -0.6)
        bars.set_axis_off()
        found = true in guesses.tolist()
        words.append(f"{class_name(each, true)}: {'' if found else 'not '}among the five")
    caption = (
        f"Images of {place} with the five most probable labels (centre view); the correct label, written under the "
        f"image, has the red bar if it is among them. Drawn by chance, one of each class in turn."
    )
    return finish(
        figure,
        f"figure4-labels-{slug(each.run)}-{each.split}",
        "Figure 4, left: eight images and what the net says",
        caption,
        "; ".join(words),
    )


def _neighbours(each: Retrieval, arrays: dict[str, np.ndarray], place: str) -> Picture:
    queries, labels = arrays["query_images"], arrays["query_labels"]
    count = arrays["query_fc7_images"].shape[1]
    columns = 1 + 0.35 + count + 0.35 + count
    width, head = 9.6, 0.3
    side = width / columns
    height = side * len(queries) + head
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def cell(column: float, row: int) -> Axes:
        box = (column / columns, 1 - (head + (row + 1) * side) / height, 1 / columns, side / height)
        axes = figure.add_axes((box[0] + 0.001, box[1] + 0.002, box[2] - 0.002, box[3] - 0.004))
        return axes

    for column, words in ((0.0, "image"), (1.35, "nearest in fc7"), (1.7 + count, "nearest in pixels")):
        figure.text(column / columns + 0.002, 1 - 0.2 / height, words, fontsize=9, weight="bold")
    same: dict[str, int] = {}
    for row, image in enumerate(queries):
        _show(cell(0, row), image)
        for space, start in (("fc7", 1.35), ("pixels", 1.7 + count)):
            for place_, picture in enumerate(arrays[f"query_{space}_images"][row]):
                right = bool(arrays[f"query_{space}_labels"][row][place_] == labels[row])
                same[space] = same.get(space, 0) + right
                _show(cell(start + place_, row), picture, right)
    precision = {space: _with_interval(each.precision[space]) for space in each.precision}
    total = count * len(queries)
    caption = (
        f"Images of {place}, each with the six training images nearest to it by fc7’s activations, then by pixels "
        f"(Euclidean distance); a red bar below marks those of its class. Over all {each.images:,} images, of the six "
        f"nearest in fc7 {precision['fc7']} are of the same class, in pixels {precision['pixels']}, by chance "
        f"{each.precision_at_random:.1f}%; codes of {each.bits} bits from an auto-encoder on fc7 give "
        f"{precision['codes']}"
    )
    if each.seconds["codes"] > 0:
        caption += f" and are searched {each.seconds['fc7'] / each.seconds['codes']:.1f} times as quickly"
    caption += f". {_with_interval(each.overlap)} of those nearest in fc7 are among those nearest in pixels."
    alt = (
        f"{len(queries)} rows of pictures: of {total} nearest in fc7 {same['fc7']} are of the image's class, of "
        f"{total} nearest in pixels {same['pixels']}"
    )
    return finish(
        figure,
        f"figure4-neighbours-{slug(each.run)}-{each.split}",
        "Figure 4, right: the nearest training images",
        caption,
        alt,
    )


def _with_interval(measured: tuple[float, tuple[float, float]]) -> str:
    value, (low, high) = measured
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _show(axes: Axes, image: Any, marked: bool = False) -> None:
    axes.imshow(image, interpolation="lanczos", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if marked:
        axes.axhspan(0.95 * len(image) - 0.5, len(image) - 0.5, color=RIGHT, linewidth=0, zorder=3)
    axes.set_facecolor(INK)
