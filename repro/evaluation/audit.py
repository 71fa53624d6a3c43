"""`repro audit`: published weights evaluated on a store, each error beside the published one.

What agrees here has been prepared, computed and evaluated as elsewhere: the audit checks data preparation, nets and
evaluation without any training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro import atomic
from repro.data.store import SQUASH, ClassInfo, Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.predictions import predict
from repro.models.allocator import keep_freed_memory
from repro.models.devices import find_devices
from repro.models.network import AlexNet
from repro.models.published import PublishedWeights, read_published
from repro.paper.intervals import Interval, error_interval
from repro.paper.published import MODELS, Preprocessing, PublishedResult
from repro.paper.recipes import Augmentation
from repro.paper.targets import MATCH, MISMATCH, NOT_COMPARABLE

DATASET, SPLIT, IMAGES = "ilsvrc2012", "val", 50_000  # what the published errors are about
FILES = ("*.pth", "*.pt", "*.caffemodel", "*.onnx")


@dataclass(frozen=True)
class AuditRow:
    """One error of a published net, as published and as measured.

    Attributes:
        model: name of the net.
        file: name of the file of weights.
        metric: "top1_error" or "top5_error".
        views: number of views that are averaged.
        published: the published error in percent.
        measured: the measured error in percent.
        interval: 95% confidence interval of the measured error.
        verdict: "match", "mismatch" or "not comparable".
        reason: why.
        source: where the error was published.
    """

    model: str
    file: str
    metric: str
    views: int
    published: float
    measured: float
    interval: Interval
    verdict: str
    reason: str
    source: str


def audit(
    paths: Sequence[Path],
    data: Path,
    out: Path,
    classes: tuple[ClassInfo, ...] = (),
    devices: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, list[AuditRow]]:
    """Evaluate published weights on the val split of the store `data`; returns the record's path and its rows.

    `paths` are files of weights or folders of them. Every net that shares a file's layers is evaluated with its own
    preprocessing, and with each number of views that a published error is about: `on_progress` is called with images
    done and images in all of each pass. `classes` are those of weights that do not have ILSVRC-2012's in the order of
    their WordNet ids. The record is `audit.json` in the folder `out`. Raises ReproError for files, a store or classes
    that do not fit, or if the folder is not writable.
    """
    keep_freed_memory()
    store = open_store(data)
    if SPLIT not in store.splits:
        raise ReproError(f"the store '{data}' has no split '{SPLIT}', only {', '.join(store.splits)}")
    store.require_labels([SPLIT], "an audit")
    device = find_devices(devices)[0]
    files = _files(paths)
    atomic.make_folder(out, parents=True)
    atomic.check_writable(out, "the audit")
    rows: list[AuditRow] = []
    for file in files:
        weights = read_published(file, classes=classes)
        net = for_classes(weights, store).to(device).to(memory_format=torch.channels_last)
        # Nets that share their weights differ in their preprocessing alone.
        for model in (each for each in MODELS.values() if each.network == weights.model.network):
            rows += _evaluate(net, replace(weights, model=model), store, device, on_progress)
    path = out / "audit.json"
    atomic.write_json(path, _record(rows, store))
    return path, rows


def _evaluate(
    net: AlexNet,
    weights: PublishedWeights,
    store: Store,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[AuditRow]:
    """Evaluate a net with its preprocessing, once for each number of views that a published error is about."""
    views, split = make_views(weights.model.preprocessing, store, device), store.splits[SPLIT]
    for count in sorted({result.views for result in weights.model.results}):
        predictions = predict([net], views, split, count, on_progress=on_progress)
        for result in (each for each in weights.model.results if each.views == count):
            for metric, guesses in (("top1_error", 1), ("top5_error", 5)):
                published, measured = float(getattr(result, metric)), predictions.error(guesses)
                interval = error_interval(predictions.wrong(guesses), len(split))
                verdict, reason = compare(published, measured, result, weights.model.preprocessing, store)
                yield AuditRow(
                    weights.model.name, weights.file, metric, count, published, measured, interval, verdict, reason,
                    result.source,
                )  # fmt: skip


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return the files of weights among `paths` and below the folders among them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted({file for pattern in FILES for file in path.rglob(pattern)})
            if not inside:
                raise ReproError(f"'{path}' has no files of weights ({', '.join(FILES)}): name a file or its folder")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def make_views(preprocessing: Preprocessing, store: Store, device: torch.device) -> Views:
    """Return the test views of a published net on images of `store`. Raises ReproError if they are too small."""
    if store.size < preprocessing.crop_size:
        raise ReproError(
            f"the store '{store.path}' has images of {store.size} pixels, the net needs {preprocessing.crop_size}: "
            f"prepare it with --size {max(256, preprocessing.image_size)}"
        )
    mean = store.mean
    if preprocessing.mean is not None:
        mean = np.broadcast_to(np.array(preprocessing.mean, np.float32), store.mean.shape).copy()
    # Without the mean's own crops: a published net subtracts the same mean from every view.
    return Views(mean, store.covariance, preprocessing.crop_size, Augmentation(mean_of_patch=False), device)


def for_classes(weights: PublishedWeights, store: Store) -> AlexNet:
    """Return the net with its outputs in the order of the store's classes. Raises ReproError if they differ by id."""
    if not weights.classes:
        raise ReproError(
            f"the order of the classes of '{weights.file}' is not known: add --classes ILSVRC2012_devkit_t12.tar.gz, "
            "or a file with an id in each line"
        )
    places = {info.id: index for index, info in enumerate(weights.classes)}
    missing = [info.id for info in store.classes if info.id not in places]
    if missing or len(store.classes) != len(places):
        reason = f"the net has no class '{missing[0]}'" if missing else f"the net has {len(places):,} classes"
        raise ReproError(
            f"the store '{store.path}' has {len(store.classes):,} classes, and {reason}: use the same classes"
        )
    net = weights.build()
    order = torch.tensor([places[info.id] for info in store.classes])
    last = net.get_classifier()
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(parameter[order].clone())
    return net


def compare(
    published: float, measured: float, result: PublishedResult, preprocessing: Preprocessing, store: Store
) -> tuple[str, str]:
    """Return the verdict on a measured error, and why.

    Only errors on all validation images of ILSVRC-2012, prepared as they were for the published error, can be a match.
    """
    images = len(store.splits[SPLIT])
    if store.dataset != DATASET or images != IMAGES:
        return NOT_COMPARABLE, f"measured on {images:,} images of {store.dataset}, published for {DATASET}"
    if preprocessing.resize != store.resize:
        size = preprocessing.image_size
        if preprocessing.resize == SQUASH:
            published_for, found, option = f"whole images squashed to {size}×{size}", "central squares", "squash"
        else:
            published_for, found, option = "central squares", "squashed images", "shorter-side"
        return NOT_COMPARABLE, (
            f"published for {published_for}, the store has {found}: prepare one with --size {size} --resize {option}"
        )
    if store.size != preprocessing.image_size:
        return NOT_COMPARABLE, f"measured on images of {store.size} pixels, published for {preprocessing.image_size}"
    difference = measured - published
    reason = f"{difference:+.3f} points from the published error; tolerance {result.tolerance:g}"
    matches = math.isfinite(difference) and abs(difference) <= result.tolerance + 1e-9
    return (MATCH if matches else MISMATCH), reason


def _record(rows: Sequence[AuditRow], store: Store) -> dict[str, Any]:
    return {
        "format": 1,
        "data": {"dataset": store.dataset, "fingerprint": store.fingerprint, "images": len(store.splits[SPLIT])},
        "rows": [asdict(row) for row in rows],
    }
