"""Image files in folders, one folder a class.

Either `train/` with `val/` and `test/` beside it (both optional), or the class folders alone. Where there is no
`val/`, one training image in ten of each class (at least one) is held out for it, chosen by seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.data.store import SPLITS, ClassInfo
from repro.errors import ReproError
from repro.preparation.sources.source import (
    ImageReference,
    OnFile,
    Source,
    choose,
    file_identity,
    group_by_label,
    ignore_file,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
HELD_OUT = 10  # one in ten

# The ten ImageNet classes of imagenette, which are met more often by their ids than by their names.
WNID_NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


@dataclass(frozen=True, slots=True)
class FileReference:
    """An image file; its name is its path below the source's folder."""

    root: str
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the file."""
        return file_identity(f"{self.root}/{self.name}")

    def read(self) -> bytes:
        """The encoded image."""
        with open(f"{self.root}/{self.name}", "rb", buffering=0) as file:
            return file.read()


def folder(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List the images below `path`; nothing is decoded. Raises ReproError if the layout does not fit."""
    if path is None:
        raise ReproError("dataset 'folder' needs a folder of images: give it with --source PATH")
    source = list_images(path, on_file=on_file)
    if "val" in source.splits:
        return source
    return Source(source.classes, _hold_out(source, seed))


def list_images(path: Path, splits: Sequence[str] = SPLITS, on_file: OnFile = ignore_file) -> Source:
    """List the images below `path` in those of the splits that are there, or all of it as train.

    The order is that of class and then name. Raises ReproError if the layout does not fit.
    """
    if not path.is_dir():
        raise ReproError(f"no such folder: '{path}'")
    roots = {split: path / split for split in splits if (path / split).is_dir()}
    if roots and "train" not in roots:
        raise ReproError(f"'{path}' has {' and '.join(roots)} but no train: put the training images there")
    roots = roots or {"train": path}

    class_ids = _class_folders(roots["train"])
    if len(class_ids) < 2:
        raise ReproError(
            f"'{roots['train']}' holds {len(class_ids)} class folders: at least two are needed, with images in each"
        )
    labels = {class_id: label for label, class_id in enumerate(class_ids)}
    found: dict[str, Sequence[ImageReference]] = {}
    for split, root in roots.items():
        references: list[ImageReference] = []
        for class_id in _class_folders(root):
            if class_id not in labels:
                raise ReproError(f"class '{class_id}' is in {split} but not in train: '{root / class_id}'")
            below = (root / class_id).relative_to(path).as_posix()
            names = sorted(f"{below}/{name}" for name in _image_files(root / class_id, on_file))
            if not names:
                raise ReproError(f"class '{class_id}' holds no image files: '{root / class_id}'")
            references += [FileReference(str(path), name, labels[class_id]) for name in names]
        if not references:
            raise ReproError(f"'{root}' holds no class folders: add them, or remove it")
        found[split] = references
    return Source(tuple(ClassInfo(id, WNID_NAMES.get(id, id)) for id in class_ids), found)


def _hold_out(source: Source, seed: int) -> Mapping[str, Sequence[ImageReference]]:
    held_out: set[str] = set()
    for label, references in group_by_label(source.splits["train"]).items():
        if len(references) < 2:
            raise ReproError(
                f"class '{source.classes[label].id}' has one image: two are needed, one of them for validation"
            )
        names = [(reference.name, reference.name) for reference in references]
        held_out |= set(choose(names, max(1, len(references) // HELD_OUT), seed))
    train = [reference for reference in source.splits["train"] if reference.name not in held_out]
    val = [reference for reference in source.splits["train"] if reference.name in held_out]
    return {**source.splits, "train": train, "val": val}


def _class_folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(root) if entry.is_dir())


def _image_files(folder: Path, on_file: OnFile) -> Iterator[str]:
    """Their paths below the folder."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):  # a link may lead back up
            yield from (f"{entry.name}/{name}" for name in _image_files(folder / entry.name, on_file))
        elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
            on_file()
            yield entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ReproError(f"cannot read the folder '{folder}': {error.strerror}") from error
