"""What `repro predict` prints and draws."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from repro import atomic
from repro.formatting import valid_text

if TYPE_CHECKING:
    from repro.evaluation.predict import Classified
    from repro.records.schema import ClassRecord

Form = Literal["table", "json", "csv"]

MOST_CONFUSED = 5
COLUMNS = ("image", "label", "rank", "id", "name", "probability")


def show(console: Console, found: Iterable[Classified], form: Form, keep: bool = False) -> list[Classified]:
    """Print the classes of each image, a table or CSV as they come, JSON once all are there.

    Returns the images to `keep` them for a figure, else nothing: those of a large folder would not fit in memory.
    """
    kept: list[Classified] = []
    documents: list[dict[str, object]] = []
    if form == "csv":
        _print_csv([COLUMNS])
    for image in found:
        if keep:
            kept.append(image)
        if form == "json":
            documents.append(_document(image))
        elif form == "csv":
            _print_csv(_rows(image))
        else:
            _print_table(console, image)
    if form == "json":
        print(json.dumps(documents, indent=1, ensure_ascii=False))
    return kept


def _print_table(console: Console, image: Classified) -> None:
    console.print(f"{image.name}{f'  ({image.label.readable_name})' if image.label else ''}")
    for guess in image.guesses:
        mark = "  <-- its class" if image.label and image.label.id == guess.id else ""
        console.print(f"  {guess.probability:7.2%}  {guess.name}{mark}")


def check_figure(path: Path) -> None:
    """Raise ReproError if no figure can be written at `path`, before images are classified for it."""
    from repro.report.figures.classified import check_ending

    check_ending(path)
    atomic.check_file(path)


def draw(images: Iterable[Classified], path: Path) -> None:
    """Draw the images with the bars of their classes."""
    from repro.report.figures.classified import Bars, write_bars

    bars = []
    for image in images:
        ids = [guess.id for guess in image.guesses]
        correct = ids.index(image.label.id) if image.label and image.label.id in ids else None
        title = image.label.readable_name if image.label else valid_text(Path(image.name).name)
        names, probabilities = [each.name for each in image.guesses], [each.probability for each in image.guesses]
        bars.append(Bars(image.thumbnail, title, names, probabilities, correct))
    write_bars(bars, path)


def show_confusion(console: Console, predictions: Path, classes: Sequence[ClassRecord], path: Path) -> None:
    """Write the confusion matrix of an evaluation as CSV, and print which classes are confused most."""
    from repro.evaluation.confusion import most_confused, read_confusion, write_confusion

    matrix = read_confusion(predictions, len(classes))
    write_confusion(path, matrix, classes)
    for label, guess, images in most_confused(matrix, MOST_CONFUSED):
        share = images / matrix[label].sum()
        names = [classes[index].readable_name for index in (label, guess)]
        console.print(f"{names[0]} taken for {names[1]}: {images:,} images, {share:.1%} of the class")
    console.print(f"{path}: confusion matrix of {len(classes)} classes")


def _document(image: Classified) -> dict[str, object]:
    guesses = [{"id": each.id, "name": each.name, "probability": each.probability} for each in image.guesses]
    return {"image": image.name, "label": image.label.id if image.label else None, "guesses": guesses}


def _rows(image: Classified) -> list[tuple[object, ...]]:
    label = image.label.id if image.label else ""
    return [
        (image.name, label, rank, guess.id, guess.name, guess.probability)
        for rank, guess in enumerate(image.guesses, 1)
    ]


def _print_csv(rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    print(text.getvalue(), end="")
