"""What every source of images gives: classes, and for each split the places where its images are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from repro.data.store import ClassInfo


class ImageReference(Protocol):
    """Where one image is. Small and picklable: it is made in the main process and read in a worker."""

    @property
    def name(self) -> str:
        """What the source calls the image; no two images of a source share a name."""

    @property
    def label(self) -> int:
        """Place of its class in the source's classes."""

    def read(self) -> bytes | NDArray[np.uint8]:
        """The encoded image, or RGB pixels [H, W, 3]. Raises OSError if it cannot be read."""


@dataclass(frozen=True)
class Source:
    """Images to prepare: classes in label order, references by split (train, val, test)."""

    classes: tuple[ClassInfo, ...]
    splits: dict[str, Sequence[ImageReference]]


def choose(references: Sequence[ImageReference], count: int, seed: int) -> set[str]:
    """Names of `count` of the references, chosen by seed.

    Each name's place follows from the seed and the name alone: it does not depend on the other files, nor on
    the version of a random generator.
    """

    def place(reference: ImageReference) -> bytes:
        return hashlib.sha256(f"{seed} {reference.name}".encode(errors="surrogateescape")).digest()

    return {reference.name for reference in sorted(references, key=place)[:count]}


def by_class(references: Sequence[ImageReference]) -> dict[int, list[ImageReference]]:
    """References grouped by label, in the given order."""
    groups: dict[int, list[ImageReference]] = {}
    for reference in references:
        groups.setdefault(reference.label, []).append(reference)
    return groups
