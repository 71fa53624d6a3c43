"""Submissions to the challenge's server, which scores predictions on the test images whose labels are private (Sec. 6).

A submission is a text file with a line per image, in the order of the images' numbers: the numbers of the five most
probable classes, the most probable first. Classes are numbered from 1 as in the development kit (`ILSVRC2012_ID`),
which is not the order of the labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro import atomic
from repro.data.store import Split, Store, open_store
from repro.errors import ReproError
from repro.evaluation.classifiers import effective_views
from repro.evaluation.evaluate import check_folder, evaluation_folder, open_models, other_store, predict_average
from repro.evaluation.predictions import BATCH
from repro.evaluation.replicas import replica_devices
from repro.records.file_names import submission_name


def is_unlabelled(data: Path, split: str) -> bool:
    """Return whether the store `data` has the split, without labels: its predictions can only be submitted."""
    splits = open_store(data).splits
    return split in splits and not splits[split].labelled


def submit(
    paths: Sequence[Path],
    data: Path,
    split: str = "test",
    views: int = 10,
    devices: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    searched: bool = False,
    batch_size: int = BATCH,
) -> Path:
    """Write the submission of a run, or of the average of several, on a split without labels; return its path.

    The arguments are those of `evaluate`, and so is the folder. Raises ReproError for runs, data or a split that do not
    fit, if the store does not hold the challenge's class numbers, or if an image is missing.
    """
    store = open_store(data)
    numbers = class_numbers(store)
    replicas = replica_devices(devices)
    models = open_models(paths, store, split, replicas[0], searched)
    views = effective_views(models, views)
    order = image_order(store.splits[split], store)
    check_folder(models, "the submission", len(store.splits[split]))
    predictions, _ = predict_average(models, store, split, views, searched, batch_size, on_progress, replicas)
    path = evaluation_folder(models) / submission_name(split, views, searched, other_store(models, store))
    atomic.make_folder(path.parent)
    atomic.write(path, submission(numbers[predictions.top5[order]]).encode("ascii"))
    return path


def submission(guesses: NDArray[np.int64]) -> str:
    """Return the lines of class numbers [N, 5]."""
    return "".join(f"{' '.join(map(str, row))}\n" for row in guesses.tolist())


def class_numbers(store: Store) -> NDArray[np.int64]:
    """Return the challenge's number of each class of `store`, int64 [classes].

    Raises ReproError if the store does not hold them.
    """
    numbers = store.manifest.get("class_numbers")
    if not numbers:
        raise ReproError(
            f"the store '{store.path}' lacks the challenge's class numbers: prepare a new store with the development "
            "kit ILSVRC2012_devkit_t12.tar.gz in the folder of --source"
        )
    count = len(store.classes)
    if sorted(numbers) != list(range(1, count + 1)):
        raise ReproError(f"the store '{store.path}' has class numbers other than 1 to {count:,}: prepare a new store")
    return np.array(numbers, np.int64)


def image_order(split: Split, store: Store) -> NDArray[np.int64]:
    """Return the positions of the images in the order of their numbers, int64 [N].

    Raises ReproError if the numbers are not 1 to N: the server knows an image by its line.
    """
    found = [re.search(r"_(\d{8})\.\w+$", name) for name in split.iter_names()]
    numbers = np.array([int(match[1]) if match else 0 for match in found], np.int64)
    order = np.argsort(numbers, kind="stable")
    wrong = np.flatnonzero(numbers[order] != np.arange(1, len(numbers) + 1))
    if len(wrong):
        raise ReproError(
            f"the store '{store.path}' lacks test image {wrong[0] + 1:,}, and line n of a submission is for image n: "
            "prepare a new store of all images"
        )
    return order
