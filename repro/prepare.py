"""`repro prepare`: from the images of a data set to a store that training reads."""

from __future__ import annotations

import difflib
import hashlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features

from repro import atomic
from repro.data.pixels import UndecodableImage, to_square
from repro.data.sources.cifar10 import cifar10
from repro.data.sources.folder import folder
from repro.data.sources.source import ImageReference, Source, by_class, choose
from repro.data.sources.synthetic import synthetic
from repro.data.statistics import PixelStatistics
from repro.data.store import (
    FORMAT,
    SPLITS,
    VERSION,
    ShardRecord,
    Store,
    fingerprint,
    open_store,
    write_array,
    write_manifest,
    write_names,
)
from repro.errors import ReproError

SHARD_IMAGES = 512  # 100 MB of 256×256: what a worker holds in memory, and what is lost when one is stopped
POOL_IMAGES = 1000  # fewer are done sooner than worker processes have started
REJECTED_SHARE = 0.001  # more undecodable images than this mean that something is wrong with the data


@dataclass(frozen=True)
class Dataset:
    """A data set that can be prepared."""

    description: str
    get: str  # how to come by it
    layout: str  # what --source expects
    used_for: str  # what the paper used it for
    size: int  # default side of the prepared images, pixels
    open: Callable[[Path | None, int], Source]  # lists the images, given --source and --seed


DATASETS: dict[str, Dataset] = {
    "folder": Dataset(
        description="your own images, one folder a class",
        get="yours",
        layout="train/CLASS/*.jpg with val/ and test/ beside train/; or CLASS/*.jpg, and one in ten becomes val",
        used_for="the paper's pipeline on any images; Sec. 2 for the preprocessing",
        size=256,
        open=folder,
    ),
    "cifar10": Dataset(
        description="CIFAR-10: 50,000 training and 10,000 test images of 32×32 in ten classes; no val",
        get="downloaded when --source is left out (170 MB), or https://www.cs.toronto.edu/~kriz/cifar.html",
        layout="cifar-10-batches-py/ (or the folder that holds it); or train/CLASS/*.png and test/CLASS/*.png",
        used_for="Figure 1 (training error, ReLU against tanh); Sec. 3.3 (LRN: 11% test error, 13% without)",
        size=32,
        open=cifar10,
    ),
    "synthetic": Dataset(
        description="built in: textures in ten classes that differ in orientation, frequency and colour",
        get="generated from --seed: 3,000 training, 600 validation and 600 test images",
        layout="none: leave out --source",
        used_for="not in the paper; the whole pipeline in minutes, with filters like those of Figure 3",
        size=64,
        open=synthetic,
    ),
}


def prepare(
    dataset: str,
    out: Path,
    *,
    source: Path | None = None,
    size: int | None = None,
    limit_per_class: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Prepare a data set as a store at `out` and open it (Sec. 2).

    Every image is decoded to RGB, its shorter side rescaled to `size` pixels (default: the data set's own) and
    the central square cut out; mean image and RGB covariance are taken over train. `limit_per_class` keeps so
    many images of each class in each split, chosen by `seed`. `workers` processes share the work (default: all
    processors); the store is the same to the byte for any number of them. `on_progress(done, total)` counts
    images.

    Images that cannot be decoded are listed in the manifest with their reasons. More than one in a thousand of
    them, or a class of which none is left, is an error. On any error nothing stays behind at `out`. Raises
    ReproError for what the user must mend.

    Workers are spawned: a script that calls this needs `if __name__ == "__main__":`.
    """
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3, cutoff=0.5) or DATASETS
        raise ReproError(f"unknown data set '{dataset}': did you mean {' or '.join(near)}?")
    size = DATASETS[dataset].size if size is None else size
    _check_number("--size", size, 8, 1024)
    _check_number("--limit-per-class", limit_per_class, 1)
    _check_number("--workers", workers, 1)
    _check_number("--seed", seed, 0)
    out = Path(out).resolve()  # `.` has no name to rename to, and a link could not be replaced
    _check_vacant(out)
    images = DATASETS[dataset].open(None if source is None else Path(source), seed)
    splits = {
        split: _limited(images.splits[split], limit_per_class, seed) for split in SPLITS if split in images.splits
    }
    with _building(out) as building:
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "dataset": dataset,
            "size": size,
            "seed": seed,
            "limit_per_class": limit_per_class,
            "classes": [asdict(info) for info in images.classes],
            **_write_splits(building, images, splits, size, workers, on_progress),
            "versions": _versions(),
        }
        write_manifest(building, {**manifest, "fingerprint": fingerprint(manifest)})
    return open_store(out)


@dataclass(frozen=True)
class _ShardTask:
    """The unit of work: some images of one split, to become one file. It runs anywhere that sees the disk."""

    root: Path
    file: str
    references: Sequence[ImageReference]
    size: int
    statistics: bool


@dataclass(frozen=True)
class _ShardResult:
    record: ShardRecord | None  # None if no image could be decoded
    labels: list[int]
    names: list[str]
    rejected: list[tuple[str, str]]  # name, reason
    source_sha256: str  # of names, labels and encoded images, rejected ones too
    statistics: PixelStatistics | None


def _make_shard(task: _ShardTask) -> _ShardResult:
    pixels = np.empty((len(task.references), task.size, task.size, 3), np.uint8)
    labels: list[int] = []
    names: list[str] = []
    rejected: list[tuple[str, str]] = []
    digest = hashlib.sha256()
    for reference in task.references:
        digest.update(f"{reference.label} {reference.name}\n".encode(errors="surrogateescape"))
        try:
            image = reference.read()
            digest.update(hashlib.sha256(image if isinstance(image, bytes) else image.tobytes()).digest())
            pixels[len(labels)] = to_square(image, task.size)
        except OSError as error:
            rejected.append((reference.name, f"cannot be read: {error.strerror or error}"))
        except UndecodableImage as error:
            rejected.append((reference.name, str(error)))
        else:
            labels.append(reference.label)
            names.append(reference.name)
    pixels = pixels[: len(labels)]
    statistics = None
    if task.statistics:
        statistics = PixelStatistics(task.size)
        statistics.add(pixels)
    record = None
    if labels:
        record = ShardRecord(**asdict(write_array(task.root, task.file, pixels)), images=len(labels))
    return _ShardResult(record, labels, names, rejected, digest.hexdigest(), statistics)


def _write_splits(
    root: Path,
    source: Source,
    splits: dict[str, list[ImageReference]],
    size: int,
    workers: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write shards, labels, names and statistics; return the part of the manifest that describes them."""
    tasks: list[tuple[str, _ShardTask]] = []
    for split, references in splits.items():
        (root / split).mkdir()
        for number, start in enumerate(range(0, len(references), SHARD_IMAGES)):
            file = f"{split}/{number:05}.npy"
            chunk = references[start : start + SHARD_IMAGES]
            tasks.append((split, _ShardTask(root, file, chunk, size, statistics=split == "train")))

    total = sum(len(references) for references in splits.values())
    done = 0
    statistics = PixelStatistics(size)
    digest = hashlib.sha256()
    rejected: list[dict[str, str]] = []
    results: dict[str, list[_ShardResult]] = {split: [] for split in splits}
    for (split, task), result in zip(tasks, _run([task for _, task in tasks], total, workers), strict=True):
        results[split].append(result)
        digest.update(result.source_sha256.encode())
        rejected += [{"split": split, "name": name, "reason": reason} for name, reason in result.rejected]
        if result.statistics:
            statistics.merge(result.statistics)
        done += len(task.references)
        if len(rejected) > REJECTED_SHARE * total:
            raise ReproError(
                f"{len(rejected)} of {done} images cannot be used, the first is '{rejected[0]['name']}' "
                f"({rejected[0]['reason']}): mend or remove them"
            )
        if on_progress:
            on_progress(done, total)

    described: dict[str, Any] = {}
    for split, parts in results.items():
        labels = np.array([label for part in parts for label in part.labels], np.int64)
        _check_classes_left(source, split, splits[split], labels)
        described[split] = {
            "images": len(labels),
            "labels": asdict(write_array(root, f"{split}/labels.npy", labels)),
            "names": asdict(write_names(root, f"{split}/names.jsonl", (name for part in parts for name in part.names))),
            "shards": [asdict(part.record) for part in parts if part.record],
        }
    return {
        "splits": described,
        "statistics": {
            "mean": asdict(write_array(root, "mean.npy", statistics.mean())),
            "mean_rgb": statistics.mean_rgb().tolist(),
            "covariance": statistics.covariance().tolist(),
        },
        "rejected": rejected,
        "source_fingerprint": digest.hexdigest(),
    }


def _run(tasks: list[_ShardTask], images: int, workers: int | None) -> Iterator[_ShardResult]:
    """Results in the order of the tasks, from this process or from a pool."""
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers == 1 or images < POOL_IMAGES:
        yield from map(_make_shard, tasks)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)
    try:
        yield from pool.map(_make_shard, tasks)
    except BrokenProcessPool as error:
        raise ReproError(f"a worker was killed, perhaps for want of memory: try --workers {workers // 2}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which stops the pool


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place if all goes well, and vanishes if not."""
    building = out.with_name(f".{out.name}.{os.getpid()}.partial")
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        building.mkdir(parents=True)
        yield building
        building.rename(out)
        atomic.sync_folder(out.parent)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise ReproError(f"cannot write the store '{out}': {error.strerror or error}") from error
        raise


def _check_vacant(out: Path) -> None:
    try:
        vacant = not any(out.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ReproError(f"cannot write the store '{out}': {error.strerror}") from error
    if not vacant:
        raise ReproError(f"'{out}' is not empty: remove it, or name another folder with --out")


def _check_classes_left(source: Source, split: str, wanted: Sequence[ImageReference], labels: Any) -> None:
    for label in sorted({reference.label for reference in wanted} - set(labels.tolist())):
        raise ReproError(f"of class '{source.classes[label].id}' in {split} no image can be decoded")


def _check_number(option: str, value: int | None, least: int, most: int | None = None) -> None:
    if value is not None and (value < least or (most is not None and value > most)):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ReproError(f"{option} is {value}: it must be {bounds}")


def _limited(references: Sequence[ImageReference], limit: int | None, seed: int) -> list[ImageReference]:
    if limit is None:
        return list(references)
    kept: set[str] = set()
    for group in by_class(references).values():
        kept |= choose(group, limit, seed)
    return [reference for reference in references if reference.name in kept]


def _versions() -> dict[str, str]:
    """What the pixels depend on."""
    return {
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
    }
