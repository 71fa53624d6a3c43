"""Vectors of all images of a split, shard by shard: extracted by workers, kept as float16, read by memory map."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from repro import atomic
from repro.baselines.encoders import Encoder, encoder_from_arrays, one_thread, vector_size
from repro.baselines.model import channel_arrays
from repro.data.store import Split, Store, StoredSplit, open_store
from repro.errors import ReproError
from repro.formatting import file_size
from repro.paper.baselines import Method

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout

READ = 32  # images in memory at once
POOL_IMAGES = 500  # with fewer images, one process finishes before worker processes have started


@dataclass(frozen=True)
class FeatureTask:
    """One shard of a split, and where its vectors are written. Pickled and sent to a worker.

    Attributes:
        store: path of the store.
        vocabulary: path of the encoders' arrays.
        method: the method.
        split: name of the split.
        number: index of the shard.
        images: number of images in the shard.
        folder: folder of the vectors.
    """

    store: str
    vocabulary: str
    method: Method
    split: str
    number: int
    images: int
    folder: str

    def path(self, channel: str) -> Path:
        """Return the file of a channel, float16 [images, D]."""
        return Path(self.folder, f"{self.split}-{self.number:05}.{channel}.npy")

    @property
    def done(self) -> bool:
        """Whether all channels are written."""
        return all(self.path(channel).exists() for channel in self.method.channels)


def extract(task: FeatureTask) -> None:
    """Write the vectors of a shard, each channel completely or not at all."""
    split, encoders = _open(task.store, task.vocabulary, task.method, task.split)
    start = sum(shard.images for shard in split.shards[: task.number])
    vectors = [np.empty((task.images, vector_size(each, task.method)), np.float16) for each in task.method.channels]
    with one_thread(task.method):
        for first in range(0, task.images, READ):
            rows = np.arange(first, min(first + READ, task.images))
            for row, image in zip(rows.tolist(), split.images(start + rows), strict=True):
                for target, encoder in zip(vectors, encoders, strict=True):
                    target[row] = encoder.encode(image)
    for channel, content in zip(task.method.channels, vectors, strict=True):
        buffer = io.BytesIO()
        np.save(buffer, content, allow_pickle=False)
        atomic.write(task.path(channel), buffer.getvalue())


@cache
def _open(store: str, vocabulary: str, method: Method, split: str) -> tuple[StoredSplit, list[Encoder]]:
    """Return a split and the encoders, opened once in each worker."""
    arrays = load_file(vocabulary)
    encoders = [encoder_from_arrays(channel, method, channel_arrays(arrays, channel)) for channel in method.channels]
    return open_store(Path(store)).splits[split], encoders


def feature_tasks(store: Store, splits: Sequence[str], method: Method, vocabulary: Path) -> list[FeatureTask]:
    """Return the tasks of all shards of `splits`, whose vectors are written beside the file `vocabulary`."""
    return [
        FeatureTask(str(store.path.resolve()), str(vocabulary.resolve()), method, split, number, shard.images,
                    str(vocabulary.resolve().parent))
        for split in splits
        for number, shard in enumerate(store.splits[split].shards)
    ]  # fmt: skip


def feature_bytes(method: Method, images: int) -> int:
    """Return the disk space of the vectors of `images` images."""
    return images * sum(2 * vector_size(channel, method) for channel in method.channels)


def check_disk(folder: Path, tasks: Sequence[FeatureTask]) -> None:
    """Raise ReproError if the disk of `folder` has no room for the vectors that are still to be written."""
    needed = sum(feature_bytes(task.method, task.images) for task in tasks if not task.done)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ReproError(
            f"the features need {file_size(needed)}, and the disk of '{folder}' has {file_size(free)} free: free some "
            "space, or choose another disk with --out"
        )


class Features:
    """The vectors of one split and channel, read from disk on demand."""

    def __init__(self, tasks: Sequence[FeatureTask], split: str, channel: str) -> None:
        own = [task for task in tasks if task.split == split]
        self._maps = [np.load(task.path(channel), mmap_mode="r", allow_pickle=False) for task in own]
        self._ends = np.cumsum([task.images for task in own])
        self.dimensions = self._maps[0].shape[1]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors of `rows` [B] in that order, float32 [B, D]."""
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards):
            of_shard = np.flatnonzero(shards == shard)
            stored = self._maps[shard]
            vectors[of_shard] = stored[rows[of_shard] - (self._ends[shard] - len(stored))]
        return vectors


class StoredImages:
    """Some images of a split, read a few at a time."""

    def __init__(self, split: Split, rows: NDArray[np.int64]) -> None:
        self._split, self._rows = split, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self._rows), READ):
            yield from self._split.images(self._rows[start : start + READ])
