"""`repro prepare`: from the images of a data set to a store that training reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
from numpy.typing import NDArray

from repro import atomic
from repro.data.statistics import PixelStatistics
from repro.data.store import (
    ENCODINGS,
    FORMAT,
    SPLITS,
    VERSION,
    ClassInfo,
    Store,
    fingerprint,
    open_store,
    write_array,
    write_manifest,
    write_names,
)
from repro.errors import ReproError, unknown
from repro.formatting import duration
from repro.preparation.executors import WorkerPool, dask_pool, local_pool
from repro.preparation.preprocess import UndecodableImage, decode
from repro.preparation.shards import ShardNotes, ShardTask, finish, make_shard, read_notes, read_sums
from repro.preparation.sources.datasets import DATASETS
from repro.preparation.sources.source import ImageReference, Source, choose
from repro.preparation.staging import StagingArea, already_published, staging_area

SHARD_IMAGES = 512  # 100 MB of 256×256: what is lost when a worker is stopped
POOL_IMAGES = 1000  # fewer are done sooner than worker processes have started
REJECTED_SHARE = 0.001  # more undecodable images than this mean that something is wrong with the data
LISTING_SECONDS = 10.0  # between two lines about a listing
SAMPLE = 16  # images that are decoded to estimate the time
# What else a worker does to an image, in seconds (benchmarks/prepare.py): resampling takes its share of the time of
# decoding; hashes, statistics and writing go with the pixels that are kept; the rest is the same for every image.
RESAMPLING = 0.3
PER_PIXEL = {"raw": 6e-9, "jpeg": 25e-9}
PER_IMAGE = 50e-6
STARTING = 4.0  # seconds until worker processes have begun
JPEG_SHARE = 0.25  # of the raw pixels' bytes; photographs take 0.18


def prepare(
    dataset: str,
    out: Path,
    *,
    source: Path | None = None,
    size: int | None = None,
    limit_per_class: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    encoding: str = "raw",
    allow_partial: bool = False,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Store:
    """Prepare a data set as a store at `out` and open it (Sec. 2).

    Every image is decoded to RGB, its shorter side rescaled to `size` pixels (default: the data set's own) and
    the central square cut out; mean image and RGB covariance are taken over train. `limit_per_class` keeps so
    many images of each class in each split, chosen by `seed`. `workers` processes share the work (default: all
    processors), or the workers of the Dask `scheduler` at an address; the store is the same to the byte for any
    number of them. `encoding` of the shards is "raw" or "jpeg". `on_progress(done, total)` counts images;
    `on_note(line)` is told what was found and what it will take.

    Images that cannot be decoded are listed in the manifest with their reasons. More than one in a thousand of
    them, a class of which none is left, and whatever an official data set lacks are errors, unless
    `allow_partial`. Stopped, killed or failed, the same call goes on with the first shard that is not finished.
    Raises ReproError for what the user must mend.

    Workers are spawned: a script that calls this needs `if __name__ == "__main__":`.
    """
    if dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    if encoding not in ENCODINGS:
        raise unknown("--encoding", encoding, ENCODINGS)
    size = DATASETS[dataset].size if size is None else size
    _check_number("--size", size, 8, 1024)
    _check_number("--limit-per-class", limit_per_class, 1)
    _check_number("--workers", workers, 1)
    _check_number("--seed", seed, 0)
    note = on_note or (lambda line: None)
    out = Path(out).resolve()  # `.` has no name to rename to, and a link could not be replaced
    images = DATASETS[dataset].open(None if source is None else Path(source), seed, _Listing(note).count)
    _report(images, allow_partial, note)
    splits = {
        split: _limited(images.splits[split], limit_per_class, seed) for split in SPLITS if split in images.splits
    }
    if not splits.get("train"):
        raise ReproError(
            f"no training images of '{dataset}' in '{source}': name the folder that has them with --source"
        )
    settings = {
        "dataset": dataset,
        "size": size,
        "encoding": encoding,
        "seed": seed,
        "limit_per_class": limit_per_class,
        "versions": _versions(),
    }
    plan = {**settings, "shard_images": SHARD_IMAGES}
    if already_published(out, plan):
        return open_store(out)
    with staging_area(out, plan) as site:
        _check_sums(images, site, allow_partial, note)
        tasks = partial(_tasks, site, splits, size, encoding)
        _make(tasks, splits, site, workers, scheduler, allow_partial, on_progress or (lambda done, total: None), note)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **settings,
            "classes": [asdict(info) for info in images.classes],
            **_assemble(site.store, images.classes, tasks(), size, allow_partial),
        }
        write_manifest(site.store, {**manifest, "fingerprint": fingerprint(manifest)})
    return open_store(out)


def _report(images: Source, allow_partial: bool, note: Callable[[str], None]) -> None:
    for line in images.notes:
        note(line)
    if images.problems:
        if not allow_partial:
            raise ReproError(f"{'; '.join(images.problems)}: mend it, or go on without with --allow-partial")
        for problem in images.problems:
            note(f"{problem}; going on without")


def _check_sums(images: Source, site: StagingArea, allow_partial: bool, note: Callable[[str], None]) -> None:
    """Hold the source's files against the published checksums. A file is summed up once, for it takes minutes."""
    record = site.path / "sums.json"
    sums: dict[str, str] = json.loads(record.read_bytes()) if record.exists() else {}
    for path, expected in images.md5.items():
        state = path.stat()
        file = f"{path.resolve()}, {state.st_size} bytes of {state.st_mtime_ns}"  # fetched again, it is another
        if file not in sums:
            note(f"checking {path.name} ({state.st_size / 1e9:,.1f} GB) against its published MD5")
            with path.open("rb") as content:
                sums[file] = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            atomic.write_json(record, sums)
        problem = f"'{path}' has the MD5 {sums[file]}, the official file {expected}"
        if sums[file] == expected:
            note(f"{path.name} is the official file")
        elif allow_partial:
            note(f"{problem}; going on with it")
        else:
            raise ReproError(f"{problem}: fetch it again, or take it as it is with --allow-partial")


def _tasks(
    site: StagingArea, splits: dict[str, Sequence[ImageReference]], size: int, encoding: str
) -> Iterator[ShardTask]:
    """All tasks, made one by one: together they would hold a reference to every image."""
    for split, references in splits.items():
        for folder in (site.store, site.notes):
            (folder / split).mkdir(exist_ok=True)
        for number, start in enumerate(range(0, len(references), SHARD_IMAGES)):
            chunk = references[start : start + SHARD_IMAGES]
            yield ShardTask(str(site.store), str(site.notes), split, number, chunk, size, encoding)


class _Listing:
    """Counts the files that are found, and says so now and then: an archive of millions takes minutes."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._found = 0
        self._next = time.monotonic() + LISTING_SECONDS

    def count(self) -> None:
        self._found += 1
        if self._found % 1000 == 0 and time.monotonic() >= self._next:
            self._next += LISTING_SECONDS
            self._note(f"listing the images: {self._found:,} files so far")


class _Tally:
    """Counts what is done; too much that cannot be used is an error."""

    def __init__(self, total: int, allow_partial: bool) -> None:
        self.done = 0
        self.total = total
        self._bearable = total if allow_partial else REJECTED_SHARE * total
        self._rejected: list[tuple[int, str, str]] = []

    def add(self, notes: ShardNotes) -> None:
        self.done += len(notes.labels) + len(notes.rejected)
        self._rejected += notes.rejected
        if len(self._rejected) > self._bearable:
            _, name, reason = self._rejected[0]
            raise ReproError(
                f"{len(self._rejected)} of {self.done} images cannot be used, the first is '{name}' ({reason}): mend "
                "or remove them, or go on without them with --allow-partial"
            )


def _make(
    tasks: Callable[[], Iterable[ShardTask]],
    splits: dict[str, Sequence[ImageReference]],
    site: StagingArea,
    workers: int | None,
    scheduler: str | None,
    allow_partial: bool,
    on_progress: Callable[[int, int], None],
    note: Callable[[str], None],
) -> None:
    """Make every shard that is not finished yet."""
    tally = _Tally(sum(len(references) for references in splits.values()), allow_partial)
    room = shards = 0
    for task in tasks():
        notes = read_notes(task)
        if notes:
            tally.add(notes)
        else:
            task.finished.unlink(missing_ok=True)
            shards += 1
            room += _bytes_for(task)
    left = tally.total - tally.done
    _check_room(site, room, note)
    if tally.done:
        note(f"{tally.done:,} images are done already, {left:,} are left")
    workers = min(workers or os.cpu_count() or 1, shards) if left >= POOL_IMAGES else 1
    with dask_pool(scheduler) if scheduler else local_pool(max(workers, 1)) as crew:
        if left >= POOL_IMAGES:
            each = _seconds_for(next(iter(splits.values())), next(iter(tasks())))
            seconds = STARTING + each * left / crew.workers
            note(f"{left:,} images will take about {duration(seconds)} with {crew.workers} at work")
        on_progress(tally.done, tally.total)
        for notes in _made((task for task in tasks() if not task.finished.exists()), crew):
            tally.add(notes)
            on_progress(tally.done, tally.total)


def _made(tasks: Iterable[ShardTask], crew: WorkerPool) -> Iterator[ShardNotes]:
    """The notes of each task when it is finished, in order; as many are under way as the crew can use."""
    under_way: deque[tuple[ShardTask, Future[None]]] = deque()
    for task in tasks:
        under_way.append((task, crew.executor.submit(make_shard, task)))
        if len(under_way) >= crew.ahead:
            yield _finished(*under_way.popleft())
    while under_way:
        yield _finished(*under_way.popleft())


def _finished(task: ShardTask, future: Future[None]) -> ShardNotes:
    future.result()
    return finish(task)


def _bytes_for(task: ShardTask) -> int:
    pixels = 3 * task.size**2
    share = JPEG_SHARE if task.encoding == "jpeg" else 1
    return int(len(task.references) * pixels * share) + 4 * pixels  # the notes hold a sum for each pixel


def _check_room(site: StagingArea, needed: int, note: Callable[[str], None]) -> None:
    free = shutil.disk_usage(site.path).free
    if needed > free:
        raise ReproError(
            f"the store needs {needed / 1e9:,.2f} GB, the disk of '{site.path.parent}' has {free / 1e9:,.2f} GB free: "
            "make room, name another disk with --out, or take less of it with --encoding jpeg or --size"
        )
    note(f"needs {needed / 1e9:,.2f} GB, of {free / 1e9:,.2f} GB free")


def _seconds_for(references: Sequence[ImageReference], task: ShardTask) -> float:
    """How long a worker takes for one of the images, from the time in which this process reads and decodes a few."""
    seconds = 0.0
    for place in np.linspace(0, len(references) - 1, SAMPLE, dtype=int).tolist():
        with suppress(OSError, UndecodableImage):
            _decode(references[place])  # the first one to ask for an image may open a batch of many
            began = time.perf_counter()
            _decode(references[place])
            seconds += time.perf_counter() - began
    return seconds / SAMPLE * (1 + RESAMPLING) + task.size**2 * PER_PIXEL[task.encoding] + PER_IMAGE


def _decode(reference: ImageReference) -> None:
    image = reference.read()
    if isinstance(image, bytes):
        decode(image)


def _assemble(
    root: Path, classes: Sequence[ClassInfo], tasks: Iterable[ShardTask], size: int, allow_partial: bool
) -> dict[str, Any]:
    """Write labels, names and mean image; return the part of the manifest that describes them and the shards."""
    described: dict[str, Any] = {}
    rejected: list[dict[str, str]] = []
    damaged: list[dict[str, str]] = []
    statistics = PixelStatistics(size)
    digest = hashlib.sha256()
    for split, group in groupby(tasks, key=lambda task: task.split):
        labels: list[NDArray[np.int64]] = []
        shards: list[dict[str, Any]] = []
        unused: set[int] = set()

        def names() -> Iterator[str]:
            """Names, one shard after the other; what else the notes say is collected on the way."""
            for task in group:  # noqa: B023
                notes = read_notes(task)
                if notes is None:
                    raise OSError(f"'{task.file}' has gone")
                digest.update(notes.source_sha256.encode())
                labels.append(np.array(notes.labels, np.int64))  # noqa: B023
                shards.extend([asdict(notes.record)] if notes.record else [])  # noqa: B023
                unused.update(label for label, _, _ in notes.rejected)  # noqa: B023
                rejected.extend(_entries(task.split, ((name, reason) for _, name, reason in notes.rejected)))
                damaged.extend(_entries(task.split, notes.damaged))
                if task.split == "train":
                    statistics.merge(read_sums(task))
                yield from notes.names

        names_record = write_names(root, f"{split}/names.jsonl", names())
        for file in (
            set((root / split).glob("*.*")) - {root / shard["file"] for shard in shards} - {root / names_record.file}
        ):
            file.unlink()  # of an earlier call, when there were more images
        all_labels = np.concatenate(labels)
        lost = sorted(unused - set(np.unique(all_labels).tolist()))
        if not len(all_labels) or (lost and not allow_partial):
            raise ReproError(f"of class '{classes[lost[0]].id}' in {split} no image can be decoded")
        described[split] = {
            "images": len(all_labels),
            "labels": asdict(write_array(root, f"{split}/labels.npy", all_labels)),
            "names": asdict(names_record),
            "shards": shards,
        }
    return {
        "splits": described,
        "statistics": {
            "mean": asdict(write_array(root, "mean.npy", statistics.mean())),
            "mean_rgb": statistics.mean_rgb().tolist(),
            "covariance": statistics.covariance().tolist(),
        },
        "rejected": rejected,
        "damaged": damaged,
        "source_fingerprint": digest.hexdigest(),
    }


def _entries(split: str, found: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    return ({"split": split, "name": name, "reason": reason} for name, reason in found)


def _check_number(option: str, value: int | None, least: int, most: int | None = None) -> None:
    if value is not None and (value < least or (most is not None and value > most)):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ReproError(f"{option} is {value}: it must be {bounds}")


def _limited(references: Sequence[ImageReference], limit: int | None, seed: int) -> Sequence[ImageReference]:
    if limit is None:
        return references
    groups: dict[int, list[tuple[str, int]]] = {}
    for place, reference in enumerate(references):
        groups.setdefault(reference.label, []).append((reference.name, place))
    kept = [place for group in groups.values() for place in choose(group, limit, seed)]
    return [references[place] for place in sorted(kept)]


def _versions() -> dict[str, str]:
    """What the pixels depend on."""
    return {
        **{name: version(name) for name in ("numpy", "pillow", "torch", "simplejpeg")},
        "libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
    }
