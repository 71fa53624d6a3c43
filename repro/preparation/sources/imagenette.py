"""Imagenette: ten classes of ILSVRC-2012 that are easily told apart; 9,469 training and 3,925 validation images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.preparation.sources.class_folders import WNID_NAMES, list_class_folders, split_folders
from repro.preparation.sources.location import below_single_folders, download, open_tree
from repro.preparation.sources.source import OnFile, Source, check_counts, ignore_file

IMAGES = DATASET_SIZES["imagenette"].images
FOLDERS = ("imagenette2", "imagenette2-320", "imagenette2-160")
WANTED = "imagenette2/ (or -320, -160) or its archive, with train/WNID and val/WNID"


def imagenette(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List Imagenette in its folder or its archive; without a path it is downloaded, once. Raises ReproError."""
    tree = open_tree(download("Imagenette", "imagenette2.tgz") if path is None else path, WANTED, on_file)
    inner = next((name for name in FOLDERS if name in tree.listing().folders), "")
    tree = tree.below(inner) if inner else below_single_folders(tree, lambda tree: "train" in split_folders(tree))
    splits = split_folders(tree)
    if "train" not in splits:
        raise ReproError(f"'{tree.location}' holds no train/WNID of Imagenette: give --source {WANTED}")
    source = list_class_folders(tree, {split: name for split, name in splits.items() if split in IMAGES})
    source = check_counts(replace(source, notes=(*source.notes, *tree.skipped.notes())), IMAGES)
    if {info.id for info in source.classes} != WNID_NAMES.keys():
        problem = f"its {len(source.classes)} classes are not the ten of Imagenette"
        source = replace(source, problems=(*source.problems, problem))
    return source
