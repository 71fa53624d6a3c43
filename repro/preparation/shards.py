"""The unit of preparation: a few hundred images of one split become one shard, on any machine that sees the disk.

Besides the shard, a task writes two files of notes, which are not part of the finished store: `00007.json`, what was
read and written, and `00007.npz`, the sums for the statistics. A shard is finished once its notes are in place. It
counts as finished for the same images only: the notes hold a digest of the label, the name and the identity of each
image (`ImageReference.identity`: path, size and modification time of its file).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from repro import atomic
from repro.data.checksums import ALGORITHM, ALGORITHMS
from repro.data.statistics import PixelStatistics
from repro.data.store import ENCODINGS, ShardRecord
from repro.preparation.preprocess import MissingDecoder, UndecodableImage, exif_orientation, to_square
from repro.preparation.sources.source import ImageReference
from repro.preparation.store_writing import JpegShardWriter, RawShardWriter

BATCH = 32  # images between two writes: 6 MB at 256×256, which stay in the processor's cache


@dataclass(frozen=True)
class ShardTask:
    """The images of one shard, and where the shard is written. Pickled and sent to a worker.

    Attributes:
        store: folder of the store in the staging area.
        notes: folder of the notes in the staging area.
        split: train, val or test.
        number: index of the shard in its split.
        references: the images, in order.
        size: side of the prepared images in pixels.
        encoding: encoding of the shard, a key of `ENCODINGS`.
        orientation: "exif" turns images upright as their EXIF data say, "stored" keeps the pixels as stored.
        squash: whether both sides are resized to `size`, instead of the shorter side before a central crop.
    """

    store: str
    notes: str
    split: str
    number: int
    references: Sequence[ImageReference]
    size: int
    encoding: str
    orientation: str = "stored"
    squash: bool = False

    def inputs(self) -> list[str]:
        """Return the `input_digest` of each image."""
        return [input_digest(reference) for reference in self.references]

    @property
    def name(self) -> str:
        """Name of the shard and its notes without extension, for example train/00007."""
        return f"{self.split}/{self.number:05}"

    @property
    def file(self) -> str:
        """File of the shard, relative to the store."""
        return f"{self.name}{ENCODINGS[self.encoding]}"

    def temporary(self) -> Path:
        """Return a new path for the shard while it is written; no two processes on any hosts share one."""
        host = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
        return Path(self.notes, f"{self.name}.{host}-{uuid.uuid4().hex}.partial")

    @property
    def sums(self) -> Path:
        """The notes that hold the sums for the statistics."""
        return Path(self.notes, f"{self.name}.npz")

    @property
    def uncommitted(self) -> Path:
        """The other notes, until `commit_shard` renames them."""
        return Path(self.notes, f"{self.name}.made")

    @property
    def finished(self) -> Path:
        """The other notes of a finished shard."""
        return Path(self.notes, f"{self.name}.json")


@dataclass(frozen=True)
class ShardNotes:
    """What is known of a finished shard.

    Attributes:
        inputs: `input_digest` of each image of the task, taken before it was read; "" for one that could not be read.
        record: file of the shard; None if no image could be used.
        labels: label of each image in the shard.
        names: name of each image in the shard.
        rejected: label, name and reason of each image that cannot be used.
        damaged: name of each image that is used although it is damaged, and the complaint of libjpeg.
        turned: number of images that were turned upright.
        source_digest: checksum of names, labels and encoded images, including those that are rejected.
    """

    inputs: list[str]
    record: ShardRecord | None
    labels: list[int]
    names: list[str]
    rejected: list[tuple[int, str, str]]
    damaged: list[tuple[str, str]]
    turned: int
    source_digest: str

    def is_current(self, task: ShardTask) -> bool:
        """Return whether the shard was made from the images of `task` as they are now, and all could be read."""
        return "" not in self.inputs and self.inputs == task.inputs()

    def changed(self, task: ShardTask) -> list[str]:
        """Return the names of the images of `task` that this shard was not made from, or could not read."""
        known = set(self.inputs) - {""}
        references = zip(task.references, task.inputs(), strict=True)
        return [reference.name for reference, digest in references if digest not in known]


def input_digest(reference: ImageReference) -> str:
    """Return 16 hexadecimal digits that change with label, name and identity of an image; "" if it has no file."""
    try:
        description = f"{reference.label} {reference.name}\n{reference.identity()}"
    except OSError:
        return ""
    return hashlib.sha256(description.encode(errors="surrogateescape")).hexdigest()[:16]


def make_shard(task: ShardTask) -> None:
    """Decode, resize and write the images of a shard, and its notes. Raises OSError if they cannot be written."""
    inputs: list[str] = []
    labels: list[int] = []
    names: list[str] = []
    rejected: list[tuple[int, str, str]] = []
    damaged: list[tuple[str, str]] = []
    turned = 0
    temporary = task.temporary()
    digest = ALGORITHMS[ALGORITHM]()
    statistics = PixelStatistics(task.size)
    Writer = JpegShardWriter if task.encoding == "jpeg" else RawShardWriter
    batch = np.empty((BATCH, task.size, task.size, 3), np.uint8)
    with temporary.open("w+b") as target:
        writer = Writer(target, len(task.references), task.size)
        for start in range(0, len(task.references), BATCH):
            filled = 0
            for reference in task.references[start : start + BATCH]:
                digest.update(f"{reference.label} {reference.name}\n".encode(errors="surrogateescape"))
                reason = ""
                complaints: list[str] = []
                inputs.append(input_digest(reference))  # before the file is read: it may change meanwhile
                try:
                    image = reference.read()
                    digest.update(ALGORITHMS[ALGORITHM](image if isinstance(image, bytes) else image.data).digest())
                    orientation = 1
                    if task.orientation == "exif" and isinstance(image, bytes):
                        orientation = exif_orientation(image)
                    batch[filled] = to_square(image, task.size, complaints.append, orientation, task.squash)
                    turned += orientation != 1
                except OSError as error:
                    reason = f"cannot be read: {error.strerror or error}"
                    inputs[-1] = ""  # so that it is read again: permissions and disks change without a trace
                except UndecodableImage as error:
                    reason = str(error)
                    if isinstance(error, MissingDecoder):  # it may be installed before the next call
                        inputs[-1] = ""
                if reason:
                    rejected.append((reference.label, reference.name, reason))
                    continue
                filled += 1
                labels.append(reference.label)
                names.append(reference.name)
                damaged += [(reference.name, complaint) for complaint in complaints]
            pixels = writer.write(batch[:filled])
            if task.split == "train":  # Sec. 2 and 4.1: over the training set
                statistics.add(pixels)
        record = writer.finish(task.file)
    if labels:
        os.replace(temporary, Path(task.store, task.file))
    else:
        temporary.unlink()
    sums = statistics.sums.astype(np.int32)  # enough for 512 images of values up to 255
    np.savez(task.sums, images=np.array(statistics.images), sums=sums, products=statistics.products)
    notes = ShardNotes(inputs, record if labels else None, labels, names, rejected, damaged, turned, digest.hexdigest())
    task.uncommitted.write_text(json.dumps(vars(notes), default=asdict), encoding="ascii")


def commit_shard(task: ShardTask) -> ShardNotes:
    """Sync a shard and its notes to disk, and put the notes in place; return them.

    Separate from `make_shard`, so that workers decode instead of waiting for the disk.
    """
    shard = Path(task.store, task.file)
    for path in (shard, task.sums, task.uncommitted):
        if path.exists():
            with path.open("r+b") as file:  # Windows syncs only files that are open for writing
                atomic.sync(file)
                _free_page_cache(file)
    os.replace(task.uncommitted, task.finished)
    notes = read_notes(task)
    if notes is None:
        raise OSError(f"the shard '{task.file}' has changed since it was written")
    return notes


def _free_page_cache(file: BinaryIO) -> None:
    """Advise the system that a file is not read again soon; without effect where it takes no such advice."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not every file system and C library has it
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_notes(task: ShardTask) -> ShardNotes | None:
    """Return the notes of a finished shard; None if it is not finished or its length differs from its notes.

    `ShardNotes.is_current` tells whether it was made from the images of the task as they are now.
    """
    try:
        content = json.loads(task.finished.read_bytes())
        record = ShardRecord(**content["record"]) if content["record"] else None
        if record and Path(task.store, record.file).stat().st_size != record.bytes:
            return None
        return ShardNotes(**{**content, "record": record})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_sums(task: ShardTask) -> PixelStatistics:
    """Return the sums over the images of a finished shard."""
    statistics = PixelStatistics(task.size)
    with np.load(task.sums) as sums:
        statistics.images = int(sums["images"])
        statistics.sums += sums["sums"]
        statistics.products += sums["products"]
    return statistics
