"""Imagenette: ten classes of ILSVRC-2012 that are easily told apart; 9,469 training and 3,925 validation images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.preparation.sources.folder import WNID_NAMES, list_images
from repro.preparation.sources.source import OnFile, Source, check_counts, ignore_file
from repro.preparation.sources.tar import Archive, Block, Blocks, Member

IMAGES = {"train": 9_469, "val": 3_925}
FOLDERS = ("imagenette2", "imagenette2-320", "imagenette2-160")


def imagenette(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List Imagenette in its folder or its archive; without a path it is downloaded, once. Raises ReproError."""
    path = download() if path is None else path
    if path.is_file():
        source = _from_archive(path, on_file)
    else:
        inner = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
        source = list_images(inner, ("train", "val"), on_file)
    source = check_counts(source, IMAGES)
    if {info.id for info in source.classes} != WNID_NAMES.keys():
        problem = f"its {len(source.classes)} classes are not the ten of Imagenette"
        source = replace(source, problems=(*source.problems, problem))
    return source


def download() -> Path:
    """Download Imagenette in full size with torchvision, which checks the sum; return its folder."""
    from torchvision.datasets import Imagenette  # it takes a second to import

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "repro" / "imagenette"
    try:
        Imagenette(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise ReproError(
            f"cannot download Imagenette to '{cache}' ({error}): fetch and unpack imagenette2.tgz and name its folder "
            "with --source"
        ) from error
    return cache


def _from_archive(path: Path, on_file: OnFile) -> Source:
    if path.suffix in (".tgz", ".gz"):
        raise ReproError(f"'{path}' is compressed, and its images could be read in one order only: gunzip it first")
    archive = Archive.file(path, on_file)
    found: dict[str, dict[str, list[Member]]] = {split: {id: [] for id in WNID_NAMES} for split in IMAGES}
    for member in archive.members():
        split, id = member.name.split("/")[-3:-1] if member.name.count("/") >= 2 else ("", "")
        if member.name.endswith(".JPEG") and id in found.get(split, {}):
            found[split][id].append(member)
    splits = {
        split: Blocks(
            Block.of(archive, label, f"{split}/{id}", classes[id]) for label, id in enumerate(sorted(classes))
        )
        for split, classes in found.items()
        if any(classes.values())
    }
    if "train" not in splits:
        raise ReproError(f"'{path}' holds no train/WNID/*.JPEG of Imagenette's classes: fetch it again")
    return Source(tuple(ClassInfo(id, WNID_NAMES[id]) for id in sorted(WNID_NAMES)), splits)
