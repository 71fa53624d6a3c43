"""The dataset `folder`: your own images, in a folder or in a zip or tar archive.

- `train/CLASS/…` with `val/` and `test/` beside it (both optional, by any of the usual names), or the class folders
  alone;
- images that lie together, with labels in a table (`label_table.read_tables`) or in their names (`cat.0.jpg`).

Where there is no val, one training image in ten of each class (at least one) is held out for it, drawn by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro.data.store import SPLITS
from repro.errors import ReproError
from repro.preparation.formats import first_few, plural
from repro.preparation.sources.class_folders import (
    class_infos,
    in_label_order,
    is_store,
    list_class_folders,
    order_notes,
    split_folders,
    split_notes,
    split_of,
)
from repro.preparation.sources.label_table import LabelTable, name_labels, read_table, split_in_name, table_files
from repro.preparation.sources.location import open_tree
from repro.preparation.sources.source import ImageReference, OnFile, Source, choose, group_by_label, ignore_file
from repro.preparation.sources.tree import Tree, join

HELD_OUT = 10  # one in ten
WANTED = "a folder, zip or tar with train/CLASS/*.jpg or CLASS/*.jpg, or with images and a table of labels (CSV)"
NOT_CLASSES = ("images", "imgs", "img", "jpegimages", "jpg", "annotations", "labels", "masks", "segmentations")
NO_SPLITS = "pass --no-splits if every folder is a class"


def folder(path: Path | None, seed: int, on_file: OnFile = ignore_file, splits: bool = True) -> Source:
    """List the images below `path`; nothing is decoded. Raises ReproError if the layout is not understood.

    Without `splits`, every folder at the top is a class, also one called train.
    """
    if path is None:
        raise ReproError(f"dataset 'folder' needs images: give --source {WANTED}")
    tree = open_tree(path, WANTED, on_file)
    source = list_images(tree, splits)
    if "val" not in source.splits:
        source = hold_out(source, seed)
    notes = (*source.notes, *tree.skipped.notes(), *_notes_on_siblings(Path(tree.location), splits))
    return replace(source, notes=notes)


def _notes_on_siblings(path: Path, splits: bool) -> tuple[str, ...]:
    """Say that `--source` is train alone, where val or test lie beside it."""
    if not splits or split_of(path.name) != "train" or not path.is_dir():
        return ()
    siblings = sorted(
        child.name for child in path.absolute().parent.iterdir() if split_of(child.name) in ("val", "test")
    )
    if not siblings:
        return ()
    return (f"'{path}' alone is read: give the folder above it to read {first_few(siblings)} as well",)


def list_images(tree: Tree, splits: bool = True) -> Source:
    """List the images of a tree in any of the layouts. Raises ReproError if it is in none of them."""
    if is_store(tree, ""):
        raise ReproError(f"'{tree.location}' is a store that repro prepare made: it needs no preparation")
    inner = _inner_tree(tree, splits)
    source = _list_inner(inner, splits)
    if inner is tree:
        return source
    return replace(source, notes=(f"the images are in '{inner.location}'", *source.notes))


def _inner_tree(tree: Tree, splits: bool) -> Tree:
    """Return the tree below single folders that hold all splits or classes, as archives often have."""
    while True:
        folders = _folders_with_images(tree, "")
        if len(folders) != 1 or tree.images_in() or tree.images_in(folders[0]):
            return tree
        if (splits and folders[0] in split_folders(tree).values()) or _tables(tree):
            return tree
        tree = tree.below(folders[0])


def _tables(tree: Tree) -> list[LabelTable]:
    """Return the tables at the top of a tree that label its images; those of something else are none."""
    found = []
    paths = table_files(tree, "")
    images = tree.images() if paths else []
    for path in paths:
        with suppress(ReproError):
            found.append(read_table(tree, path, [images]))
    return [table for table in found if table]


def _list_inner(tree: Tree, splits: bool) -> Source:
    folders = [name for name in _folders_with_images(tree, "") if not is_store(tree, name)]
    named = split_folders(tree) if splits else {}
    if named and (not folders or set(named.values()) & set(folders)):
        return _list_splits(tree, named, [name for name in folders if name not in named.values()])
    if len(folders) >= 2:
        if splits:
            _refuse_unknown_splits(tree, folders)
        source = list_class_folders(tree, {"train": ""})
        _refuse_other_labels(tree, source)
        return source
    if labelled := _list_together(tree, {"train": ""}):
        return labelled
    if loose := tree.images_in():
        count = plural(len(loose), "image", "images")
        raise ReproError(
            f"'{tree.location}' holds {count} in no class folders, with labels neither in a table nor in their names: "
            "give the folder above if they are one class of several; "
            f"--source is {WANTED}"
        )
    _refuse_shards(tree)
    return list_class_folders(tree, {"train": ""})


def _list_splits(tree: Tree, splits: dict[str, str], others: Sequence[str]) -> Source:
    """List the images of split folders; `others` are the folders with images beside them."""
    roots = {split: _below_single_folders(tree, name) for split, name in splits.items() if split == "train"}
    classes = _folders_with_images(tree, roots["train"]) if "train" in splits else []
    roots |= {split: _below_single_folders(tree, splits[split], classes) for split in splits if split != "train"}
    _refuse_ambiguous_splits(tree, splits, roots, others)
    notes = [f"left out {first_few(list(others))}: not named train, val or test"] if others else []
    if loose := tree.images_in():
        notes.append(f"left out {plural(len(loose), 'image', 'images')} beside the splits: {first_few(loose, 3)}")
    if "train" not in splits:
        raise ReproError(
            f"'{tree.location}' has {first_few(list(splits.values()))} but no train: put the training images there"
        )
    if len(classes) < 2 and (together := _list_together(tree, roots)):
        return replace(together, notes=(*split_notes(splits), *notes, *together.notes))
    if len(classes) < 2:
        roots["train"] = splits["train"]
    in_folders = {
        split: root if set(tree.listing(root).folders) & set(classes) else splits[split]
        for split, root in roots.items()
        if split == "train" or not _lies_together(tree, root, classes)
    }
    source = list_class_folders(tree, in_folders)
    flat = {split: root for split, root in roots.items() if split not in in_folders}
    added = _list_together(tree, flat, [info.id for info in source.classes]) if flat else None
    if added:
        source = replace(
            source, splits={**source.splits, **added.splits}, problems=(*source.problems, *added.problems),
            notes=(*source.notes, *added.notes),
        )  # fmt: skip
    for split in flat.keys() - source.splits.keys():
        count = len(tree.images(roots[split]))
        if split == "val":
            raise ReproError(
                f"'{tree.at(roots[split])}' holds {count:,} images, neither in class folders nor with labels in a table"
            )
        notes.append(f"left out '{splits[split]}': its {count:,} images have no labels")
    return replace(source, notes=(*split_notes(splits), *notes, *source.notes))


def _list_together(tree: Tree, roots: Mapping[str, str], classes: Sequence[str] = ()) -> Source | None:
    """List images that lie together in the folder of each split, with labels from tables, or else their names.

    `classes` are given where they are known. None if no image of train, or of any split, has a label.
    """
    images = {split: tree.images(root) for split, root in roots.items()}
    labels = _find_labels(tree, roots, images, classes)
    splits = {path: labels.splits.get(path, split) for split, paths in images.items() for path in paths}
    ids = list(classes) or in_label_order({id for path, id in labels.of.items() if splits[path] == "train"})
    if len(ids) < 2 or not labels.of:
        return None
    numbers = {id: label for label, id in enumerate(ids)}
    found: dict[str, list[ImageReference]] = {}
    for path, id in labels.of.items():
        if id in numbers:
            found.setdefault(splits[path], []).append(tree.reference(path, numbers[id]))
    notes = [*labels.notes(ids), *([] if classes else order_notes(ids))]
    if unlabelled := [path for path in splits if path not in labels.of]:
        notes.append(
            f"left out {plural(len(unlabelled), 'image', 'images')} without a label: {first_few(unlabelled, 3)}"
        )
    problems = labels.problems
    if unknown := sorted(set(labels.of.values()) - numbers.keys()):
        problems = [*problems, f"{plural(len(unknown), 'class', 'classes')} that train lacks: {first_few(unknown)}"]
    ordered = {
        split: tree.in_reading_order(sorted(found[split], key=lambda reference: (reference.label, reference.name)))
        for split in SPLITS
        if split in found
    }
    return Source(class_infos(ids), ordered, tuple(problems), tuple(notes))


def _find_labels(
    tree: Tree, roots: Mapping[str, str], images: Mapping[str, list[str]], classes: Sequence[str]
) -> _Labels:
    """Return the labels of images in tables beside or above them; where there is no table, those in their names."""
    labels = _Labels()
    for path in [path for folder in _and_above(roots.values()) for path in table_files(tree, folder)]:
        if table := read_table(tree, path, _scopes(path, roots, images), classes):
            labels.add(tree, table, split_in_name(path) if set(roots.values()) == {""} else "")
    if not labels.tables and not classes:
        for paths in images.values():
            labels.of.update(name_labels(paths))
    return labels


def _and_above(folders: Iterable[str]) -> list[str]:
    """Return folders and those above them, the top first."""
    found = {"": None}
    for folder in folders:
        parts = folder.split("/")
        found |= {"/".join(parts[:length]): None for length in range(1, len(parts) + 1)}
    return list(found)


def _scopes(table: str, roots: Mapping[str, str], images: Mapping[str, list[str]]) -> list[list[str]]:
    """Return the sets of images that a table may be about: those of the split that its folder or name says, or all."""
    folder = table.rpartition("/")[0]
    split = split_in_name(table)
    for name, root in roots.items():
        if (folder and f"{root}/".startswith(f"{folder}/")) or (split == name and root):
            return [images[name]]
    every = [path for paths in images.values() for path in paths]
    return [images["train"], every] if "train" in images else [every]


@dataclass
class _Labels:
    """Labels of images by their paths, from tables or names, with problems and notes."""

    of: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def add(self, tree: Tree, table: LabelTable, split: str = "") -> None:
        """Add the labels of a table, all of whose images are of this split unless a column says another."""
        for path, label in table.labels.items():
            if self.of.setdefault(path, label) != label:
                raise ReproError(
                    f"'{tree.at(table.file)}' labels '{path}' as '{label}', {first_few(self.tables)} as "
                    f"'{self.of[path]}': remove one of the tables"
                )
        self.splits |= {path: table.splits.get(path) or split for path in table.labels if path in table.splits or split}
        if table.missing:
            self.problems.append(
                f"'{tree.at(table.file)}' names {plural(len(table.missing), 'missing image', 'missing images')}: "
                f"{first_few(list(table.missing), 3)}"
            )
        self.tables.append(table.file)
        tree.skipped.reported.add(tree.at(table.file))

    def notes(self, ids: Sequence[str]) -> list[str]:
        """Say where the labels are from."""
        origin = f"from {first_few(self.tables)}" if self.tables else "from the names of the images"
        return [f"labels {origin}: {first_few(list(ids))}"]


def _refuse_ambiguous_splits(
    tree: Tree, splits: Mapping[str, str], roots: Mapping[str, str], others: Sequence[str]
) -> None:
    """Raise ReproError where a folder may be a split or a class, or another folder may be a split."""
    if not others:
        return
    loose = [name for name in splits.values() if tree.images_in(name) and not _folders_with_images(tree, name)]
    siblings = [name for name in others if tree.images_in(name)]
    if loose and siblings and not ("train" in roots and _list_together(tree, {"train": roots["train"]})):
        raise ReproError(
            f"'{tree.location}': {first_few(loose)} may be a split or, like {first_few(siblings)}, a class: "
            f"{NO_SPLITS}, else remove the others"
        )
    classes = set(_folders_with_images(tree, roots["train"])) if "train" in roots else set()
    alike = [name for name in others if classes & set(_folders_with_images(tree, _below_single_folders(tree, name)))]
    if alike:
        raise ReproError(
            f"'{tree.location}': {first_few(alike)} holds the classes of '{splits['train']}', but its name is not "
            f"that of a split: rename it to val or test, or remove it; or {NO_SPLITS}"
        )


def _refuse_unknown_splits(tree: Tree, folders: Sequence[str]) -> None:
    """Raise ReproError if folders that would be classes may be splits or something else, by their names or folders."""
    splits = {split_in_name(name) for name in folders} - {""}
    if "train" in splits and len(splits) > 1:
        raise ReproError(
            f"'{tree.location}': {first_few(list(folders))} may be splits: rename them to train, val and "
            f"test; {NO_SPLITS}"
        )
    parts = [name for name in folders if name.casefold() in NOT_CLASSES]
    if parts:
        raise ReproError(
            f"'{tree.location}': {first_few(parts)} may be no class: give it alone with --source, or {NO_SPLITS}"
        )
    copies = [name for name in folders if len(set(_folders_with_images(tree, name)) & {*folders}) >= 2]
    if copies:
        raise ReproError(
            f"'{tree.location}': {first_few(copies)} holds folders of the same names as the classes beside it: "
            f"remove it, or {NO_SPLITS}"
        )
    if any(tree.images_in(name) for name in folders):
        return
    inner = [set(_folders_with_images(tree, _below_single_folders(tree, name))) for name in folders]
    if len(set.intersection(*inner)) >= 2:
        raise ReproError(
            f"'{tree.location}': {first_few(list(folders))} hold the same folders, {first_few(sorted(inner[0]), 3)}: "
            f"rename them to train, val and test if they are splits; {NO_SPLITS}"
        )


def _refuse_other_labels(tree: Tree, source: Source) -> None:
    """Raise ReproError if a table beside class folders labels their images by other classes."""
    ids = {info.id for info in source.classes}
    for table in _tables(tree):
        labels = set(table.labels.values())
        if 1 < len(labels) < len(source.splits["train"]) / 2 and not labels & ids:
            raise ReproError(
                f"'{tree.location}': the folders {first_few(sorted(ids), 3)} and the table '{table.file}' ("
                f"{first_few(sorted(labels), 3)}) disagree on the classes: remove the table, or put the "
                "images in one folder"
            )


def _refuse_shards(tree: Tree) -> None:
    listing = tree.listing()
    for ending, dataset in ((".parquet", "ilsvrc2012"), (".tar", "webdataset")):
        if any(name.endswith(ending) for name in listing.files):
            raise ReproError(
                f"'{tree.location}' holds no images but *{ending} files: if these are shards, "
                f"repro prepare {dataset} reads them"
            )


def _lies_together(tree: Tree, root: str, classes: Iterable[str]) -> bool:
    """Return whether the images of a split lie together, rather than in folders of the `classes`."""
    listing = tree.listing(root)
    return tree.has_images(root) and not set(listing.folders) & set(classes) and len(listing.folders) < 2


def _below_single_folders(tree: Tree, folder: str, classes: Sequence[str] = ()) -> str:
    """Return the folder below single folders, other than `classes`, that hold all images of a folder."""
    while not tree.images_in(folder):
        inner = _folders_with_images(tree, folder)
        if len(inner) != 1 or inner[0] in classes:
            break
        folder = join(folder, inner[0])
    return folder


def _folders_with_images(tree: Tree, folder: str) -> list[str]:
    return [name for name in tree.listing(folder).folders if tree.has_images(join(folder, name))]


def hold_out(source: Source, seed: int) -> Source:
    """Return the source with one training image in ten of each class moved to val."""
    held_out: set[str] = set()
    single = []
    for label, references in group_by_label(source.splits["train"]).items():
        if len(references) < 2:
            single.append(source.classes[label].id)
            continue
        names = [(reference.name, reference.name) for reference in references]
        held_out |= set(choose(names, max(1, len(references) // HELD_OUT), seed))
    train = [reference for reference in source.splits["train"] if reference.name not in held_out]
    val = [reference for reference in source.splits["train"] if reference.name in held_out]
    problems = list(source.problems)
    if single:
        problems.append(
            f"class {first_few(single)} has one image: two are needed, one of them for validation"
            if len(single) == 1
            else f"{len(single):,} classes have one image, so that none is held out for validation: {first_few(single)}"
        )
    splits = {**source.splits, "train": train, **({"val": val} if val else {})}
    return replace(source, splits=splits, problems=tuple(problems))
