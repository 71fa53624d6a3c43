"""ILSVRC-2012 and ILSVRC-2010, 1000 classes each, from whatever their users have (Sec. 2).

`--source` is a folder with one of:

- the official archives: the training images (a tar of 1000 class tars), the validation images, 2010's test images,
  and the development kit, which holds the classes and the validation ground truth;
- Kaggle's layout (2012): `ILSVRC/Data/CLS-LOC/` and `LOC_val_solution.csv`;
- folders of classes, `train/WNID/*.JPEG` and `val/WNID/*.JPEG`;
- the parquet shards in which the Hugging Face hub serves `imagenet-1k` (2012).

The labels of 2012 are the places of the WordNet ids in alphabetical order, as everywhere in Python; those of 2010 are
the ids of its own development kit less one, which is another order. Within a split, images are in the order of label
and file name whatever the layout, so that archives and folders make the same store.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.preparation.sources.folder import list_images
from repro.preparation.sources.parquet import parquet_images
from repro.preparation.sources.source import OnFile, Source, check_counts, file_identity, ignore_file
from repro.preparation.sources.tar import Archive, Block, Blocks, Member

WNID = re.compile(r"n\d{8}")
KIT_BYTES = 100_000_000  # more than any development kit holds: the limit to what is inflated


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
        # MD5: the download page of image-net.org, as many quote it, and torchvision.datasets.imagenet.ARCHIVE_META.
        # Sizes: what the site's server announces, and listings of downloads, as in jkjung-avt's keras_imagenet.
        bytes={"ILSVRC2012_img_train.tar": 147_897_477_120, "ILSVRC2012_img_val.tar": 6_744_924_160},
        md5={
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
    ),
}
TEST_TRUTH = "ILSVRC2010_test_ground_truth.txt"
PATCHES = "patch_images.tar"  # 2010: official replacements of a few damaged images


@dataclass(frozen=True)
class Kit:
    """What a development kit says: classes by their number in it (from 1), and the classes of the validation images."""

    classes: dict[int, ClassInfo]
    validation: list[int]


def ilsvrc2012(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List ILSVRC-2012. Raises ReproError for what cannot be read; what is missing is among the problems."""
    path, year = _folder(path, "ilsvrc2012"), YEARS[2012]
    if (path / year.archives["train"]).exists():
        return _checked(_from_archives(path, year, on_file), year)
    for kaggle in (path / "ILSVRC" / "Data" / "CLS-LOC", path / "Data" / "CLS-LOC"):
        if (kaggle / "train").is_dir():
            return _checked(_from_kaggle(path, kaggle, on_file), year)
    if (path / "train").is_dir():
        source = list_images(path, ("train", "val"), on_file)  # the images of test/ have no public labels
        return _checked(replace(source, classes=_with_names(source.classes, _known_names(path, year))), year)
    if hub := parquet_images(path, on_file):
        return _checked(hub, year)
    raise ReproError(
        f"'{path}' holds neither {year.archives['train']} nor ILSVRC/Data/CLS-LOC, train/WNID or train-*.parquet: "
        "name the folder that does with --source"
    )


def ilsvrc2010(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List ILSVRC-2010. Raises ReproError for what cannot be read; what is missing is among the problems."""
    path, year = _folder(path, "ilsvrc2010"), YEARS[2010]
    if (path / year.archives["train"]).exists():
        return _checked(_from_archives(path, year, on_file), year)
    if (path / "train").is_dir():
        source = list_images(path, on_file=on_file)
        return _checked(_in_the_kits_order(source, read_kit(path / year.kit, year)), year)
    raise ReproError(
        f"'{path}' holds neither {year.archives['train']} nor train/WNID: name the folder that does with --source"
    )


def _folder(path: Path | None, dataset: str) -> Path:
    if path is None:
        raise ReproError(f"dataset '{dataset}' cannot be downloaded: name the folder of its files with --source PATH")
    if not path.is_dir():
        raise ReproError(f"no such folder: '{path}'")
    return path


def _checked(source: Source, year: Year) -> Source:
    """The source with whatever differs from the official numbers among its problems."""
    if len(source.classes) != year.classes:
        problem = f"{len(source.classes):,} classes of {year.classes:,} are there"
        source = replace(source, problems=(*source.problems, problem))
    return check_counts(source, year.images)


def read_kit(path: Path, year: Year) -> Kit:
    """Read a development kit from its archive. Raises ReproError."""
    wanted = {"meta.mat": b"", f"ILSVRC{year.year}_validation_ground_truth.txt": b""}
    inflated = 0
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                inflated += member.size
                if inflated > KIT_BYTES:
                    raise ReproError(f"'{path}' inflates to more than a development kit holds: fetch it again")
                name = member.name.rsplit("/", 1)[-1]
                if name in wanted and member.isreg() and member.name.split("/")[-2:-1] == ["data"]:
                    file = archive.extractfile(member)
                    wanted[name] = file.read() if file else b""
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ReproError(f"cannot read the development kit '{path}' ({reason}): fetch it again") from error
    for name, content in wanted.items():
        if not content:
            raise ReproError(f"the development kit '{path}' has no data/{name}: fetch it again")
    meta, truth = wanted.values()
    classes = _read_meta(meta, path, year)
    return Kit(classes, _read_truth(truth, path, len(classes)))


def _read_meta(content: bytes, path: Path, year: Year) -> dict[int, ClassInfo]:
    """The classes to be told apart: those without classes below them."""
    from scipy.io import loadmat  # here, because it takes a while to import

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])  # type: ignore[arg-type]
        classes = {
            int(synset[f"ILSVRC{year.year}_ID"]): ClassInfo(str(synset["WNID"]), str(synset["words"]).split(",")[0])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
        if sorted(classes) != list(range(1, len(classes) + 1)):
            raise ValueError("its classes are not numbered from 1 without a gap")
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
            f"the ground truth in '{where}' has a line that is no number ({error}): fetch it again"
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
            raise ValueError(f"'{id}' is no WordNet id")


def _from_archives(path: Path, year: Year, on_file: OnFile) -> Source:
    train = Archive.file(path / year.archives["train"], on_file)
    problems = [
        f"'{path / name}' has {(path / name).stat().st_size:,} bytes, the official file {size:,}"
        for name, size in year.bytes.items()
        if (path / name).exists() and (path / name).stat().st_size != size
    ]
    tars = class_archives(train)
    kit = None
    if (path / year.kit).exists():
        kit = read_kit(path / year.kit, year)
        classes = list(kit.classes.values())
        for id in sorted(tars.keys() - {info.id for info in classes}):
            raise ReproError(f"'{train.path}' has class {id}, '{path / year.kit}' has not: fetch them again")
    else:
        problems.append(f"'{path / year.kit}' is missing, and with it the names of classes and all images but train")
        classes = [ClassInfo(id, id) for id in tars]
    if year.year == 2012:
        classes.sort(key=lambda info: info.id)
    labels = {info.id: label for label, info in enumerate(classes)}

    patches = _Patches(path / PATCHES) if year.year == 2010 else _Patches(None)
    blocks = []
    for label, info in enumerate(classes):
        found = (
            patches.blocks(tars[info.id], label, f"train/{info.id}", tars[info.id].members()) if info.id in tars else []
        )
        if not any(map(len, found)):
            problems.append(f"class {info.id} has no training images")
        blocks += found
    splits = {"train": Blocks(blocks)}
    for split, name in year.archives.items():
        if split == "train" or kit is None:
            continue
        if not (path / name).exists():
            problems.append(f"'{path / name}' is missing, with the images of {split}")
            continue
        truth, where = kit.validation, path / year.kit
        if split == "test":
            where = path / TEST_TRUTH
            try:
                truth = _read_truth(where.read_bytes(), where, len(kit.classes))
            except OSError as error:
                problems.append(f"cannot read '{where}', the classes of the test images ({error.strerror})")
                continue
        archive = Archive.file(path / name, on_file)
        by_class: dict[int, list[Member]] = {}
        for number, member in _numbered(archive, truth, where):
            by_class.setdefault(labels[kit.classes[number].id], []).append(member)
        splits[split] = Blocks(
            block
            for label, members in sorted(by_class.items())
            for block in patches.blocks(archive, label, f"{split}/{classes[label].id}", members)
        )
    md5 = {path / name: digest for name, digest in year.md5.items() if (path / name).exists()}
    return Source(tuple(classes), splits, tuple(problems), md5=md5)


def class_archives(archive: Archive) -> dict[str, Archive]:
    """The class tars within a tar of tars, by WordNet id. Raises ReproError for anything else in it."""
    found: dict[str, Archive] = {}
    for member in archive.members():
        id, _, ending = member.name.rsplit("/", 1)[-1].partition(".")
        if ending != "tar" or not WNID.fullmatch(id) or id in found:
            what = f"a second tar of class {id}" if id in found else "not the tar of a class, such as n01440764.tar"
            raise ReproError(f"'{archive.path}', byte {member.offset:,}: '{member.name[:100]}' is {what}")
        found[id] = archive.within(member)
    return found


def _numbered(archive: Archive, truth: Sequence[int], where: Path) -> Iterator[tuple[int, Member]]:
    """Each image with the number of its class: the line of the ground truth that the image's own number names."""
    for member in archive.members():
        found = re.search(r"_(\d{8})\.JPEG$", member.name)
        if not found or not int(found[1]):
            raise ReproError(
                f"'{archive.path}', byte {member.offset:,}: '{member.name[:100]}' has no number of an image"
            )
        if int(found[1]) > len(truth):
            raise ReproError(
                f"the ground truth in '{where}' ends at line {len(truth):,}, before '{member.name}': fetch them again"
            )
        yield truth[int(found[1]) - 1], member


class _Patches:
    """2010's `patch_images.tar`: official replacements for a few damaged images, taken wherever they are."""

    def __init__(self, path: Path | None) -> None:
        self._archive = Archive.file(path) if path and path.exists() else None
        members = self._archive.members() if self._archive else iter(())
        self._members = {member.name.rsplit("/", 1)[-1]: member for member in members}

    def blocks(self, archive: Archive, label: int, folder: str, members: Iterable[Member]) -> list[Block]:
        """The block of the members, and one of those that are replaced."""
        kept: list[Member] = []
        patches: list[Member] = []
        for member in members:
            patch = self._members.get(member.name.rsplit("/", 1)[-1])
            (kept if patch is None else patches).append(patch or member)
        blocks = [Block.of(archive, label, folder, kept)]
        if self._archive and patches:
            blocks.append(Block.of(self._archive, label, folder, patches))
        return blocks


def _from_kaggle(path: Path, images: Path, on_file: OnFile) -> Source:
    source = list_images(images, ("train",), on_file)
    labels = {info.id: label for label, info in enumerate(source.classes)}
    solution = path / "LOC_val_solution.csv"
    try:
        rows = list(csv.reader(solution.read_text(encoding="utf-8").splitlines()))
        truth = {image: boxes.split()[0] for image, boxes in rows if image != "ImageId"}
        names = sorted(entry.name for entry in os.scandir(images / "val") if entry.name.endswith(".JPEG"))
    except (OSError, ValueError, IndexError) as error:
        problem = f"cannot read '{solution}' and '{images / 'val'}', so there is no val ({error})"
        return replace(source, problems=(problem,))
    val = []
    for name in names:
        id = truth.get(name.removesuffix(".JPEG"), "")
        if id not in labels:
            said = f"gives '{name}' the class '{id}', which is not in train" if id else f"has no line for '{name}'"
            raise ReproError(f"'{solution}' {said}: fetch it again")
        val.append(RenamedReference(str(images / "val" / name), f"val/{id}/{name}", labels[id]))
    val.sort(key=lambda reference: (reference.label, reference.name))
    classes = _with_names(source.classes, _known_names(path, YEARS[2012]))
    return replace(source, classes=classes, splits={**source.splits, "val": val})


@dataclass(frozen=True, slots=True)
class RenamedReference:
    """An image file whose path does not say its class."""

    file: str
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the file."""
        return file_identity(self.file)

    def read(self) -> bytes:
        """The encoded image."""
        return Path(self.file).read_bytes()


def _known_names(path: Path, year: Year) -> dict[str, str]:
    """Names of classes by WordNet id, from Kaggle's list or the development kit, if there is one."""
    try:
        lines = (path / "LOC_synset_mapping.txt").read_text(encoding="utf-8").splitlines()
        return {id: words.split(",")[0] for id, _, words in (line.partition(" ") for line in lines)}
    except (OSError, UnicodeDecodeError):
        kit = read_kit(path / year.kit, year) if (path / year.kit).exists() else Kit({}, [])
        return {info.id: info.name for info in kit.classes.values()}


def _with_names(classes: Iterable[ClassInfo], names: Mapping[str, str]) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(info.id, names.get(info.id, info.name)) for info in classes)


def _in_the_kits_order(source: Source, kit: Kit) -> Source:
    labels = {info.id: number - 1 for number, info in kit.classes.items()}
    for info in source.classes:
        if info.id not in labels:
            raise ReproError(f"class '{info.id}' is not in the development kit: remove its folder")
    splits = {
        split: sorted(
            (replace(reference, label=labels[source.classes[reference.label].id]) for reference in references),  # type: ignore[type-var]
            key=lambda reference: reference.label,
        )
        for split, references in source.splits.items()
    }
    return replace(source, classes=tuple(kit.classes.values()), splits=splits)
