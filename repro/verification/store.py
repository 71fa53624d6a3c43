"""Check that a store is undamaged: the part of `repro verify` for stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from repro.data.checksums import TITLES, file_checksum
from repro.data.statistics import PixelStatistics
from repro.data.store import UNLABELLED, ShardRecord, Split, Store, file_records, open_store


def verify_store(path: Path, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Check all files of the store at `path`; return its problems, lines that name the file.

    Every file is hashed; if all checksums match, counts, labels and statistics are computed again.
    `on_progress(done, total)` receives numbers of bytes. Raises ReproError if there is no store at `path`.
    """
    store = open_store(path)
    return _check_hashes(store, on_progress) or [*_check_counts(store), *_check_statistics(store)]


def _check_hashes(store: Store, on_progress: Callable[[int, int], None] | None) -> list[str]:
    problems = []
    algorithm = store.checksum_algorithm
    records = list(file_records(store.manifest))
    done, total = 0, sum(record.bytes for record in records)
    if on_progress:
        on_progress(done, total)
    for record in records:
        found = file_checksum(store.path / record.file, algorithm)
        if found != record.checksum:
            kind = "shard" if isinstance(record, ShardRecord) else "file"
            problems.append(f"{kind} {record.file}: its {TITLES[algorithm]} is {found} instead of {record.checksum}")
        done += record.bytes
        if on_progress:
            on_progress(done, total)
    if store.fingerprint != store.manifest.get("fingerprint"):
        problems.append("manifest.json: its fingerprint does not match its contents")
    return problems


def _check_counts(store: Store) -> list[str]:
    problems = []
    for name, split in store.splits.items():
        counts = {
            "images in the manifest": store.manifest["splits"][name].get("images"),
            "images in shards": len(split),
            "names": sum(1 for _ in split.iter_names()),
        }
        if len(set(counts.values())) > 1:
            problems.append(f"{name}: counts differ: {', '.join(f'{n} {what}' for what, n in counts.items())}")
        problems += _check_labels(name, split, len(store.classes))
    return problems


def _check_labels(name: str, split: Split, classes: int) -> list[str]:
    """Check that all images have a label, or none of val or of test."""
    missing = int((split.labels == UNLABELLED).sum())
    if missing == len(split) and name != "train":
        return []
    if missing:
        return [f"{name}: {missing:,} of {len(split):,} images have no label"]
    outside = split.labels.min() < 0 or split.labels.max() >= classes
    return [f"{name}: a label is outside 0…{classes - 1}"] if outside else []


def _check_statistics(store: Store) -> list[str]:
    statistics = PixelStatistics(store.size)
    train = store.splits["train"]
    for number in range(len(train.shards)):
        statistics.add(train.shard(number))
    expected: dict[str, tuple[Any, Any]] = {
        "mean image": (store.mean, statistics.mean()),
        "mean RGB": (store.mean_rgb, statistics.mean_rgb()),
        "RGB covariance": (store.covariance, statistics.covariance()),
    }
    return [
        f"statistics: the {name} differs from that of the training images"
        for name, (stored, found) in expected.items()
        if not np.array_equal(stored, found)
    ]
