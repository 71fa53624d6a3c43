"""`repro predict`: the most probable classes of a user's own images, by one run or by the average of several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.errors import ReproError, unknown
from repro.evaluation.classifiers import Classifier, open_classifier
from repro.evaluation.trained_model import Guess, best_guesses
from repro.models.allocator import keep_freed_memory
from repro.preparation.sources.tree import FolderTree
from repro.records.schema import ClassRecord

STANDARD_INPUT = "-"
BATCH = 32


@dataclass(frozen=True)
class ImageSource:
    """An image to classify.

    Attributes:
        name: its path, or "-" for standard input.
        content: the encoded image.
        label: id or name of its class, if it is known.
        required: whether an image that cannot be decoded is an error, not a note.
    """

    name: str
    content: bytes
    label: str | None = None
    required: bool = True


@dataclass(frozen=True)
class Classified:
    """An image with its most probable classes.

    Attributes:
        name: its path, or "-" for standard input.
        guesses: the most probable classes, the most probable first.
        label: its class, if it is known.
        thumbnail: the square that the crops are cut from, uint8 [S, S, 3].
    """

    name: str
    guesses: tuple[Guess, ...]
    label: ClassRecord | None
    thumbnail: NDArray[np.uint8]


def predict_images(
    runs: Sequence[Path],
    images: Sequence[str],
    views: int = 10,
    top: int = 5,
    label: str | None = None,
    devices: str | None = None,
    on_note: Callable[[str], None] | None = None,
    batch_size: int = BATCH,
) -> Iterator[Classified]:
    """Classify images; yields them in order.

    Args:
        runs: folders of finished runs; the softmax outputs of several are averaged, class by class.
        images: files, folders that are searched recursively as by `prepare`, or "-" for an image on standard input.
        views: 1 for the centre crop, 10 for the paper's ten (Sec. 4.1).
        top: number of classes for each image.
        label: id or name of the class of all images; without it the name of an image's folder counts, if it is one.
        devices: as in `open_run`.
        on_note: called with a line about each file in a folder that cannot be decoded, and about those that are not
            taken for images; a named file that cannot be decoded is an error.
        batch_size: number of images that are computed at once.

    Raises ReproError for runs, classes or images that do not fit.
    """
    keep_freed_memory()
    models = [open_classifier(run, devices) for run in runs]
    classes = models[0].classes
    orders = [_order(model, models[0]) for model in models]
    correct = None if label is None else find_class(label, classes)
    batch: list[tuple[ImageSource, list[NDArray[np.uint8]]]] = []
    found = False
    for source in read_images(images, label, on_note):
        try:
            squares = [model.preprocess(source.content) for model in models]
        except ReproError as error:
            message = str(error).replace("the image", f"'{source.name}'", 1)
            if source.required:
                raise ReproError(message) from error
            if on_note:
                on_note(f"left out: {message}")
            continue
        found = True
        batch.append((source, squares))
        if len(batch) == batch_size:
            yield from _classify(batch, models, orders, views, top, correct)
            batch = []
    if batch:
        yield from _classify(batch, models, orders, views, top, correct)
    if not found:
        raise ReproError(f"no images in {', '.join(map(repr, images))}: name files, folders of them, or - for an image")


def read_images(
    images: Sequence[str], label: str | None = None, on_note: Callable[[str], None] | None = None
) -> Iterator[ImageSource]:
    """Yield the images of files, of folders and of standard input. Raises ReproError for what cannot be read.

    What is an image in a folder is decided as by `prepare`: by content, without thumbnails of the system, and links
    are followed. A file that is named is read whatever it is.
    """
    for image in images:
        if image == STANDARD_INPUT:
            yield ImageSource(STANDARD_INPUT, _standard_input(), label)
            continue
        path = Path(image)
        if not path.is_dir():
            yield ImageSource(image, _content(path), label or path.resolve().parent.name)
            continue
        tree = FolderTree(path)
        for name in tree.images():
            file = path / name
            folder = file.parent.name or file.resolve().parent.name  # of "." there is no name
            yield ImageSource(str(file), _content(file), label or folder, required=False)
        if on_note:
            for line in tree.skipped.notes():
                on_note(line)


def _standard_input() -> bytes:
    if sys.stdin is None:  # as Python leaves it where the file descriptor is closed
        raise ReproError("standard input is closed: pipe an image into it, or name a file")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ReproError(f"cannot read standard input: {error.strerror}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReproError(f"cannot read '{path}': {error.strerror}") from error


def find_class(label: str, classes: Sequence[ClassRecord]) -> ClassRecord:
    """Return the class with the id or the name `label`. Raises ReproError with similar ones if there is none."""
    found = _known_class(label, classes)
    if found is None:
        raise unknown("class", label, [name for each in classes for name in dict.fromkeys((each.id, each.name))])
    return found


def _known_class(label: str | None, classes: Iterable[ClassRecord]) -> ClassRecord | None:
    return next((each for each in classes if label in (each.id, each.name)), None) if label else None


def _order(model: Classifier, first: Classifier) -> Tensor:
    """Return where the classes of `first` are among those of `model`. Raises ReproError if the ids differ."""
    positions = {each.id: index for index, each in enumerate(model.classes)}
    ids = [each.id for each in first.classes]
    if positions.keys() != set(ids):
        raise ReproError(
            f"'{model.run.folder}' and '{first.run.folder}' have other classes: average runs with the same classes"
        )
    return torch.tensor([positions[id] for id in ids])


def _classify(
    batch: Sequence[tuple[ImageSource, list[NDArray[np.uint8]]]],
    models: Sequence[Classifier],
    orders: Sequence[Tensor],
    views: int,
    top: int,
    correct: ClassRecord | None,
) -> Iterator[Classified]:
    outputs = [
        model.probabilities(np.stack([squares[index] for _, squares in batch]), views)[:, order]
        for index, (model, order) in enumerate(zip(models, orders, strict=True))
    ]
    classes = models[0].classes
    for (source, squares), probabilities in zip(batch, torch.stack(outputs).mean(0), strict=True):
        label = correct or _known_class(source.label, classes)
        yield Classified(source.name, best_guesses(probabilities, classes, top), label, squares[0])
