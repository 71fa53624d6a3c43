"""What every source of images provides: its classes, and references to the images of each split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from repro import remote
from repro.data.store import ClassInfo

Chosen = TypeVar("Chosen")
OnFile = Callable[[], None]  # called for each file that a listing finds, for progress


class ImageReference(Protocol):
    """Location of one image. Small and picklable: created in the main process, read in a worker."""

    @property
    def name(self) -> str:
        """Unique name of the image within its source, such as train/cat/1.jpg."""

    @property
    def label(self) -> int:
        """Index of its class in `Source.classes`; UNLABELLED for all images of a split without labels."""

    def identity(self) -> str:
        """Return a string that changes whenever the content of the image may have changed.

        It is cheap: `file_identity` of the file that holds the image, and where in it the image is. A resumed
        `prepare` reads again what has another identity than before. Raises OSError if there is no such file.
        """

    def read(self) -> bytes | NDArray[np.uint8]:
        """Return the encoded image, or RGB pixels [H, W, 3]. Raises OSError if it cannot be read."""


@dataclass(frozen=True)
class Source:
    """Images to prepare: classes in label order, references by split (train, val, test).

    A split is a list, or a sequence that creates its references on access.
    """

    classes: tuple[ClassInfo, ...]
    splits: Mapping[str, Sequence[ImageReference]]
    problems: tuple[str, ...] = ()  # differences from what is expected: an error unless allowed
    notes: tuple[str, ...] = ()  # what was found, for the user
    md5: Mapping[Path, str] = field(default_factory=dict)  # published checksums of files, not verified yet
    class_numbers: tuple[int, ...] = ()  # numbers of the classes in a challenge's submissions, where they are known


def file_identity(path: str | Path) -> str:
    """Return a file's real path, length in bytes and modification time in ns, as one string. Raises OSError.

    Of a remote file, it is the URL, the length, and the checksum or the time that the object store reports.
    """
    if url := remote.remote_url(path):
        return remote.identity(url)
    state = os.stat(path)
    return f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}"


def ignore_file() -> None:
    """Do nothing: the default `OnFile`."""


def check_counts(source: Source, official: Mapping[str, int]) -> Source:
    """Compare the number of images in each split with the `official` one; return the source with notes or problems."""
    notes, problems = list(source.notes), list(source.problems)
    for split, images in official.items():
        found = len(source.splits.get(split, ()))
        if found == images:
            notes.append(f"{split}: {found:,} images, as published")
        else:
            problems.append(f"{split} has {found:,} images, the official set {images:,}")
    return replace(source, problems=tuple(problems), notes=tuple(notes))


def choose(named: Iterable[tuple[str, Chosen]], count: int, seed: int) -> list[Chosen]:
    """Return `count` of the named items, drawn by seed and name.

    The rank of an item depends on the seed and its name alone, not on the other names or on the version of a random
    generator.
    """

    def rank(item: tuple[str, Chosen]) -> bytes:
        return hashlib.sha256(f"{seed} {item[0]}".encode(errors="surrogateescape")).digest()

    return [item for _, item in sorted(named, key=rank)[:count]]


def group_by_label(references: Sequence[ImageReference]) -> dict[int, list[ImageReference]]:
    """Group references by label, in the given order."""
    groups: dict[int, list[ImageReference]] = {}
    for reference in references:
        groups.setdefault(reference.label, []).append(reference)
    return groups
