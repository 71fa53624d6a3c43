"""ILSVRC-2012 and ILSVRC-2010, 1000 classes each, in the forms in which people have them (Sec. 2).

Each part of the dataset is found by itself, so that any combination of these is read:

- training images: the official archive (a tar of 1000 class tars), that archive unpacked once (a folder of class tars)
  or packed again from folders, or folders `train/WNID/`;
- validation images, and test images of 2010: the archive, folders `val/WNID/`, or one folder of all;
- test images of 2012, whose labels are not public: the archive, or a folder `test` of all; a split without labels;
- classes and the labels of numbered images: the development kit (packed or unpacked), Kaggle's
  `LOC_val_solution.csv` and `LOC_synset_mapping.txt`, or the folders themselves.

ILSVRC-2012 is also read from the shards in which the Hugging Face hub serves `imagenet-1k`: parquet, or tar.gz.

The labels of 2012 are the alphabetical ranks of the WordNet ids, as everywhere in Python; those of 2010 are the ids of
its development kit less one, which is a different order. Within a split, images are in the order of label and file
name whatever the layout, so that archives and folders give the same store. The challenge numbers the classes of 2012 in
a third way, by the ids of its development kit; where there are test images, the store records them for submissions.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from repro.data.store import UNLABELLED, ClassInfo
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES, PRIVATE_TEST_IMAGES
from repro.preparation.formats import HEAD, Skipped, first_few, is_system, kind_of, plural
from repro.preparation.sources.class_folders import WNID_NAMES, split_of
from repro.preparation.sources.hub_tars import hub_tar_images
from repro.preparation.sources.location import open_tree, source_path
from repro.preparation.sources.parquet import parquet_images
from repro.preparation.sources.source import ImageReference, OnFile, Source, check_counts, ignore_file
from repro.preparation.sources.tar import Archive, Block, Member, in_reading_order
from repro.preparation.sources.tree import Tree, folder_tree, join
from repro.remote import open_binary

WNID = re.compile(r"n\d{8}")
UNLABELLED_IMAGE = re.compile(r"ILSVRC2012_test_\d{8}\.JPEG")
UNLABELLED_ARCHIVE = "ILSVRC2012_img_test*.tar"  # that of today is ILSVRC2012_img_test_v10102019.tar
CLASS_TAR = re.compile(r"n\d{8}\.tar")
KIT_BYTES = 100_000_000  # limit to the decompressed size: more than any development kit holds
# Where below `--source` the parts may be, besides in it: Kaggle's tree, and folders that people make.
BELOW = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", "ILSVRC", "data")
LEVELS_ABOVE = 3  # of Kaggle's lists, where `--source` is CLS-LOC


@dataclass(frozen=True)
class Year:
    """One year's official files, and what they hold."""

    year: int
    kit: str
    archives: Mapping[str, str]  # by split
    images: Mapping[str, int]
    bytes: Mapping[str, int]  # of files, where they are known
    md5: Mapping[str, str]
    classes: int = 1000


YEARS = {
    2010: Year(
        year=2010,
        kit="ILSVRC2010_devkit-1.0.tar.gz",
        archives={
            "train": "ILSVRC2010_images_train.tar",
            "val": "ILSVRC2010_images_val.tar",
            "test": "ILSVRC2010_images_test.tar",
        },
        images=DATASET_SIZES["ilsvrc2010"].images,
        # No two public places were found that state the archives' sizes or sums.
        bytes={},
        md5={},
    ),
    2012: Year(
        year=2012,
        kit="ILSVRC2012_devkit_t12.tar.gz",
        archives={"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"},
        images=DATASET_SIZES["ilsvrc2012"].images,
        # MD5: the download page of image-net.org, as often quoted, and torchvision.datasets.imagenet.ARCHIVE_META.
        # Sizes: as announced by the server, and in listings of downloads such as jkjung-avt's keras_imagenet.
        bytes={"ILSVRC2012_img_train.tar": 147_897_477_120, "ILSVRC2012_img_val.tar": 6_744_924_160},
        md5={
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
    ),
}
SOLUTION = "LOC_val_solution.csv"
SYNSETS = "LOC_synset_mapping.txt"
META = "meta.mat"
TEST_TRUTH = "ILSVRC2010_test_ground_truth.txt"
PATCHES = "patch_images.tar"  # 2010: official replacements of a few damaged images


@dataclass(frozen=True)
class Kit:
    """A development kit: classes by their number in it (from 1), and the classes of the validation images."""

    classes: dict[int, ClassInfo]
    validation: list[int]


def ilsvrc2012(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List ILSVRC-2012. Raises ReproError for what cannot be read; what is missing is among the problems."""
    year = YEARS[2012]
    path = _start(path, "ilsvrc2012", year)
    for inner in _with_inner_folders(path):
        if training := _find_training(inner, year, on_file):
            return _checked(_assemble(inner, year, training, on_file), year)
        for read in (parquet_images, hub_tar_images):
            if hub := read(inner, on_file):
                return _checked(hub, year)
    shards = next((name.name for name in path.iterdir() if name.suffix == ".tar"), "")
    raise ReproError(
        f"'{path}' holds neither {year.archives['train']} nor ILSVRC/Data/CLS-LOC, train/WNID or train-*.parquet: "
        "give the folder that does with --source"
        + (f"; if {shards} is a WebDataset shard: repro prepare webdataset" if shards else "")
    )


def ilsvrc2010(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List ILSVRC-2010. Raises ReproError for what cannot be read; what is missing is among the problems."""
    year = YEARS[2010]
    path = _start(path, "ilsvrc2010", year)
    for inner in _with_inner_folders(path):
        if training := _find_training(inner, year, on_file):
            return _checked(_assemble(inner, year, training, on_file), year)
    raise ReproError(
        f"'{path}' holds neither {year.archives['train']} nor train/WNID: give the folder that does with --source"
    )


def _start(path: Path | None, dataset: str, year: Year) -> Path:
    """Return the folder to look in: that of `--source`, or above it where `--source` is one of the parts."""
    wanted = f"the folder of {year.archives['train']}, or of train/WNID"
    if path is None:
        raise ReproError(f"dataset '{dataset}' cannot be downloaded: give --source {wanted}")
    path = source_path(path, wanted)
    if path.is_file():
        known = {*year.archives.values(), year.kit, SOLUTION, SYNSETS}
        if year.year == 2012:
            known.update(file.name for file in _test_archives(path.parent))
        if path.name not in known and not path.name.endswith((".parquet", "_images.tar.gz")):
            with path.open("rb") as file:
                raise ReproError(f"'{path}' is {kind_of(file.read(HEAD))}; --source is {wanted}")
        return path.parent
    if split_of(path.name) and any(WNID.match(child.name) for child in path.iterdir()):
        return path.absolute().parent
    return path


def _with_inner_folders(path: Path) -> Iterator[Path]:
    """Yield a folder, and below it the folders that hold everything else."""
    for _ in range(4):
        yield path
        children = [child for child in path.iterdir() if not is_system(child.name, folder=child.is_dir())]
        if len(children) != 1 or not children[0].is_dir():
            return
        path = children[0]


def _checked(source: Source, year: Year) -> Source:
    """Return the source with every difference from the official numbers among its problems."""
    if len(source.classes) != year.classes:
        problem = f"{len(source.classes):,} classes of {year.classes:,} are there"
        source = replace(source, problems=(*source.problems, problem))
    private = {"test": PRIVATE_TEST_IMAGES["ilsvrc2012"]} if year.year == 2012 and "test" in source.splits else {}
    return check_counts(source, {**year.images, **private})


@dataclass(frozen=True)
class ClassTars:
    """Training images in one tar per class, by WordNet id."""

    location: Path
    tars: Mapping[str, Archive]
    skipped: Skipped


@dataclass(frozen=True)
class ClassFolders:
    """Training images in one folder per class of a tree, by its name."""

    tree: Tree
    images: Mapping[str, Sequence[str]]  # paths


Training = ClassTars | ClassFolders


def _find_training(path: Path, year: Year, on_file: OnFile) -> Training | None:
    """Find the training images: their archive, or a folder of class tars or class folders; else None."""
    for below in BELOW:
        archive = path / below / year.archives["train"]
        if archive.is_file():
            return _open_training_archive(archive, on_file)
    for below in BELOW:
        for folder in _split_folders(path / below, "train", year):
            if found := _open_training_folder(folder, on_file):
                return found
    if any(WNID.match(child.name) for child in path.iterdir()):  # the class folders or tars themselves
        return _open_training_folder(path, on_file)
    return None


def _open_training_archive(path: Path, on_file: OnFile) -> Training:
    archive = Archive.file(path, on_file)
    for member in archive.members():
        if is_system(member.name.rsplit("/", 1)[-1]):
            continue
        if not member.name.endswith(".tar"):
            tree = open_tree(path, "a tar", on_file)
            while len(tree.listing().folders) == 1 and not WNID.match(tree.listing().folders[0]):
                tree = tree.below(tree.listing().folders[0])
            return _class_folders(tree)
        break
    skipped = Skipped()
    return ClassTars(path, class_archives(archive, skipped), skipped)


def _open_training_folder(folder: Path, on_file: OnFile) -> Training | None:
    tree = folder_tree(folder, on_file)
    listing = tree.listing()
    tars = {name[:9]: Archive.file(folder / name, on_file) for name in listing.files if CLASS_TAR.fullmatch(name)}
    if tars:
        return ClassTars(folder, tars, tree.skipped)
    found = _class_folders(tree)
    return found if found.images else None


def _class_folders(tree: Tree) -> ClassFolders:
    """Return the images of each class folder at the top of a tree, or of each WordNet id that begins their names."""
    folders = tree.listing().folders
    if folders:
        return ClassFolders(tree, {id: tree.images(id) for id in folders})
    by_name: dict[str, list[str]] = {}
    for path in tree.images():
        if id := WNID.match(path.rsplit("/", 1)[-1]):
            by_name.setdefault(id[0], []).append(path)
    return ClassFolders(tree, by_name)


def _split_folders(folder: Path, split: str, year: Year) -> list[Path]:
    """Return the folders of a split in a folder: by the usual names, or by that of the split's archive."""
    archive = year.archives.get(split, UNLABELLED_ARCHIVE).removesuffix(".tar")
    try:
        children = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ReproError(f"cannot read the folder '{folder}': {error.strerror}") from error
    return [child for child in children if child.is_dir() and (split_of(child.name) == split or child.match(archive))]


def class_archives(archive: Archive, skipped: Skipped) -> dict[str, Archive]:
    """Return the class tars within a tar of tars, by WordNet id. Raises ReproError for anything else in it."""
    found: dict[str, Archive] = {}
    for member in archive.members():
        name = member.name.rsplit("/", 1)[-1]
        if is_system(name):
            skipped.system.setdefault(str(archive.path), []).append(name)
            continue
        id, _, ending = name.partition(".")
        if ending != "tar" or not WNID.fullmatch(id) or id in found:
            what = f"a second tar of class {id}" if id in found else "not the tar of a class, such as n01440764.tar"
            raise ReproError(f"'{archive.path}', byte {member.offset:,}: '{member.name[:100]}' is {what}")
        found[id] = archive.within(member)
    return found


def _assemble(path: Path, year: Year, training: Training, on_file: OnFile) -> Source:
    """Put the parts of the dataset together."""
    kit_path = _find_kit(path, year)
    if kit_path is None and year.year == 2010 and isinstance(training, ClassFolders):
        kit_path = path / year.kit  # the order of the labels is in it alone: an error
    kit = read_kit(kit_path, year) if kit_path else None
    parts = _Parts(path, year, kit, kit_path or path / year.kit, _classes(path, year, training, kit), on_file)
    splits = {"train": parts.training(training)}
    for split in year.archives:
        if split != "train" and (images := parts.numbered(split)):
            splits[split] = images
    unlabelled = parts.unlabelled() if year.year == 2012 else ()
    numbers = parts.class_numbers() if unlabelled else ()
    notes = parts.skipped.notes()
    if unlabelled:
        splits["test"] = unlabelled
        kit_missing = "" if numbers else f", if the development kit {year.kit} is added before"
        notes += (f"test has no labels: repro evaluate --split test writes a submission{kit_missing}",)
    return Source(
        tuple(parts.classes), splits, tuple(parts.problems), notes, md5=parts.checksums(), class_numbers=numbers
    )


def _classes(path: Path, year: Year, training: Training, kit: Kit | None) -> list[ClassInfo]:
    """Return the classes in label order: those of the development kit, or those with training images."""
    ids = training.tars if isinstance(training, ClassTars) else [id for id, paths in training.images.items() if paths]
    if kit is None:
        mapping = _find_above(path, SYNSETS)
        names = read_class_names(mapping, " ") if mapping else {}
        return [ClassInfo(id, names.get(id, WNID_NAMES.get(id, id))) for id in sorted(ids)]
    known = {info.id for info in kit.classes.values()}
    for id in sorted(set(ids) - known):
        if isinstance(training, ClassTars):
            raise ReproError(f"'{training.location}' has class {id}, the development kit has not: fetch them again")
        raise ReproError(f"class '{id}' is not in the development kit: remove its folder")
    classes = list(kit.classes.values())
    return sorted(classes, key=lambda info: info.id) if year.year == 2012 else classes


@dataclass
class _Parts:
    """Lists the parts of a dataset; collects what is missing."""

    path: Path
    year: Year
    kit: Kit | None
    kit_path: Path
    classes: list[ClassInfo]
    on_file: OnFile
    problems: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def __post_init__(self) -> None:
        self.labels = {info.id: label for label, info in enumerate(self.classes)}
        patches = self._file(PATCHES) if self.year.year == 2010 else None
        self._patches = _Patches(patches)
        for name, size in self.year.bytes.items():
            file = self._file(name)
            if file and file.stat().st_size != size:
                self.problems.append(f"'{file}' has {file.stat().st_size:,} bytes, the official file {size:,}")
        if self.kit is None and self._file(self.year.archives["train"]):
            self.problems.append(f"'{self.kit_path}' is missing, and with it the names of the classes")

    def checksums(self) -> dict[Path, str]:
        """Return the published checksums of the official files that are there."""
        return {file: digest for name, digest in self.year.md5.items() if (file := self._file(name))}

    def training(self, training: Training) -> Sequence[ImageReference]:
        """List the training images in label order."""
        if isinstance(training, ClassFolders):
            self.skipped.merge(training.tree.skipped)
            found = [
                (self.labels[id], f"train/{id}/{path.removeprefix(f'{id}/')}", training.tree, path)
                for id, paths in training.images.items()
                for path in paths
            ]
            self._report_empty({label for label, *_ in found})
            return self._sorted(found)
        self.skipped.merge(training.skipped)
        blocks: list[Block] = []
        for label, info in enumerate(self.classes):
            if tar := training.tars.get(info.id):
                blocks += self._patches.blocks(tar, label, f"train/{info.id}", tar.images(self.skipped))
        self._report_empty({block.label for block in blocks if len(block)})
        return in_reading_order(blocks)

    def numbered(self, split: str) -> Sequence[ImageReference]:
        """List the images of val or test, in the folders of their classes or with labels by their numbers."""
        tree = self._tree(split)
        if tree is None:
            self.problems.append(f"'{self.path / self.year.archives[split]}' is missing, with the images of {split}")
            return []
        root = ""
        while len(tree.listing(root).folders) == 1 and not WNID.match(tree.listing(root).folders[0]):
            root = join(root, tree.listing(root).folders[0])
        truth = None
        found = []
        unknown: dict[str, list[str]] = {}
        images = tree.images(root)
        self.skipped.merge(tree.skipped)
        for path in images:
            id, _, rest = path.removeprefix(f"{root}/" if root else "").partition("/")
            name = path.rpartition("/")[2]
            if rest and WNID.fullmatch(id):
                pass
            elif self.kit is None and (suffix := re.search(r"_(n\d{8})\.\w+$", name)):
                id, rest = suffix[1], name
            else:
                truth = truth or self._truth(split)
                if truth is None:
                    return []
                id, rest = truth.class_of(tree, path), name
            if id in self.labels:
                found.append((self.labels[id], f"{split}/{id}/{rest}", tree, path))
            else:
                unknown.setdefault(id, []).append(path)
        if unknown:
            count = plural(sum(map(len, unknown.values())), "image", "images")
            self.problems.append(f"{count} of {split} in classes that train lacks: {first_few(sorted(unknown), 3)}")
        return self._sorted(found)

    def unlabelled(self) -> Sequence[ImageReference]:
        """List the test images of 2012 by file name; empty if there are none. Raises ReproError for two archives."""
        archives = [file for below in BELOW for file in _test_archives(self.path / below)]
        if len(archives) > 1:
            raise ReproError(f"'{archives[0]}' and '{archives[1]}' both hold the test images: remove or rename one")
        if archives:
            return self._unlabelled_of(open_tree(archives[0], "a tar", self.on_file), required=True)
        for below in BELOW:
            for folder in _split_folders(self.path / below, "test", self.year):
                if images := self._unlabelled_of(folder_tree(folder, self.on_file), required=False):
                    return images
        return []

    def _unlabelled_of(self, tree: Tree, required: bool) -> Sequence[ImageReference]:
        found, others = [], []
        for path in tree.images():
            name = path.rpartition("/")[2]
            if UNLABELLED_IMAGE.fullmatch(name):
                found.append((UNLABELLED, f"test/{name}", tree, path))
            else:
                others.append(path)
        if found or required:
            self.skipped.merge(tree.skipped)
        if found and others:
            count = plural(len(others), "image", "images")
            self.problems.append(f"{count} of test without a number of the challenge: {first_few(others, 3)}")
        elif required and not found:
            self.problems.append(f"'{tree.location}' has no images such as ILSVRC2012_test_00000001.JPEG")
        return self._sorted(found)

    def class_numbers(self) -> tuple[int, ...]:
        """Return the number of each class in the development kit, in the order of the labels; empty without a kit."""
        if self.kit is None:
            return ()
        numbers = {info.id: number for number, info in self.kit.classes.items()}
        return tuple(numbers[info.id] for info in self.classes)

    def _sorted(self, found: list[tuple[int, str, Tree, str]]) -> Sequence[ImageReference]:
        """Return references by label and name, those of replaced images after the others of their class."""
        images = sorted(
            ((label, self._patches.replaces(name), name, tree, path) for label, name, tree, path in found),
            key=lambda image: image[:3],
        )
        for one, other in pairwise(images):
            if one[2] == other[2]:
                raise ReproError(f"'{one[3].at(one[4])}' and '{other[3].at(other[4])}' have one name: remove one")
        references = [
            self._patches.reference(label, name) if replaced else tree.reference(path, label, name)
            for label, replaced, name, tree, path in images
        ]
        return found[0][2].in_reading_order(references) if found else references

    def _report_empty(self, labels: set[int]) -> None:
        empty = [info.id for label, info in enumerate(self.classes) if label not in labels]
        if len(empty) == 1:
            self.problems.append(f"class {empty[0]} has no training images")
        elif empty:
            self.problems.append(f"{len(empty):,} classes have no training images, the first is {empty[0]}")

    def _tree(self, split: str) -> Tree | None:
        if archive := self._file(self.year.archives[split]):
            return open_tree(archive, "a tar", self.on_file)
        for below in BELOW:
            for folder in _split_folders(self.path / below, split, self.year):
                return folder_tree(folder, self.on_file)
        return None

    def _truth(self, split: str) -> _Truth | None:
        """Find the labels of numbered images; what is missing is a problem."""
        if split == "test":
            file = self._file(TEST_TRUTH) or self.path / TEST_TRUTH
            if self.kit is None:
                return None
            try:
                return _Truth(file, self.kit, _read_truth(file.read_bytes(), file, len(self.kit.classes)))
            except OSError as error:
                self.problems.append(f"cannot read '{file}', the classes of the test images ({error.strerror})")
                return None
        if (solution := _find_above(self.path, SOLUTION)) and self.year.year == 2012:
            return _Truth(solution, self.kit, [], _read_solution(solution))
        if self.kit is not None:
            return _Truth(self.kit_path, self.kit, self.kit.validation)
        other = f", and so is {SOLUTION}" if self.year.year == 2012 else ""
        self.problems.append(f"there are no labels for {split}: '{self.kit_path}' is missing{other}")
        return None

    def _file(self, name: str) -> Path | None:
        return next((file for below in BELOW if (file := self.path / below / name).is_file()), None)


@dataclass(frozen=True)
class _Truth:
    """The classes of numbered images: by Kaggle's solution, or by the line of the ground truth of an image's number."""

    location: Path
    kit: Kit | None
    numbers: list[int]
    solution: Mapping[str, str] = field(default_factory=dict)

    def class_of(self, tree: Tree, path: str) -> str:
        """Return the WordNet id of an image. Raises ReproError."""
        name = path.rpartition("/")[2]
        stem = name.rpartition(".")[0]
        if self.solution:
            if stem not in self.solution:
                raise ReproError(f"'{self.location}' has no line for '{name}': fetch it again")
            return self.solution[stem]
        found = re.search(r"_(\d{8})$", stem)
        if not found or not int(found[1]):
            raise ReproError(f"'{tree.at(path)}' has no number of an image, such as ILSVRC2012_val_00000001.JPEG")
        if int(found[1]) > len(self.numbers):
            raise ReproError(
                f"the ground truth in '{self.location}' ends at line {len(self.numbers):,}, before '{path}': fetch "
                "them again"
            )
        assert self.kit is not None
        return self.kit.classes[self.numbers[int(found[1]) - 1]].id


class _Patches:
    """2010's `patch_images.tar`: official replacements of a few damaged images of any split, by file name."""

    def __init__(self, path: Path | None) -> None:
        self._archive = Archive.file(path) if path else None
        members = self._archive.images(Skipped()) if self._archive else iter(())
        self._members = {member.name.rsplit("/", 1)[-1]: member for member in members}

    def replaces(self, name: str) -> bool:
        """Return whether an image of this name is replaced."""
        return name.rsplit("/", 1)[-1] in self._members

    def reference(self, label: int, name: str) -> ImageReference:
        """Return a reference to the replacement of an image."""
        assert self._archive is not None
        folder, _, last = name.rpartition("/")
        (reference,) = Block.of(self._archive, label, folder, [self._members[last]]).references(0, 1)
        return reference

    def blocks(self, archive: Archive, label: int, folder: str, members: Iterable[Member]) -> list[Block]:
        """Return a block of the members of an archive, and one of those that are replaced."""
        kept: list[Member] = []
        patches: list[Member] = []
        for member in members:
            patch = self._members.get(member.name.rsplit("/", 1)[-1])
            (kept if patch is None else patches).append(patch or member)
        blocks = [Block.of(archive, label, folder, kept)]
        if self._archive and patches:
            blocks.append(Block.of(self._archive, label, folder, patches))
        return blocks


def _test_archives(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob(UNLABELLED_ARCHIVE)) if file.is_file()]


def _find_above(path: Path, name: str) -> Path | None:
    """Return a file in a folder, or some levels above it, as Kaggle's lists are."""
    folders = [path, *list(path.absolute().parents)[:LEVELS_ABOVE]]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _read_solution(path: Path) -> dict[str, str]:
    """Return the WordNet id of each validation image by Kaggle's LOC_val_solution.csv."""
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
        found = {row[0]: row[1].split()[0] for row in rows if row[0] != "ImageId"}
    except (OSError, ValueError, IndexError) as error:
        raise ReproError(f"cannot read '{path}' ({error}): fetch it again") from error
    if not found:
        raise ReproError(f"'{path}' has no rows: fetch it again")
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; none if it does not exist. Raises ReproError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ReproError(f"cannot read '{path}' ({error}): fix or remove it") from error


def read_class_names(path: Path, separator: str) -> dict[str, str]:
    """Return the first name of each class by WordNet id, from a list of ids with their names after `separator`."""
    return {id: words.split(",")[0] for id, _, words in (line.partition(separator) for line in read_lines(path))}


def _find_kit(path: Path, year: Year) -> Path | None:
    """Return the development kit as downloaded, gunzipped or unpacked; None if there is none."""
    stem = year.kit.removesuffix(".tar.gz")
    names = (year.kit, f"{stem}.tgz", f"{stem}.tar", stem)
    here = (stem.removeprefix("ILSVRC2010_"), "devkit", "")  # names that say no year: not looked for above
    candidates = [path / below / name for below in BELOW for name in (*names, *here)]
    candidates += [folder / name for folder in list(path.absolute().parents)[:LEVELS_ABOVE] for name in names]
    return next((kit for kit in candidates if kit.is_file() or _kit_folder(kit)), None)


def _kit_folder(path: Path) -> Path | None:
    """Return the folder of meta.mat in an unpacked development kit."""
    if not path.is_dir():
        return None
    return next((path / below for below in ("data", f"{path.name}/data", "") if (path / below / META).is_file()), None)


def read_kit(path: Path, year: Year) -> Kit:
    """Read a development kit from its archive or its folder. Raises ReproError."""
    wanted = {META: b"", f"ILSVRC{year.year}_validation_ground_truth.txt": b""}
    try:
        if folder := _kit_folder(path):
            wanted = {name: (folder / name).read_bytes() if (folder / name).exists() else b"" for name in wanted}
        else:
            _read_packed_kit(path, wanted)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ReproError(f"cannot read the development kit '{path}' ({reason}): fetch it again") from error
    for name, content in wanted.items():
        if not content:
            raise ReproError(f"the development kit '{path}' has no data/{name}: fetch it again")
    meta, truth = wanted.values()
    classes = _read_meta(meta, path, year)
    return Kit(classes, _read_truth(truth, path, len(classes)))


def _read_packed_kit(path: Path, wanted: dict[str, bytes]) -> None:
    """Read the `wanted` files of a kit from its archive, compressed or not."""
    inflated = 0
    with open_binary(path) as packed, tarfile.open(fileobj=packed, mode="r|*") as archive:
        for member in archive:
            inflated += member.size
            if inflated > KIT_BYTES:
                raise ReproError(f"'{path}' decompresses to more than a development kit holds: fetch it again")
            name = member.name.rsplit("/", 1)[-1]
            if name in wanted and member.isreg() and member.name.split("/")[-2:-1] == ["data"]:
                file = archive.extractfile(member)
                wanted[name] = file.read() if file else b""


def _read_meta(content: bytes, path: Path, year: Year) -> dict[int, ClassInfo]:
    """Return the classes by number: the synsets without children."""
    from scipy.io import loadmat  # here, because it takes a while to import

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])  # type: ignore[arg-type]
        classes = {
            int(synset[f"ILSVRC{year.year}_ID"]): ClassInfo(str(synset["WNID"]), str(synset["words"]).split(",")[0])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
        if sorted(classes) != list(range(1, len(classes) + 1)):
            raise ValueError("its classes are not numbered from 1 without gaps")
        _check_ids([info.id for info in classes.values()])
    except Exception as error:  # a damaged file makes the reader raise almost any type
        reason = " ".join(str(error).split())
        raise ReproError(f"cannot read meta.mat in '{path}' ({reason}): fetch the development kit again") from error
    return dict(sorted(classes.items()))


def _read_truth(content: bytes, where: Path, classes: int) -> list[int]:
    try:
        numbers = [int(line) for line in content.split()]
    except ValueError as error:
        raise ReproError(
            f"the ground truth in '{where}' has a line that is not a number ({error}): fetch it again"
        ) from error
    if numbers and not 1 <= min(numbers) <= max(numbers) <= classes:
        raise ReproError(f"the ground truth in '{where}' names class {max(numbers)} of {classes}: fetch it again")
    return numbers


def _check_ids(ids: Sequence[str]) -> None:
    for one, other in pairwise(sorted(ids)):
        if one == other:
            raise ValueError(f"two classes with the id '{one}'")
    for id in ids:
        if not WNID.fullmatch(id):
            raise ValueError(f"'{id}' is not a WordNet id")
