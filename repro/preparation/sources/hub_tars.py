"""The older shards of `imagenet-1k` on the Hugging Face hub: `train_images_0.tar.gz` to `_4`, `val_images.tar.gz`.

The WordNet id at the end of an image's name identifies its class. Images keep the order of the archives, because a
compressed archive is read from its beginning. Every worker decompresses every shard once; gunzipped shards are read
in place, and faster.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.preparation.formats import Skipped
from repro.preparation.sources.source import ImageReference, OnFile, Source, ignore_file
from repro.preparation.sources.tar import Archive, TarReference

SHARDS = {"train": "train_images", "val": "val_images"}


def hub_tar_images(path: Path, on_file: OnFile = ignore_file) -> Source | None:
    """List the images in the tar shards in `path` or its folder `data`; None if there are none. Raises ReproError."""
    files = {split: _shards(path, prefix) or _shards(path / "data", prefix) for split, prefix in SHARDS.items()}
    if not files["train"]:
        return None
    skipped = Skipped()
    found: dict[str, list[tuple[str, TarReference]]] = {}
    for split, shards in files.items():
        for shard in shards:
            archive = Archive.file(shard, on_file)
            for member in archive.images(skipped):
                name = member.name.rsplit("/", 1)[-1]
                ids = re.findall(r"n\d{8}", name)
                if not ids:
                    raise ReproError(f"'{shard}', byte {member.offset:,}: '{name[:100]}' does not name its class")
                reference = TarReference(
                    str(shard), member.offset, member.size, f"{split}/{ids[-1]}/{name}", -1, archive.compression
                )
                found.setdefault(split, []).append((ids[-1], reference))
    labels = {id: label for label, id in enumerate(sorted({id for images in found.values() for id, _ in images}))}
    splits: dict[str, list[ImageReference]] = {
        split: [replace(image, label=labels[id]) for id, image in images] for split, images in found.items()
    }
    return Source(tuple(ClassInfo(id, id) for id in labels), splits, notes=skipped.notes())


def _shards(folder: Path, prefix: str) -> list[Path]:
    pattern = re.compile(rf"{prefix}(_(\d+))?\.(tar\.gz|tgz|tar)")
    found = [
        (int(match[2] or 0), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]
