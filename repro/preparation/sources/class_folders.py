"""Images in folders, one folder per class, in one tree or in one tree per split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from repro.data.store import FORMAT, MANIFEST, ClassInfo
from repro.errors import ReproError
from repro.preparation.formats import first_few, plural
from repro.preparation.sources.source import ImageReference, Source
from repro.preparation.sources.tree import Tree, join

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

# Names of the ten ImageNet classes of Imagenette.
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


def split_of(name: str) -> str:
    """Return the split that a folder of this name holds, by the usual names in any case, or ""."""
    word = re.sub(r"[ _-]?(set|data|images|split)$", "", name.casefold())
    return next((split for split, names in SPLIT_NAMES.items() if word in names), "")


def split_folders(tree: Tree) -> dict[str, str]:
    """Return the folder of each split at the top of a tree; empty if there is none.

    Raises ReproError if two folders may be the same split.
    """
    found: dict[str, str] = {}
    for name in tree.listing().folders:
        split = split_of(name)
        if split and split in found:
            raise ReproError(
                f"'{tree.location}' has two folders for {split}, '{found[split]}' and '{name}': remove or rename one"
            )
        if split:
            found[split] = name
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def split_notes(splits: Mapping[str, str]) -> tuple[str, ...]:
    """Say which folder was taken as which split, where their names differ."""
    return tuple(f"'{name}' is taken as {split}" for split, name in splits.items() if name != split)


def are_numbers(ids: Iterable[str]) -> bool:
    """Return whether all class ids are numbers, such as 0 and 17."""
    return all(id.isascii() and id.isdigit() for id in ids)


def in_label_order(ids: set[str]) -> list[str]:
    """Return class ids in the order of their labels: alphabetically, numbers by their value."""
    return sorted(ids, key=lambda id: (int(id), id)) if are_numbers(ids) else sorted(ids)


def order_notes(ids: Sequence[str]) -> tuple[str, ...]:
    """Say that classes are in the order of their numbers, where the alphabetical order differs."""
    if list(ids) == sorted(ids):
        return ()
    return (f"classes are numbers and are labelled in numeric order: {', '.join(ids[:3])}, … {ids[-1]}",)


def class_infos(ids: Sequence[str]) -> tuple[ClassInfo, ...]:
    """Return classes of these ids, named by their ids or as Imagenette's."""
    return tuple(ClassInfo(id, WNID_NAMES.get(id, id)) for id in ids)


def list_class_folders(tree: Tree, splits: Mapping[str, str]) -> Source:
    """List the images in the class folders of each split, in the order of class and name.

    `splits` names the folder of each split, "" for the top. A class folder without images, or one that train lacks, is
    a problem, and left out. Raises ReproError if train has fewer than two classes.
    """
    problems: list[str] = []
    notes: list[str] = []
    images = {split: _by_class(tree, root, problems, notes) for split, root in splits.items()}
    ids = in_label_order(set(images["train"]))
    if len(ids) < 2:
        found = f"{len(ids)} class folders with images{': ' + first_few(ids) if ids else ''}"
        error = f"'{tree.at(splits['train'])}' holds {found}: at least two are needed"
        raise ReproError("; ".join([error, *problems, *tree.skipped.notes()]))
    labels = {id: label for label, id in enumerate(ids)}
    found_splits: dict[str, Sequence[ImageReference]] = {}
    for split, classes in images.items():
        for id in classes.keys() - labels.keys():
            problems.append(f"class '{id}' is in {split} but not in train: '{tree.at(join(splits[split], id))}'")
        found_splits[split] = tree.in_reading_order(
            [tree.reference(path, labels[id]) for id in ids for path in classes.get(id, ())]
        )
    kept = {split: references for split, references in found_splits.items() if references}
    return Source(class_infos(ids), kept, tuple(problems), (*notes, *order_notes(ids)))


def _by_class(tree: Tree, root: str, problems: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Return the images of each class folder in a folder; folders that hold none are added to the problems."""
    listing = tree.listing(root)
    found: dict[str, list[str]] = {}
    for name in listing.folders:
        folder = join(root, name)
        if is_store(tree, folder):
            problems.append(f"'{tree.at(folder)}' is a store that repro prepare made, not a class")
        elif images := tree.images(folder):
            found[name] = images
        else:
            held = tree.skipped.other.get(tree.at(folder), [])
            what = f"but {first_few(held, 3)}" if held else "it is empty"
            problems.append(f"class '{name}' holds no image files, {what}: '{tree.at(folder)}'")
    for path in tree.skipped.dangling.get(tree.at(root), []):
        tree.skipped.reported.add(path)
        problems.append(f"'{tree.at(path)}' is a link to nothing")
    if loose := tree.images_in(root):
        count = plural(len(loose), "image", "images")
        notes.append(f"left out {count} in no class folder of '{tree.at(root)}': {first_few(loose, 3)}")
    if not found and root and not listing.folders:
        problems.append(f"'{tree.at(root)}' holds no class folders")
    return found


def is_store(tree: Tree, folder: str) -> bool:
    """Return whether this folder is a store that `repro prepare` made."""
    path = join(folder, MANIFEST)
    if not tree.exists(path):
        return False
    try:
        manifest = json.loads(tree.read(path))
    except (ReproError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT
