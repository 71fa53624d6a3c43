"""Writing a store's files: shards in batches, arrays, names and the manifest; `repro.data.store` describes them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repro import atomic
from repro.data.checksums import ALGORITHM, ALGORITHMS
from repro.data.store import MANIFEST, FileRecord, ShardRecord

JPEG_QUALITY = 95


def write_array(root: Path, file: str, array: NDArray[Any]) -> FileRecord:
    """Write an array as `.npy` at `file` below `root` and sync it to disk."""
    with (root / file).open("wb") as target:
        writer = _HashingWriter(target)
        np.lib.format.write_array(writer, np.ascontiguousarray(array), allow_pickle=False)
        atomic.sync(target)
        return writer.record(file)


class RawShardWriter:
    """Write a shard of pixels in batches: `.npy`, uint8 [n, S, S, 3]."""

    def __init__(self, target: BinaryIO, images: int, size: int) -> None:
        self._shape = (images, size, size, 3)
        self._images = 0
        self._target = target
        self._writer = _HashingWriter(target)
        self._write_header(self._writer, images)

    def write(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Append uint8 [N, S, S, 3]; return the pixels that a reader gets: the same."""
        self._images += len(pixels)
        self._writer.write(pixels.data if len(pixels) else b"")
        return pixels

    def finish(self, file: str) -> ShardRecord:
        """Complete the shard; return its record under the name `file`."""
        written = self._writer.record(file)
        if self._images < self._shape[0]:  # some images were rejected: correct the count in the header
            self._target.seek(0)
            self._write_header(self._target, self._images)
            self._target.seek(0)
            written = replace(written, checksum=hashlib.file_digest(self._target, ALGORITHMS[ALGORITHM]).hexdigest())  # type: ignore[arg-type]
        return ShardRecord(**asdict(written), images=self._images)

    def _write_header(self, target: Any, images: int) -> None:
        # NumPy pads the header for the largest possible count, so its length does not depend on the count.
        header = {"descr": "|u1", "fortran_order": False, "shape": (images, *self._shape[1:])}
        np.lib.format.write_array_header_1_0(target, header)


class JpegShardWriter:
    """Write a shard of JPEG files and the table of their offsets."""

    def __init__(self, target: BinaryIO, images: int, size: int) -> None:
        self._offsets = [0]
        self._writer = _HashingWriter(target)

    def write(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Append uint8 [N, S, S, 3]; return the pixels that a reader gets: those of the decoded JPEGs."""
        read = np.empty_like(pixels)
        for number, image in enumerate(pixels):
            encoded = io.BytesIO()
            # Full-resolution colour: with the usual 4:2:0 subsampling the error is a third larger.
            Image.fromarray(image).save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            self._offsets.append(self._offsets[-1] + self._writer.write(encoded.getvalue()))
            with Image.open(encoded, formats=("JPEG",)) as picture:
                read[number] = np.asarray(picture)
        return read

    def finish(self, file: str) -> ShardRecord:
        """Complete the shard; return its record under the name `file`."""
        self._writer.write(np.array(self._offsets, "<u8").tobytes())
        return ShardRecord(**asdict(self._writer.record(file)), images=len(self._offsets) - 1)


class NamesWriter:
    """Write names of images as JSON strings, one per line, at `file` below `root`.

    Names that are not valid UTF-8 are escaped. A context manager; `record` is set when it exits.
    """

    def __init__(self, root: Path, file: str) -> None:
        self._file = file
        self._target = (root / file).open("wb")
        self._writer = _HashingWriter(self._target)

    def __enter__(self) -> NamesWriter:
        return self

    def write(self, names: Iterable[str]) -> None:
        """Append names."""
        for name in names:
            self._writer.write(f"{json.dumps(name)}\n".encode("ascii"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._target:
            if kind is None:
                atomic.sync(self._target)
                self.record = self._writer.record(self._file)


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, which completes a store: only from then on can it be opened."""
    # ASCII, because file names need not be valid UTF-8.
    atomic.write(root / MANIFEST, f"{json.dumps(manifest, indent=1)}\n".encode("ascii"))


class _HashingWriter:
    """Hash what is written, so that no file has to be read again."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._hash = ALGORITHMS[ALGORITHM]()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        written = self._target.write(data)
        self._bytes += written
        return written

    def record(self, file: str) -> FileRecord:
        return FileRecord(file, self._bytes, self._hash.hexdigest())
