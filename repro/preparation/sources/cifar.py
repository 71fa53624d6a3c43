"""CIFAR-10: 50,000 training and 10,000 test images of 32×32 in ten classes; CIFAR-100 likewise, in a hundred.

`--source` is a folder or an archive, such as `cifar-10-python.tar.gz` as downloaded, with one of:

- the batches of the Python version (pickles) or of the binary version;
- Kaggle's `train/*.png` and `trainLabels.csv`;
- folders of classes, `train/CLASS/*.png` and `test/CLASS/*.png`.

No validation images are held out: the paper's claims on CIFAR-10 are the training error on all 50,000 (Fig. 1)
and the test error (Sec. 3.3).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.preparation.formats import first_few
from repro.preparation.sources.folder import list_images
from repro.preparation.sources.location import download, open_tree
from repro.preparation.sources.source import ImageReference, OnFile, Source, check_counts, ignore_file
from repro.preparation.sources.tree import Tree, join

IMAGES = DATASET_SIZES["cifar10"].images  # and of CIFAR-100


@dataclass(frozen=True)
class Cifar:
    """The files of one of the two datasets."""

    name: str
    archive: str
    batches: Mapping[str, Sequence[str]]  # names of the batches of each split
    meta: str  # the file with the names of the classes, in the Python version
    binary_meta: str  # and in the binary version
    names_key: str  # of the list of names in `meta`
    labels_key: str  # of the labels in a batch
    label_bytes: int  # at the beginning of each row of the binary version; the last one is the label
    classes: int


CIFAR10 = Cifar(
    "cifar10", "cifar-10-python.tar.gz",
    {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    "batches.meta", "batches.meta.txt", "label_names", "labels", 1, 10,
)  # fmt: skip
CIFAR100 = Cifar(
    "cifar100", "cifar-100-python.tar.gz", {"train": ["train"], "test": ["test"]},
    "meta", "fine_label_names.txt", "fine_label_names", "fine_labels", 2, 100,
)  # fmt: skip


class Batch(NamedTuple):
    """Images of one file: planes uint8 [n, 3072] (red, green, blue), n labels, and n names if the file has them."""

    planes: NDArray[np.uint8]
    labels: list[int]
    names: list[str]


@dataclass(frozen=True, slots=True)
class BatchFile:
    """One batch, in a folder or an archive."""

    file: ImageReference
    location: str
    labels_key: str
    label_bytes: int  # 0 for the Python version


@dataclass(frozen=True, slots=True)
class CifarReference:
    """One row of a batch."""

    batch: BatchFile
    row: int
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the batch, and the row."""
        return f"{self.batch.file.identity()} {self.row}"

    def read(self) -> NDArray[np.uint8]:
        """Return RGB pixels, uint8 [32, 32, 3]."""
        planes = _read_batch(self.batch).planes[self.row].reshape(3, 32, 32)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


def cifar10(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List CIFAR-10. Without a path it is downloaded through torchvision into the user's cache, once.

    Raises ReproError; other numbers of images than published are among the problems.
    """
    return _list(CIFAR10, path, on_file)


def cifar100(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List CIFAR-100 with its hundred fine labels, as `cifar10` does."""
    return _list(CIFAR100, path, on_file)


def _list(cifar: Cifar, path: Path | None, on_file: OnFile) -> Source:
    wanted = f"{cifar.archive}, the folder with its batches, or train/CLASS/*.png and test/CLASS/*.png"
    path = download(cifar.name.upper(), cifar.archive) if path is None else path
    if path.name in {cifar.meta, cifar.binary_meta} | _batch_files(cifar):
        path = path.parent
    archives = (cifar.archive, cifar.archive.replace("python", "binary"))
    tree = open_tree(
        path, wanted, on_file, lambda tree: tree.has_images() or _batches(tree, cifar) is not None, archives
    )
    found = _batches(tree, cifar)
    if found is not None:
        source = _from_batches(tree, *found, cifar)
    elif tree.has_images():
        source = list_images(tree)
    else:
        listing = tree.listing()
        held = first_few([*listing.folders, *listing.files], 5) or "nothing"
        raise ReproError(f"'{tree.location}' is not {_title(cifar)} but holds {held}: give --source {wanted}")
    if len(source.classes) != cifar.classes:
        problem = f"{len(source.classes)} classes of {cifar.classes} are there"
        source = replace(source, problems=(*source.problems, problem))
    return check_counts(replace(source, notes=(*source.notes, *tree.skipped.notes())), IMAGES)


def _batch_files(cifar: Cifar) -> set[str]:
    return {name + suffix for names in cifar.batches.values() for name in names for suffix in ("", ".bin")}


def _title(cifar: Cifar) -> str:
    return cifar.name.upper().replace("R", "R-", 1)


def _batches(tree: Tree, cifar: Cifar) -> tuple[str, bool] | None:
    """Return the folder of the batches, at most two levels down, and whether they are binary, or None."""
    first = next(iter(cifar.batches.values()))[0]
    folders = [""]
    for _ in range(3):
        for folder in folders:
            files = tree.listing(folder).files
            for marks, binary in (((cifar.meta, first), False), ((cifar.binary_meta, f"{first}.bin"), True)):
                if any(mark in files for mark in marks):
                    return folder, binary
        folders = [join(folder, name) for folder in folders for name in tree.listing(folder).folders][:1000]
    return None


def _from_batches(tree: Tree, folder: str, binary: bool, cifar: Cifar) -> Source:
    suffix = ".bin" if binary else ""
    meta = join(folder, cifar.binary_meta if binary else cifar.meta)
    names = _binary_names(tree, meta) if binary else _class_names(tree, meta, cifar.names_key)
    splits: dict[str, list[ImageReference]] = {split: [] for split in cifar.batches}
    for split, files in cifar.batches.items():
        for name in files:
            path = join(folder, name + suffix)
            if not tree.exists(path):
                raise ReproError(f"'{tree.at(path)}' is missing: fetch {cifar.archive} again")
            location = tree.at(path)
            file = BatchFile(tree.reference(path, 0), location, cifar.labels_key, cifar.label_bytes if binary else 0)
            batch = _read_batch(file)
            if max(batch.labels) >= len(names):
                raise ReproError(f"'{location}' has label {max(batch.labels)} of {len(names)} classes")
            splits[split] += [
                CifarReference(file, row, f"{name}/{row:05}{'-' if image else ''}{image}", label)
                for row, (label, image) in enumerate(
                    zip(batch.labels, batch.names or [""] * len(batch.labels), strict=True)
                )
            ]
    return Source(tuple(ClassInfo(name, name) for name in names), {**splits})


def _class_names(tree: Tree, path: str, key: str) -> list[str]:
    names = _unpickle(tree.read(path), tree.at(path)).get(key)
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, bytes) for name in names):
        raise ReproError(f"'{tree.at(path)}' does not list the classes: it has no {key}")
    return [name.decode(errors="replace") for name in names]


def _binary_names(tree: Tree, path: str) -> list[str]:
    names = tree.read(path).decode(errors="replace").split()
    if len(names) < 2:
        raise ReproError(f"'{tree.at(path)}' does not list the classes, one per line: fetch it again")
    return names


@lru_cache(maxsize=2)
def _read_batch(file: BatchFile) -> Batch:
    try:
        content = file.file.read()
    except OSError as error:
        raise ReproError(f"cannot read '{file.location}' ({error.strerror or error}): fetch it again") from error
    if not isinstance(content, bytes):
        raise TypeError("a batch is a file")
    if file.label_bytes:
        return _read_binary(content, file)
    return _read_pickle(content, file)


def _read_binary(content: bytes, file: BatchFile) -> Batch:
    width = file.label_bytes + 3072
    if not content or len(content) % width:
        raise ReproError(f"'{file.location}' has {len(content):,} bytes, not a multiple of {width:,}: fetch it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    return Batch(rows[:, file.label_bytes :], rows[:, file.label_bytes - 1].tolist(), [])


def _read_pickle(content: bytes, file: BatchFile) -> Batch:
    batch = _unpickle(content, file.location)
    data, labels, names = (batch.get(key) for key in ("data", file.labels_key, "filenames"))
    rows = len(data) if isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3072,) else 0
    if not (
        rows
        and isinstance(labels, list)
        and isinstance(names, list)
        and len(labels) == len(names) == rows
        and all(isinstance(label, int) and label >= 0 for label in labels)
        and all(isinstance(name, bytes) for name in names)
    ):
        raise ReproError(
            f"'{file.location}' is not a batch of CIFAR: it needs data uint8 [n, 3072], n {file.labels_key} and n "
            "filenames"
        )
    assert isinstance(data, np.ndarray)
    return Batch(data, labels, [name.decode(errors="replace") for name in names])


def _unpickle(content: bytes, location: str) -> dict[str, Any]:
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle makes the reader raise almost any type
        raise ReproError(f"'{location}' is not a file of CIFAR ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise ReproError(f"'{location}' is not a file of CIFAR (no dict inside): fetch it again")
    return {key.decode(errors="replace"): value for key, value in found.items() if isinstance(key, bytes)}


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays, bytes, numbers, lists and dicts; a pickle that calls anything else is refused."""

    _reconstruct = np.empty(0).__reduce__()[0]  # what the pickle of an array calls, under the name of any NumPy

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,  # Python 3 writes bytes this way in protocol 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return allowed[module, name]  # type: ignore[return-value]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
