"""The unit of preparation: some images of one split become one shard, on any machine that sees the disk.

Besides the shard, two files of notes are made, which the finished store does not keep: `00007.json`, what was read
and written, and `00007.npz`, the sums for the statistics. A shard whose notes are in place is finished, whatever
happens afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from repro import atomic
from repro.data.statistics import PixelStatistics
from repro.data.store import ENCODINGS, JpegShardWriter, RawShardWriter, ShardRecord
from repro.preparation.preprocess import UndecodableImage, to_square
from repro.preparation.sources.source import ImageReference

BATCH = 32  # images between writes: 6 MB of 256×256 stay in the processor's cache


@dataclass(frozen=True)
class ShardTask:
    """What one shard is made of, and where it goes."""

    store: str  # the folder of the store under construction
    notes: str  # the folder of the notes
    split: str
    number: int  # of the shard in its split
    references: Sequence[ImageReference]
    size: int
    encoding: str

    def listing(self) -> str:
        """Hex SHA-256 of names and labels: notes on other images are not taken for this task's."""
        lines = (f"{reference.label} {reference.name}\n" for reference in self.references)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()

    @property
    def name(self) -> str:
        """Of the shard and its notes, without ending: train/00007."""
        return f"{self.split}/{self.number:05}"

    @property
    def file(self) -> str:
        """The shard's file, relative to the store."""
        return f"{self.name}{ENCODINGS[self.encoding]}"

    @property
    def partial(self) -> Path:
        """The shard while it is written, by this process alone."""
        return Path(self.notes, f"{self.name}.{os.getpid()}.partial")

    @property
    def sums(self) -> Path:
        """The notes that hold the sums."""
        return Path(self.notes, f"{self.name}.npz")

    @property
    def made(self) -> Path:
        """The other notes, until `finish` has put them in place."""
        return Path(self.notes, f"{self.name}.made")

    @property
    def finished(self) -> Path:
        """The other notes, in place."""
        return Path(self.notes, f"{self.name}.json")


@dataclass(frozen=True)
class ShardNotes:
    """What is known of a finished shard."""

    listing: str
    record: ShardRecord | None  # None if no image could be used
    labels: list[int]
    names: list[str]
    rejected: list[tuple[int, str, str]]  # label, name, reason
    damaged: list[tuple[str, str]]  # name, libjpeg's complaint; decoded and kept
    source_sha256: str  # of names, labels and encoded images, rejected ones too


def make_shard(task: ShardTask) -> None:
    """Decode, resize and write a shard's images, and its notes. Raises OSError if they cannot be written."""
    labels: list[int] = []
    names: list[str] = []
    rejected: list[tuple[int, str, str]] = []
    damaged: list[tuple[str, str]] = []
    digest = hashlib.sha256()
    statistics = PixelStatistics(task.size)
    Writer = JpegShardWriter if task.encoding == "jpeg" else RawShardWriter
    batch = np.empty((BATCH, task.size, task.size, 3), np.uint8)
    with task.partial.open("w+b") as target:
        writer = Writer(target, len(task.references), task.size)
        for start in range(0, len(task.references), BATCH):
            filled = 0
            for reference in task.references[start : start + BATCH]:
                digest.update(f"{reference.label} {reference.name}\n".encode(errors="surrogateescape"))
                reason = ""
                complaints: list[str] = []
                try:
                    image = reference.read()
                    digest.update(hashlib.sha256(image if isinstance(image, bytes) else image.data).digest())
                    batch[filled] = to_square(image, task.size, complaints.append)
                except OSError as error:
                    reason = f"cannot be read: {error.strerror or error}"
                except UndecodableImage as error:
                    reason = str(error)
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
        task.partial.rename(Path(task.store, task.file))
    else:
        task.partial.unlink()
    sums = statistics.sums.astype(np.int32)  # 512 images of up to 255 need no more
    np.savez(task.sums, images=np.array(statistics.images), sums=sums, products=statistics.products)
    notes = ShardNotes(task.listing(), record if labels else None, labels, names, rejected, damaged, digest.hexdigest())
    task.made.write_text(json.dumps(asdict(notes)))


def finish(task: ShardTask) -> ShardNotes:
    """Have a shard that was made on the disk and its notes in place; returns them.

    Apart from `make_shard`, because waiting for the disk is no work for those who decode.
    """
    shard = Path(task.store, task.file)
    for path in (shard, task.sums, task.made):
        if path.exists():
            with path.open("rb") as file:
                atomic.sync(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # nobody reads it soon; memory is scarce
    task.made.rename(task.finished)
    notes = read_notes(task)
    if notes is None:
        raise OSError(f"'{task.file}' is not what it was when it was written")
    return notes


def read_notes(task: ShardTask) -> ShardNotes | None:
    """The notes of a finished shard; None if it is not finished, or was made of other images, or has another length."""
    try:
        content = json.loads(task.finished.read_bytes())
        record = ShardRecord(**content["record"]) if content["record"] else None
        if record and Path(task.store, record.file).stat().st_size != record.bytes:
            return None
        return ShardNotes(**{**content, "record": record}) if content["listing"] == task.listing() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_sums(task: ShardTask) -> PixelStatistics:
    """The sums over a finished shard's images."""
    statistics = PixelStatistics(task.size)
    with np.load(task.sums) as sums:
        statistics.images = int(sums["images"])
        statistics.sums += sums["sums"]
        statistics.products += sums["products"]
    return statistics
