"""The prepared store: square images in shards, with labels, names and statistics.

A store is a folder:

    manifest.json       contents of the store, with size and checksum of every file below; written last
    mean.npy            mean image of train, float32 [S, S, 3], 0–255
    train/labels.npy    int64 [N], indices into the manifest's list of classes; all −1 in a split without labels
    train/names.jsonl   name of each image in the source, one JSON string per line
    train/00000.npy …   shards, uint8 [n, S, S, 3], RGB

and the same for val and test, where they exist. A folder without a manifest is not opened.

With encoding "jpeg" a store takes a fifth of the disk space. A shard `train/00000.jpegs` then holds n JPEG files, one
after the other, followed by a table of n + 1 offsets in bytes, unsigned 64-bit little-endian: the beginning of each
file and the end of the last one.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repro import remote
from repro.data.checksums import ALGORITHMS
from repro.data.open_files import SharedFile, files_to_keep_open
from repro.errors import ReproError

MANIFEST = "manifest.json"
FORMAT = "repro-store"
VERSION = 2  # of new stores; in version 1, checksums are SHA-256 under the key "sha256"
SHORTER_SIDE, SQUASH = "shorter side", "squash"  # how images become squares
SPLITS = ("train", "val", "test")
ENCODINGS = {"raw": ".npy", "jpeg": ".jpegs"}  # encoding of a shard, and the extension of its file
NAMES_BYTES = 1 << 20  # of names that are read at once
UNLABELLED = -1  # label of every image of a split whose labels are not public


@dataclass(frozen=True)
class ClassInfo:
    """A class: its id in the source (folder name, WordNet id) and a readable name."""

    id: str
    name: str


@dataclass(frozen=True)
class FileRecord:
    """A file of the store: path relative to the store, length in bytes, checksum as hexadecimal digits."""

    file: str
    bytes: int
    checksum: str


@dataclass(frozen=True)
class ShardRecord(FileRecord):
    """A shard: a file that holds `images` images."""

    images: int


class Split(ABC):
    """Images with labels and names: a split of a store, or a selection of its images."""

    @property
    @abstractmethod
    def size(self) -> int:
        """S: images are S×S pixels."""

    @abstractmethod
    def __len__(self) -> int:
        """Return N, the number of images."""

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, int64 [N], indices into `Store.classes`; all UNLABELLED in a split without labels."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether the images have labels. Raises ReproError if some have and others have not."""

    @property
    @abstractmethod
    def compressed(self) -> bool:
        """Whether reading takes computing, because the images are stored as JPEG."""

    @abstractmethod
    def iter_names(self) -> Iterator[str]:
        """Yield the name of each image; a list of those of 15 million images takes gigabytes."""

    @abstractmethod
    def read(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> None:
        """Read the images at `indices` [B], in that order, into `out`, uint8 [B, S, S, 3] and contiguous.

        Indices may repeat. Threads may call this at the same time. Raises IndexError for an index outside 0 … N−1, and
        ReproError for a file that is missing, too short or damaged.
        """

    def read_cached(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> list[slice]:
        """Read those of the images that take no waiting, as `read` does; return the rows of `out` that remain."""
        return [slice(0, len(indices))]

    @cached_property
    def names(self) -> list[str]:
        """Name of each image in the source, a list of N."""
        return list(self.iter_names())

    def images(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return the images at `indices` [B] as `read` does, as a new array, uint8 [B, S, S, 3]."""
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        self.read(indices, images)
        return images


class StoredSplit(Split):
    """A split of a store. Images are read from disk on demand, and the object is cheap to pickle."""

    def __init__(
        self,
        root: Path,
        size: int,
        shards: tuple[ShardRecord, ...],
        labels: FileRecord,
        names: FileRecord,
        encoding: str = "raw",
    ) -> None:
        self.shards = shards
        self._root, self._size, self._encoding = root, size, encoding
        self._labels, self._names = labels, names
        self._ends = np.cumsum([shard.images for shard in shards], dtype=np.int64)

    @property
    def size(self) -> int:
        """S: images are S×S pixels."""
        return self._size

    @property
    def compressed(self) -> bool:
        """Whether images are stored as JPEG."""
        return self._encoding == "jpeg"

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open_shard"}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, int64 [N], indices into `Store.classes`; all UNLABELLED in a split without labels."""
        return load_array(self._root / self._labels.file, np.int64, (len(self),))

    @property
    def labelled(self) -> bool:
        """Whether the images have labels. Raises ReproError if some have and others have not."""
        missing = int((self.labels == UNLABELLED).sum())
        if 0 < missing < len(self):
            raise ReproError(
                _damaged(self._root / self._labels.file, f"{missing:,} of {len(self):,} labels are missing")
            )
        return not missing

    def iter_names(self) -> Iterator[str]:
        """Yield the name of each image in the source."""
        try:
            path = self._root / self._names.file
            with remote.open_binary(path, NAMES_BYTES) if remote.remote_url(path) else path.open("rb") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise ReproError(_damaged(self._root / self._names.file, error)) from error

    def read(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> None:
        """Read the images at `indices` [B] into `out`, uint8 [B, S, S, 3]; consecutive ones of a shard at once."""
        for rows, shard, first in self._runs(indices):
            shard.read(first, out[rows])

    def read_cached(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> list[slice]:
        """Read the images that the system has in memory into `out`; return the rows of `out` that remain."""
        return [rows for rows, shard, first in self._runs(indices) if not shard.read_cached(first, out[rows])]

    def _runs(self, indices: NDArray[np.integer[Any]]) -> Iterator[tuple[slice, _OpenShard, int]]:
        """Yield the rows of `indices` that are consecutive images of a shard, the shard, and the first one's number."""
        indices = np.asarray(indices)
        if not len(indices):
            return
        if indices.min() < 0 or indices.max() >= len(self):
            raise IndexError(f"image {indices.min()} or {indices.max()} is outside 0…{len(self) - 1}")
        shards = np.searchsorted(self._ends, indices, side="right")
        breaks = np.flatnonzero((np.diff(indices) != 1) | (np.diff(shards) != 0)) + 1
        for start, end in pairwise([0, *breaks.tolist(), len(indices)]):
            number = int(shards[start])
            first = int(indices[start]) - int(self._ends[number]) + self.shards[number].images
            yield slice(start, end), self._open_shard(number), first

    def shard(self, number: int) -> NDArray[np.uint8]:
        """Return all images of a shard, uint8 [n, S, S, 3]."""
        images = np.empty((self.shards[number].images, self._size, self._size, 3), np.uint8)
        self._open_shard(number).read(0, images)
        return images

    @cached_property
    def _open_shard(self) -> Callable[[int], _OpenShard]:
        """Function that opens a shard by number; the most recently used ones stay open."""
        opened, root, shards = JpegShard if self.compressed else RawShard, self._root, self.shards
        return lru_cache(files_to_keep_open())(lambda number: opened(root, shards[number]))


class _OpenShard(ABC):
    """A shard that is open for reading by any number of threads."""

    def __init__(self, root: Path, record: ShardRecord) -> None:
        self.path, self.record = root / record.file, record
        url = remote.remote_url(self.path)
        self._file: SharedFile | remote.RemoteSharedFile
        try:
            self._file = remote.RemoteSharedFile(url) if url else SharedFile(self.path)
        except OSError as error:
            raise ReproError(_damaged(self.path, error)) from error

    @abstractmethod
    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Read the images from number `first` on into `out`, uint8 [n, S, S, 3]."""

    def read_cached(self, first: int, out: NDArray[np.uint8]) -> bool:
        """Read as `read` does if that takes no waiting; return whether it was done."""
        return False

    def fill(self, target: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array with the file's bytes from `offset` on."""
        try:
            found = self._file.read_into(target.reshape(-1).view(np.uint8).data, offset)
        except OSError as error:
            raise ReproError(_damaged(self.path, error)) from error
        if found < target.nbytes:
            raise ReproError(_damaged(self.path, f"it ends after {offset + found} of {self.record.bytes} bytes"))


class RawShard(_OpenShard):
    """A shard of pixels, `.npy`."""

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Read the images from number `first` on into `out`, uint8 [n, S, S, 3]."""
        self.fill(out, self._offset(first, out))

    def read_cached(self, first: int, out: NDArray[np.uint8]) -> bool:
        """Read as `read` does if the system has the images in memory; return whether it was done."""
        return self._file.read_cached_into(out.reshape(-1).data, self._offset(first, out))

    def _offset(self, first: int, out: NDArray[np.uint8]) -> int:
        """Return where image number `first` begins in the file."""
        image = math.prod(out.shape[1:])
        # The length of the file was checked, and gives the length of the header.
        header = self.record.bytes - self.record.images * image
        return header + first * image


class JpegShard(_OpenShard):
    """A shard of JPEG files and the table of their offsets."""

    @cached_property
    def _offsets(self) -> NDArray[np.uint64]:
        offsets = np.empty(self.record.images + 1, "<u8")
        self.fill(offsets, self.record.bytes - offsets.nbytes)
        if (offsets[:-1] > offsets[1:]).any() or offsets[-1] > self.record.bytes:
            raise ReproError(_damaged(self.path, "its table of offsets is wrong"))
        return offsets

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Read and decode the images from number `first` on into `out`, uint8 [n, S, S, 3]."""
        start, *ends = self._offsets[first : first + len(out) + 1].tolist()
        content = np.empty(ends[-1] - start, np.uint8)
        self.fill(content, start)
        position = 0
        for image, end in zip(out, ends, strict=True):
            self._decode(content[position : end - start], image)
            position = end - start

    def _decode(self, encoded: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
        try:
            with Image.open(io.BytesIO(encoded.tobytes()), formats=("JPEG",)) as picture:
                pixels = np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise ReproError(_damaged(self.path, error)) from error
        if pixels.shape != image.shape:
            raise ReproError(_damaged(self.path, f"an image of {pixels.shape}"))
        image[...] = pixels


class Subset(Split):
    """The images of a split at `rows`, int64 [N], in that order."""

    def __init__(self, split: Split, rows: NDArray[np.int64]) -> None:
        self._split, self._rows = split, rows

    @property
    def size(self) -> int:
        """S: images are S×S pixels."""
        return self._split.size

    @property
    def compressed(self) -> bool:
        """Whether images are stored as JPEG."""
        return self._split.compressed

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, int64 [N]."""
        return self._split.labels[self._rows]

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self._split.labelled

    def iter_names(self) -> Iterator[str]:
        """Yield the name of each image."""
        names = self._split.names
        return (names[row] for row in self._rows.tolist())

    def read(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> None:
        """Read the images at `indices` [B] of the subset into `out`, uint8 [B, S, S, 3]."""
        self._split.read(self._rows[np.asarray(indices)], out)

    def read_cached(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> list[slice]:
        """Read those of the images that take no waiting into `out`; return the rows of `out` that remain."""
        return self._split.read_cached(self._rows[np.asarray(indices)], out)


@dataclass(frozen=True)
class Store:
    """A prepared dataset, as returned by `open_store`."""

    path: Path
    dataset: str  # name of the dataset that was prepared
    size: int  # S: images are S×S pixels
    classes: tuple[ClassInfo, ...]  # in label order
    splits: dict[str, StoredSplit]  # those of train, val and test that exist, in this order
    mean: NDArray[np.float32]  # mean image of train, [S, S, 3], RGB, 0–255
    mean_rgb: NDArray[np.float64]  # mean of the training pixels, [3], 0–255
    covariance: NDArray[np.float64]  # covariance of the RGB values 0–255 of the training pixels, [3, 3]
    fingerprint: str  # SHA-256 of everything that determines classes, labels, pixels and statistics
    manifest: dict[str, Any]  # content of manifest.json

    @property
    def resize(self) -> str:
        """How images were made square: "shorter side" and the central crop, or "squash" of both sides."""
        return str(self.manifest.get("resize", SHORTER_SIDE))

    @property
    def checksum_algorithm(self) -> str:
        """Algorithm of the checksums of the store's files."""
        return "sha256" if self.manifest["version"] == 1 else str(self.manifest["checksums"])

    def require_labels(self, splits: Iterable[str], what: str) -> None:
        """Raise ReproError if any of the `splits` that the store has is without labels, which `what` needs."""
        for name in splits:
            if name in self.splits and not self.splits[name].labelled:
                raise ReproError(f"the split '{name}' of the store '{self.path}' has no labels, which {what} needs")


def open_store(path: Path) -> Store:
    """Open a prepared store. Images stay on disk; checksums are verified by `repro verify` only.

    Raises ReproError if `path` is not a complete store of this format, or if a file is missing or its length differs
    from the manifest.
    """
    path = remote.locate(path)
    manifest = _read_manifest(path)
    try:
        size: int = manifest["size"]
        encoding: str = manifest["encoding"]
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding {encoding!r}")
        _check_lengths(path, manifest)
        statistics = manifest["statistics"]
        store = Store(
            path=path,
            dataset=manifest["dataset"],
            size=size,
            classes=tuple(ClassInfo(**info) for info in manifest["classes"]),
            splits={
                name: StoredSplit(
                    root=path,
                    size=size,
                    shards=tuple(_shard_record(shard) for shard in manifest["splits"][name]["shards"]),
                    labels=_file_record(manifest["splits"][name]["labels"]),
                    names=_file_record(manifest["splits"][name]["names"]),
                    encoding=encoding,
                )
                for name in SPLITS
                if name in manifest["splits"]
            },
            mean=load_array(path / statistics["mean"]["file"], np.float32, (size, size, 3)),
            mean_rgb=np.array(statistics["mean_rgb"], np.float64),
            covariance=np.array(statistics["covariance"], np.float64),
            fingerprint=fingerprint(manifest),
            manifest=manifest,
        )
        algorithm = store.checksum_algorithm
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReproError(_damaged(path / MANIFEST, error)) from error
    if algorithm not in ALGORITHMS:
        raise ReproError(
            f"the store '{path}' has checksums of the algorithm {algorithm!r}, this program knows "
            f"{' and '.join(ALGORITHMS)}: update repro, or prepare the store again"
        )
    return store


def file_records(manifest: dict[str, Any]) -> Iterable[FileRecord]:
    """Yield every file that a manifest lists, shards as `ShardRecord`."""
    yield _file_record(manifest["statistics"]["mean"])
    for split in manifest["splits"].values():
        yield _file_record(split["labels"])
        yield _file_record(split["names"])
        yield from map(_shard_record, split["shards"])


def _file_record(entry: dict[str, Any]) -> FileRecord:
    """Return the record that a manifest of any version describes."""
    return FileRecord(entry["file"], entry["bytes"], entry["checksum"] if "checksum" in entry else entry["sha256"])


def _shard_record(entry: dict[str, Any]) -> ShardRecord:
    return ShardRecord(**asdict(_file_record(entry)), images=entry["images"])


def fingerprint(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of everything that determines classes, labels, pixels and statistics of a store.

    Names of images, rejected inputs, versions of libraries and the challenge's class numbers are left out: they do not
    reach the network.
    """
    contents = {
        "dataset": manifest["dataset"],
        "size": manifest["size"],
        "classes": manifest["classes"],
        "splits": {
            name: {
                "labels": _file_record(split["labels"]).checksum,
                "shards": [(shard.images, shard.checksum) for shard in map(_shard_record, split["shards"])],
            }
            for name, split in manifest["splits"].items()
        },
        "mean": _file_record(manifest["statistics"]["mean"]).checksum,
        "covariance": manifest["statistics"]["covariance"],
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def load_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Load an `.npy` file. Raises ReproError if it does not hold an array of `dtype` and `shape`."""
    try:
        file = io.BytesIO(remote.read_bytes(path)) if remote.remote_url(path) else path
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ReproError(_damaged(path, error)) from error
    if array.dtype != dtype or array.shape != shape:
        raise ReproError(_damaged(path, f"holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"))
    return array


def _read_manifest(path: Path) -> dict[str, Any]:
    again = f"prepare it with `repro prepare DATASET --out {path}`"
    try:
        manifest = json.loads(remote.read_bytes(path / MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        if not remote.remote_url(path) and path.is_file():
            folder = f": name '{path.parent}'" if path.name == MANIFEST else ""
            raise ReproError(f"'{path}' is a file, and a store is a folder{folder}") from None
        if remote.remote_url(path) or not path.exists():
            raise ReproError(f"no store at '{path}': {again}") from None
        raise ReproError(f"'{path}' is not a complete store, it has no manifest.json: {again}") from None
    except (OSError, ValueError) as error:
        raise ReproError(_damaged(path / MANIFEST, error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ReproError(f"'{path}' is not a store, its manifest.json belongs to another program: {again}")
    if manifest.get("version") not in (1, VERSION):
        raise ReproError(
            f"'{path}' is a store of version {manifest.get('version')!r}, this program reads versions 1 and {VERSION}: "
            f"{again}"
        )
    return manifest


def _check_lengths(path: Path, manifest: dict[str, Any]) -> None:
    url = remote.remote_url(path)
    try:
        found = remote.lengths(url) if url else {}  # one request for all files
    except OSError as error:
        raise ReproError(_damaged(path, error)) from error
    for record in file_records(manifest):
        try:
            length = found.get(record.file, 0) if url else (path / record.file).stat().st_size
        except OSError as error:
            raise ReproError(_damaged(path / record.file, error)) from error
        if length != record.bytes:
            raise ReproError(_damaged(path / record.file, f"it has {length} bytes instead of {record.bytes}"))


def _damaged(path: Path, reason: object) -> str:
    if isinstance(reason, OSError) and remote.remote_url(path):
        return f"cannot read the store's file '{path}' ({reason.strerror or reason})"
    if isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    elif isinstance(reason, Exception):
        reason = f"{type(reason).__name__} {reason}"
    return f"the store's file '{path}' is damaged ({reason}): prepare the store again"
