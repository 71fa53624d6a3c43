"""Figure 4: test images with their most probable labels, and queries with their nearest training images (Sec. 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.records.runs import Records, Retrieval
from repro.records.schema import DataRecord, Estimate
from repro.report.figures.style import INK, NARROW, WIDE, Picture, finish, slug
from repro.report.measurements.context import Context, precedence, scale_of

CORRECT, OTHER = "#c8321f", "#6f9bd1"  # the correct label's bar is red, as in the paper
LONGEST = 24  # letters of a class's name under a picture
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Examples:
    """A retrieval with its example images, and where they come from in words."""

    retrieval: Retrieval
    arrays: Arrays
    origin: str

    def file_name(self, part: str) -> str:
        return f"figure4-{part}-{slug(self.retrieval.run)}-{self.retrieval.split}"


def retrieval_pictures(records: Records) -> Iterable[Picture]:
    """Yield both halves of Figure 4 of one run in each context, of `alexnet` if it was searched there."""
    shown: dict[tuple[Context, str], Retrieval] = {}
    for each in sorted(records.retrievals, key=lambda each: (each.variant != "alexnet", each.variant, each.seed)):
        context = Context(each.recipe, each.data, scale_of(records, each))
        shown.setdefault((context, each.split), each)
    for context, split in sorted(shown, key=lambda key: (precedence(key[0]), key[1] != "test")):
        each = shown[context, split]
        arrays = each.examples()
        if arrays is not None and _complete(arrays):
            where = f"{each.data.label}, {split}"
            net = "" if each.variant == "alexnet" else f"{each.variant}, "
            examples = _Examples(
                each, arrays, f"{where} ({net}{context.scale.label}, recipe {each.recipe}, seed {each.seed})"
            )
            yield _labels_picture(examples)
            yield _neighbours_picture(examples)


def _complete(arrays: Arrays) -> bool:
    """Return whether the arrays have the shapes that the figure needs."""
    images = (arrays["labelled_images"].ndim, arrays["query_images"].ndim)
    neighbours = [arrays[f"query_{space}_images"].ndim for space in ("fc7", "pixels")]
    return (
        images == (4, 4)
        and neighbours == [5, 5]
        and min(len(arrays["labelled_images"]), len(arrays["query_images"])) > 0
    )


def class_name(data: DataRecord, label: int) -> str:
    """Return the first name of a class, cut to fit; its number if the list of classes is missing."""
    names = data.class_names
    name = names[label].split(",")[0].strip() if 0 <= label < len(names) and names[label] else f"class {label}"
    return shortened(name)


def shortened(name: str) -> str:
    """Return a name, cut to `LONGEST` letters."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _count(number: int) -> str:
    return COUNTS[number] if number < len(COUNTS) else str(number)


def _labels_picture(examples: _Examples) -> Picture:
    data, arrays = examples.retrieval.data, examples.arrays
    guesses = _count(arrays["labelled_top5"].shape[1])  # fewer than five classes have fewer
    caption = (
        f"Images of {examples.origin} with the {guesses} most probable labels (centre view). The correct label is "
        f"written under the image; its bar is red if it is among the {guesses}. Drawn at random, one of each class in "
        f"turn."
    )
    found = [label in top5 for label, top5 in zip(arrays["labelled_labels"], arrays["labelled_top5"], strict=True)]
    alt = "; ".join(
        f"{class_name(data, int(label))}: {'' if among else 'not '}among the {guesses}"
        for label, among in zip(arrays["labelled_labels"], found, strict=True)
    )
    images = len(arrays["labelled_images"])
    title = f"Left: {_count(images)} image{'s' if images > 1 else ''} with their most probable labels"
    wide, narrow = _draw_labels(examples, 4, WIDE), _draw_labels(examples, 2, NARROW)
    return finish(wide, examples.file_name("labels"), title, caption, alt, "figure-4", narrow)


def _draw_labels(examples: _Examples, columns: int, width: float) -> Figure:
    """Draw each image above its label and the bars of the most probable ones, on a figure `width` inches wide."""
    data, arrays = examples.retrieval.data, examples.arrays
    row_height = 2.95  # inches
    rows = -(-len(arrays["labelled_images"]) // columns)
    figure = Figure(figsize=(width, row_height * rows))
    height = 1 / rows
    side_x = 1 / columns - 0.18 / width
    side_y = side_x * width / (row_height * rows)  # the height of a square, as a share of the figure's
    for index, image in enumerate(arrays["labelled_images"]):
        left, top = (index % columns) / columns + 0.09 / width, 1 - (index // columns) * height
        _show(figure.add_axes((left, top - side_y - 0.02 * height, side_x, side_y)), image)
        correct = int(arrays["labelled_labels"][index])
        figure.text(left + side_x / 2, top - side_y - 0.04 * height, class_name(data, correct), fontsize=8,
                    weight="bold", ha="center", va="top")  # fmt: skip
        bars = figure.add_axes((left, top - 0.96 * height, side_x, 0.865 * height - side_y))
        _draw_bars(bars, data, correct, arrays["labelled_top5"][index], arrays["labelled_probabilities"][index])
    return figure


def _draw_bars(axes: Axes, data: DataRecord, correct: int, guesses: np.ndarray, probabilities: np.ndarray) -> None:
    lines = range(len(guesses))
    colours = [CORRECT if guess == correct else OTHER for guess in guesses]
    axes.barh(lines, probabilities, color=colours, height=0.86, alpha=0.55)
    for line, guess in zip(lines, guesses, strict=True):
        axes.text(0.02, line, class_name(data, int(guess)), fontsize=8, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(4.6, -0.6)
    axes.set_axis_off()


def _neighbours_picture(examples: _Examples) -> Picture:
    each, arrays = examples.retrieval, examples.arrays
    precision = {space: _with_interval(each.precision[space]) for space in each.precision}
    count = "six" if each.neighbours == 6 else str(each.neighbours)  # fewer of a small training set
    caption = (
        f"Images of {examples.origin}, each with its {count} nearest training images by the activations of fc7, then "
        f"by pixels (Euclidean distance); a red bar below marks those of the same class. Over all {each.images:,} "
        f"images, of the {count} nearest in fc7 {precision['fc7']} are of the same class, in pixels "
        f"{precision['pixels']}, by chance {each.precision_at_random:.1f}%; codes of "
        f"{each.bits} bits from an auto-encoder on fc7 give "
        f"{precision['codes']}"
    )
    if each.seconds_per_query["codes"] > 0:
        speedup = each.seconds_per_query["fc7"] / each.seconds_per_query["codes"]
        caption += f" and are searched {speedup:.1f} times as fast"
    caption += f". {_with_interval(each.overlap)} of those nearest in fc7 are among those nearest in pixels."
    same = {space: int(_same_class(arrays, space).sum()) for space in ("fc7", "pixels")}
    total = arrays["query_fc7_labels"].size
    alt = (
        f"{len(arrays['query_images'])} rows of pictures: of {total} nearest in fc7 {same['fc7']} are of the image's "
        f"class, of {total} nearest in pixels {same['pixels']}"
    )
    title = "Right: the nearest training images"
    wide, narrow = _draw_neighbours(arrays), _draw_neighbours(arrays, narrow=True)
    return finish(wide, examples.file_name("neighbours"), title, caption, alt, "figure-4", narrow)


def _same_class(arrays: Arrays, space: str) -> np.ndarray:
    """Return whether each neighbour is of its query's class, [queries, neighbours] bool."""
    same: np.ndarray = arrays[f"query_{space}_labels"] == arrays["query_labels"][:, None]
    return same


def _draw_neighbours(arrays: Arrays, narrow: bool = False) -> Figure:
    """Draw for each query the image, its neighbours in fc7 and its neighbours in pixels, in a row or in two."""
    count = arrays["query_fc7_images"].shape[1]
    if narrow:
        places = {"fc7": (1.2, 0.0), "pixels": (1.2, 1.0)}  # column and row of the first neighbour
        columns, rows, width, titles = 1.2 + count, 2.25, NARROW, ("in fc7, below in pixels", "")
    else:
        places = {"fc7": (1.35, 0.0), "pixels": (1.7 + count, 0.0)}
        columns, rows, width, titles = 1.7 + 2 * count, 1.0, 9.6, ("nearest in fc7", "nearest in pixels")
    head = 0.3  # inches
    side = width / columns
    height = side * rows * len(arrays["query_images"]) + head
    figure = Figure(figsize=(width, height))

    def cell(column: float, row: float) -> Axes:
        left, bottom = column / columns, 1 - (head + (row + 1) * side) / height
        return figure.add_axes((left + 0.001, bottom + 0.002, 1 / columns - 0.002, side / height - 0.004))

    for column, title in zip((0.0, places["fc7"][0], places["pixels"][0]), ("image", *titles), strict=True):
        figure.text(column / columns + 0.002, 1 - 0.2 / height, title, fontsize=9, weight="bold")
    for query, image in enumerate(arrays["query_images"]):
        _show(cell(0, query * rows), image)
        for space, (column, row) in places.items():
            same = _same_class(arrays, space)[query]
            for index, neighbour in enumerate(arrays[f"query_{space}_images"][query]):
                _show(cell(column + index, query * rows + row), neighbour, marked=bool(same[index]))
    return figure


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{estimate.value:.1f}% [{low:.1f}, {high:.1f}]"


def _show(axes: Axes, image: Any, marked: bool = False) -> None:
    axes.imshow(image, interpolation="lanczos", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if marked:
        axes.axhspan(0.95 * len(image) - 0.5, len(image) - 0.5, color=CORRECT, linewidth=0, zorder=3)
    axes.set_facecolor(INK)
