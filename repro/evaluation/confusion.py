"""Which classes a net confuses: the confusion matrix of an evaluation."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro import atomic
from repro.errors import ReproError
from repro.records.schema import ClassRecord

MOST_CLASSES = 500  # with more, a matrix is too large to be read


def check_classes(count: int) -> None:
    """Raise ReproError if a matrix of `count` classes would be too large to be read."""
    if count > MOST_CLASSES:
        raise ReproError(f"--confusion is for up to {MOST_CLASSES} classes, not {count:,}: leave it out")


def confusion_matrix(labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count images by class (rows) and most probable class (columns), int64 [classes, classes]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, guesses), 1)
    return counts


def read_confusion(predictions: Path, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix of an evaluation's predictions."""
    with predictions.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return confusion_matrix(arrays["labels"], arrays["top5"][:, 0], classes)


def most_confused(matrix: NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """Return up to `count` pairs of classes that are confused most: class, most probable class, number of images."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(index // len(wrong)), int(index % len(wrong))) for index in order]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def write_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[ClassRecord]) -> None:
    """Write the matrix as CSV, a row per class and a column per most probable class. Raises ReproError."""
    names = [each.readable_name for each in classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *names])
    writer.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    atomic.write(path, text.getvalue().encode())
