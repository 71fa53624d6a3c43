"""Speed of reading batches ahead, compared with reading each batch through memory maps when it is needed.

    python benchmarks/feed.py [FOLDER]

Batches are 128 random images of 256 pixels, from 4 GB of shards that are written to FOLDER or the temporary folder.
"cold": the shards are dropped from memory first (Linux only); 128 images are read through maps, 2,048 by the reader.
"warm": a part of the shards is in memory, and batches are read and thrown away. "views": training views of 224 pixels
are cut from each of them. "device": a pause of 5 ms after each batch, in which a fast device would compute. "jpeg": the
same with JPEG shards. "bytes": bytes read from the disk per byte of the images, cold.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import HEAD, Row, print_machine, take_turns

from repro.data.reader import Request, read_ahead
from repro.data.sampling import draw_epoch
from repro.data.store import FileRecord, ShardRecord, StoredSplit
from repro.data.views import Views
from repro.models.allocator import keep_freed_memory
from repro.paper.recipes import AUTHORS
from repro.preparation.store_writing import JpegShardWriter, RawShardWriter

SIZE, BATCH, PER_SHARD = 256, 128, 512
SHARDS = {"cold": 40, "warm": 8, "jpeg": 1}
BATCHES = {"cold before": 1, "cold now": 16, "jpeg before": 12, "jpeg now": 12}  # else 80
PAUSE = 0.005  # seconds


def _split(folder: Path, kind: str) -> StoredSplit:
    """Return a split of SHARDS[kind] shards in `folder`; the same pixels in each, written at the first call."""
    encoding = "jpeg" if kind == "jpeg" else "raw"
    coarse = np.random.default_rng(0).integers(0, 256, (PER_SHARD, 32, 32, 3), dtype=np.uint8)
    shards = []
    for number in range(SHARDS[kind]):
        path = folder / f"{number:05}.{encoding}"
        if not path.exists():
            with path.with_suffix(".part").open("w+b") as target:
                writer = (JpegShardWriter if kind == "jpeg" else RawShardWriter)(target, PER_SHARD, SIZE)
                writer.write(coarse.repeat(SIZE // 32, axis=1).repeat(SIZE // 32, axis=2))
                writer.finish(path.name)
                target.flush()
                os.fsync(target.fileno())
            path.with_suffix(".part").replace(path)
        shards.append(ShardRecord(path.name, path.stat().st_size, "", PER_SHARD))
    nothing = FileRecord("", 0, "")
    return StoredSplit(folder, SIZE, tuple(shards), nothing, nothing, encoding)


def _drop_from_memory(folder: Path, split: StoredSplit) -> None:
    for shard in split.shards:
        descriptor = os.open(folder / shard.file, os.O_RDONLY)
        advise, dont_need = getattr(os, "posix_fadvise"), getattr(os, "POSIX_FADV_DONTNEED")  # noqa: B009
        advise(descriptor, 0, 0, dont_need)
        os.close(descriptor)


def _through_maps(folder: Path, split: StoredSplit, batches: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield each batch when it is needed, as an earlier version read them."""
    maps: dict[int, np.ndarray] = {}
    for indices in batches:
        images = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        for image, index in zip(images, indices.tolist(), strict=True):
            number, position = divmod(index, PER_SHARD)
            if split.compressed:
                split.read(np.array([index]), image[None])
                continue
            if number not in maps:
                maps[number] = np.load(folder / split.shards[number].file, mmap_mode="r").view(np.ndarray)
            image[...] = maps[number][position]
        yield images


def _read_ahead(folder: Path, split: StoredSplit, batches: list[np.ndarray]) -> Iterator[np.ndarray]:
    return (batch.images.numpy() for batch in read_ahead(split, map(Request, batches)))


def measure(what: str, kind: str, version: str) -> float:
    """Return images/s, or with `what` "bytes" the bytes read from the disk per byte of the images."""
    keep_freed_memory()
    folder = Path(sys.argv[2])
    split = _split(folder, kind)
    count = BATCHES.get(f"{kind} {version}", 80)
    draws = np.random.default_rng(time.time_ns())
    batches = [draws.integers(0, len(split), BATCH) for _ in range(count)]
    use = {"device": lambda images: time.sleep(PAUSE), "views": _cut()}.get(what, lambda images: None)
    read = _through_maps if version == "before" else _read_ahead
    if kind == "cold":
        _drop_from_memory(folder, split)
    else:
        for _ in read(folder, split, [np.arange(start, start + BATCH) for start in range(0, len(split), BATCH)]):
            pass
    bytes_before = _bytes_read() if what == "bytes" else 0
    began = time.perf_counter()
    for images in read(folder, split, batches):
        assert len(images) == BATCH
        use(images)
    taken = time.perf_counter() - began
    if what == "bytes":
        return (_bytes_read() - bytes_before) / (count * BATCH * SIZE * SIZE * 3)
    return count * BATCH / taken


def _cut() -> Callable[[np.ndarray], object]:
    """Return a function that cuts a training view out of each image of a batch, and has been called once."""
    views = Views(np.zeros((SIZE, SIZE, 3), np.float32), np.eye(3), 224, AUTHORS.augmentation, torch.device("cpu"))
    draws = draw_epoch(0, 1, BATCH, views.margin, AUTHORS.augmentation)
    views.augment(np.zeros((BATCH, SIZE, SIZE, 3), np.uint8), draws)
    return lambda images: views.augment(images, draws)


def _bytes_read() -> int:
    """Return the number of bytes that this process has had read from disks (Linux)."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


MEASURED = {"cold": ("read", "cold"), "bytes": ("bytes", "cold"), "warm": ("read", "warm"),
            "views": ("views", "warm"), "device": ("device", "warm"), "jpeg": ("device", "jpeg")}  # fmt: skip
GOALS = {"cold": "≥ 10", "bytes": "≤ 1.2 bytes now", "warm": "≥ 1", "views": "≥ 1", "device": "≥ 1.5", "jpeg": "–"}
CANDIDATES: dict[str, Callable[[], float]] = {
    f"{name} {version}": partial(measure, *what, version)
    for name, what in MEASURED.items()
    if hasattr(os, "posix_fadvise") or what[1] != "cold"
    for version in ("before", "now")
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        running = len(sys.argv) > 1 and sys.argv[1] in CANDIDATES
        found = take_turns(CANDIDATES, arguments=[] if running else [*sys.argv[1:], temporary][:1])
    print_machine()
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    print(HEAD)
    for name, goal in GOALS.items():
        if f"{name} now" in found:
            print(Row(f"feed, {name}", "memory maps", found[f"{name} now"] / found[f"{name} before"], goal))
