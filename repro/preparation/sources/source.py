"""What every source of images gives: classes, and for each split the places where its images are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from repro.data.store import ClassInfo

Chosen = TypeVar("Chosen")
OnFile = Callable[[], None]  # called for each file that a listing finds: of millions, somebody wants to hear


class ImageReference(Protocol):
    """Where one image is. Small and picklable: it is made in the main process and read in a worker."""

    @property
    def name(self) -> str:
        """What the source calls the image; no two images of a source share a name."""

    @property
    def label(self) -> int:
        """Place of its class in the source's classes."""

    def identity(self) -> str:
        """Return a string that changes whenever the content of the image may have changed.

        It is cheap: `file_identity` of the file that holds the image, and where in it the image is. A resumed
        `prepare` reads again what has another identity than before. Raises OSError if there is no such file.
        """

    def read(self) -> bytes | NDArray[np.uint8]:
        """The encoded image, or RGB pixels [H, W, 3]. Raises OSError if it cannot be read."""


@dataclass(frozen=True)
class Source:
    """Images to prepare: classes in label order, references by split (train, val, test).

    A split may be a list, or anything that makes its references when they are asked for.
    """

    classes: tuple[ClassInfo, ...]
    splits: Mapping[str, Sequence[ImageReference]]
    problems: tuple[str, ...] = ()  # what an official data set lacks or has too much of: an error unless allowed
    notes: tuple[str, ...] = ()  # what was found, for people
    md5: Mapping[Path, str] = field(default_factory=dict)  # files with a published checksum, yet to be held against it


def file_identity(path: str | Path) -> str:
    """Return a file's real path, length in bytes and modification time in ns, as one string. Raises OSError."""
    state = os.stat(path)
    return f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}"


def unheard() -> None:
    """The `OnFile` of those who do not care."""


def counted(source: Source, official: Mapping[str, int]) -> Source:
    """The source with its number of images in each split held against the `official` one: a note, or a problem."""
    notes, problems = list(source.notes), list(source.problems)
    for split, images in official.items():
        found = len(source.splits.get(split, ()))
        if found == images:
            notes.append(f"{split}: {found:,} images, as published")
        else:
            problems.append(f"{split} has {found:,} images, the official set {images:,}")
    return replace(source, problems=tuple(problems), notes=tuple(notes))


def choose(named: Iterable[tuple[str, Chosen]], count: int, seed: int) -> list[Chosen]:
    """`count` of the things, chosen by seed and their names.

    Each name's place follows from the seed and the name alone: it does not depend on the other names, nor on
    the version of a random generator.
    """

    def place(thing: tuple[str, Chosen]) -> bytes:
        return hashlib.sha256(f"{seed} {thing[0]}".encode(errors="surrogateescape")).digest()

    return [thing for _, thing in sorted(named, key=place)[:count]]


def by_class(references: Sequence[ImageReference]) -> dict[int, list[ImageReference]]:
    """References grouped by label, in the given order."""
    groups: dict[int, list[ImageReference]] = {}
    for reference in references:
        groups.setdefault(reference.label, []).append(reference)
    return groups
