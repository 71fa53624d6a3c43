"""From finished shards to a complete store: labels, names, mean image, and the manifest's description of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.data.statistics import PixelStatistics
from repro.data.store import UNLABELLED, ClassInfo, FileRecord, ShardRecord
from repro.errors import ReproError
from repro.preparation.formats import first_few
from repro.preparation.shards import ShardNotes, ShardTask, read_notes, read_sums
from repro.preparation.store_writing import NamesWriter, write_array


@dataclass
class SplitSummary:
    """What is known of one split from the notes on its shards, apart from the names of its images."""

    split: str
    shards: list[ShardRecord] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)  # entries of the manifest
    damaged: list[dict[str, str]] = field(default_factory=list)
    rejected_labels: set[int] = field(default_factory=set)
    _labels: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, notes: ShardNotes) -> None:
        """Add the next shard."""
        self._labels.append(np.array(notes.labels, np.int64))
        if notes.record:
            self.shards.append(notes.record)
        self.rejected_labels.update(label for label, _, _ in notes.rejected)
        self.rejected += self._entries((name, reason) for _, name, reason in notes.rejected)
        self.damaged += self._entries(notes.damaged)

    def labels(self) -> NDArray[np.int64]:
        """Return the label of each image, int64 [N]."""
        return np.concatenate(self._labels)

    def lost_classes(self) -> list[int]:
        """Return the labels of the classes whose images have all been rejected."""
        return sorted(self.rejected_labels - {UNLABELLED} - set(np.unique(self.labels()).tolist()))

    def _entries(self, images: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
        return ({"split": self.split, "name": name, "reason": reason} for name, reason in images)


def assemble(
    root: Path, classes: Sequence[ClassInfo], tasks: Iterable[ShardTask], size: int, allow_partial: bool
) -> dict[str, Any]:
    """Write labels, names and mean image of the store at `root`; return the part of the manifest about its contents.

    `tasks` are all tasks of the store, grouped by split, and all of them are finished. Raises ReproError if a split
    has no images left, or, without `allow_partial`, a class.
    """
    splits: dict[str, Any] = {}
    rejected: list[dict[str, str]] = []
    damaged: list[dict[str, str]] = []
    statistics = PixelStatistics(size)
    source_digest = hashlib.sha256()
    for split, group in groupby(tasks, key=lambda task: task.split):
        summary = SplitSummary(split)
        with NamesWriter(root, f"{split}/names.jsonl") as names:
            for task in group:
                notes = read_notes(task)
                if notes is None:
                    raise OSError(f"the shard '{task.file}' has been removed or changed")
                summary.add(notes)
                names.write(notes.names)
                source_digest.update(notes.source_digest.encode())
                if split == "train":  # Sec. 2: the statistics are those of the training set
                    statistics.merge(read_sums(task))
        _check_classes(summary, classes, allow_partial)
        _remove_surplus_files(root, summary, names.record)
        splits[split] = _write_split(root, summary, names.record)
        rejected += summary.rejected
        damaged += summary.damaged
    return {
        "splits": splits,
        "statistics": {
            "mean": asdict(write_array(root, "mean.npy", statistics.mean())),
            "mean_rgb": statistics.mean_rgb().tolist(),
            "covariance": statistics.covariance().tolist(),
        },
        "rejected": rejected,
        "damaged": damaged,
        "source_fingerprint": source_digest.hexdigest(),
    }


def _check_classes(summary: SplitSummary, classes: Sequence[ClassInfo], allow_partial: bool) -> None:
    lost = [classes[label].id for label in summary.lost_classes()]
    if not summary.shards and not lost:  # a split without labels
        raise ReproError(f"no image in {summary.split} can be decoded")
    if not summary.shards or (lost and not allow_partial):
        kind = "class" if len(lost) == 1 else "classes"
        raise ReproError(f"no image of {kind} {first_few(lost)} in {summary.split} can be decoded")


def _remove_surplus_files(root: Path, summary: SplitSummary, names: FileRecord) -> None:
    """Remove the shards of an earlier call that listed more images."""
    listed = {root / names.file, *(root / shard.file for shard in summary.shards)}
    for file in set((root / summary.split).glob("*.*")) - listed:
        file.unlink()


def _write_split(root: Path, summary: SplitSummary, names: FileRecord) -> dict[str, Any]:
    labels = summary.labels()
    return {
        "images": len(labels),
        "labels": asdict(write_array(root, f"{summary.split}/labels.npy", labels)),
        "names": asdict(names),
        "shards": [asdict(shard) for shard in summary.shards],
    }
