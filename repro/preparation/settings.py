"""Settings of `repro prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHORTER_SIDE, SQUASH = "shorter-side", "squash"
RESIZES = (SHORTER_SIDE, SQUASH)


@dataclass(frozen=True)
class PrepareSettings:
    """What to prepare, and how.

    Attributes:
        dataset: name of the dataset, a key of `repro.preparation.sources.datasets.DATASETS`.
        source: where the images are; None downloads or generates them, where that is possible.
        size: shorter side and central crop in pixels; None is the default of the dataset.
        limit_per_class: largest number of images of each class in each split, chosen by `seed`; None keeps all.
        encoding: encoding of the shards, "raw" or "jpeg".
        seed: seed of a held-out split, of a subset and of generated images.
        allow_partial: continue without images, classes or splits that are missing or cannot be read.
        workers: number of processes that decode; None is the number of processors that may be used.
            The store does not depend on it.
        scheduler: address of a Dask scheduler whose workers decode, instead of local processes.
        split_folders: take folders named train, val or test (or the like) for splits; False takes every folder for a
            class. For the dataset "folder" alone.
        orientation: "exif" turns images upright as their EXIF data say, "stored" keeps the pixels as stored; None is
            the default of the dataset: "exif" for "folder", "stored" for all others.
        resize: "shorter-side" resizes the shorter side and crops the central square (Sec. 2), "squash" resizes both
            sides, as some published nets were evaluated.
    """

    dataset: str
    source: Path | None = None
    size: int | None = None
    limit_per_class: int | None = None
    encoding: str = "raw"
    seed: int = 0
    allow_partial: bool = False
    workers: int | None = None
    scheduler: str | None = None
    split_folders: bool = True
    orientation: str | None = None
    resize: str = SHORTER_SIDE

    def to_argv(self, out: Path) -> list[str]:
        """Return the words of the command line that prepares a store at `out`, after `repro`; defaults are left out."""
        words = ["prepare", self.dataset, "--out", str(out)]
        for option in (
            "source",
            "size",
            "limit_per_class",
            "encoding",
            "orientation",
            "resize",
            "seed",
            "workers",
            "scheduler",
        ):
            value = getattr(self, option)
            if value != getattr(PrepareSettings, option):
                words += [f"--{option.replace('_', '-')}", str(value)]
        words += [] if self.split_folders else ["--no-splits"]
        return [*words, "--allow-partial"] if self.allow_partial else words
