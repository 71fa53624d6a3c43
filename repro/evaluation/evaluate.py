"""`repro evaluate`: errors of a trained net, or of several with averaged softmax outputs (Sec. 2, 4.1, 6)."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from repro import atomic
from repro.data.store import Store, open_store
from repro.errors import ReproError
from repro.evaluation.classifiers import Classifier, effective_views, open_classifier
from repro.evaluation.command_lines import command_line, evaluate_argv
from repro.evaluation.ensemble_weights import search_weights
from repro.evaluation.predictions import BATCH, Predictions, predict
from repro.evaluation.replicas import replica_devices
from repro.evaluation.trained_model import TrainedModel
from repro.models.allocator import keep_freed_memory
from repro.paper.intervals import error_interval
from repro.provenance import current_provenance, data_record
from repro.records.file_names import evaluation_name, predictions_name, run_name
from repro.records.runs import Run
from repro.records.schema import NET, DataRecord, EvaluationRecord
from repro.records.writing import write_record

SEARCHED_ON = "val"
PREDICTION_BYTES = 8 + 5 * (8 + 4) + 4  # of an image: label, five classes with probabilities, the label's probability
SELECTED_ON_THESE = "the weights were selected on these very images: on others the errors would be higher"

Progress = Callable[[int, int], None]


def evaluate(
    paths: Sequence[Path],
    data: Path,
    split: str = "val",
    views: int = 10,
    devices: str | None = None,
    on_progress: Progress | None = None,
    searched: bool = False,
    batch_size: int = BATCH,
) -> tuple[Path, EvaluationRecord]:
    """Evaluate a run, or the average of several, on a split of the store `data`; return the record's path and contents.

    A run's files go into its folder, an average's into a separate folder beside the first run. Softmax outputs are
    averaged over 1 or 10 `views` and over the runs, in float32 whatever precision they were trained in. A baseline
    sees each image as a whole: alone it has one view. With `searched` the runs' weights in the average are first
    searched on the val split with as many views. `on_progress` is called with images done and images in all.
    `batch_size` images are computed at once; it changes the results by rounding only. Each of `devices`, names
    separated by commas, has a replica of the nets and computes every n-th batch.

    A store that the runs were not trained on must have the same classes by id; its record names another dataset, so
    that no claim is compared with it, and its files name the store. Raises ReproError for runs, data or a split that
    do not fit, or if the folder is not writable; of a split without labels, `repro.evaluation.submission` writes the
    predictions.
    """
    store = open_store(data)
    replicas = replica_devices(devices)
    models = open_models(paths, store, split, replicas[0], searched)
    store.require_labels([split], "an evaluation")
    views = effective_views(models, views)
    check_folder(models, "the evaluation", len(store.splits[split]))
    predictions, weights = predict_average(models, store, split, views, searched, batch_size, on_progress, replicas)
    command = command_line(evaluate_argv(paths, data, split, views, searched))
    record = _record(models, store, split, views, predictions, weights, command)
    name = evaluation_name(split, views, searched, other_store(models, store))
    return _write(evaluation_folder(models) / name, record, predictions), record


def open_models(
    paths: Sequence[Path], store: Store, split: str, device: torch.device, searched: bool
) -> list[Classifier]:
    """Open the runs of an average on `device`, with their outputs in the order of the classes of `store`.

    Raises ReproError for runs, a store or a split that do not fit.
    """
    keep_freed_memory()
    if searched and len(paths) == 1:
        raise ReproError("--search-weights is about the average of several runs: name at least two")
    models = [open_classifier(path, str(device), store) for path in paths]
    for model in models:
        model.check_store(store, (split, SEARCHED_ON) if searched else (split,), same=False)
    if searched:
        store.require_labels([SEARCHED_ON], "--search-weights")
    check_members(models)
    return [model.in_order_of(store) for model in models]


def other_store(models: Sequence[Classifier], store: Store) -> str:
    """Return a name for `store` in file names; empty if it is the one that all models were trained on."""
    if all(model.run.data.fingerprint == store.fingerprint for model in models):
        return ""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", store.path.resolve().name).strip("-")
    return f"{name}-{store.fingerprint[:8]}"


def _data_record(models: Sequence[Classifier], store: Store) -> DataRecord:
    """Return the record of `store`; of another than the models were trained on, as a dataset that no claim is about."""
    record = data_record(store)
    if not other_store(models, store):
        return record
    trained_on = " and ".join(dict.fromkeys(model.run.data.dataset for model in models))
    return replace(record, dataset=f"{store.dataset}, trained on {trained_on}")


def check_members(models: Sequence[Classifier]) -> None:
    """Raise ReproError if models differ in scale or nets in recipe, or if two of them have the same weights."""
    first = _first(models)
    found: dict[str, Path] = {}
    for model in models:
        run = model.run
        for key in ("recipe", "scale") if run.kind == NET else ("scale",):
            if getattr(run, key) != getattr(first, key):
                raise ReproError(f"'{run.folder}' and '{first.folder}' differ in their {key}: average runs that agree")
        other = found.setdefault(model.checksum, run.folder)
        if other is not run.folder:
            same = "the same run is named twice" if os.path.samefile(other, run.folder) else "two runs are copies"
            raise ReproError(
                f"{same}: '{other}' and '{run.folder}' have the same weights, and each member of an average counts once"
            )


def _first(models: Sequence[Classifier]) -> Run:
    """Return the run whose recipe is that of the average: the first of a net, if there is one."""
    return next((model.run for model in models if model.run.kind == NET), models[0].run)


def evaluation_folder(models: Sequence[Classifier]) -> Path:
    """Return the folder of an evaluation: the run's, or for several a folder beside the first.

    The name of the latter has the runs' seeds. It also has a checksum of the set of their weights, unless they are
    runs with default names in the same folder, which the seeds identify.
    """
    runs = [model.run for model in models]
    first = _first(models)
    if len(runs) == 1:
        return first.folder
    name = run_name(variants_of(models), first.recipe, first.scale, [run.seed for run in runs])
    parent = os.path.abspath(runs[0].folder.parent)
    default = [os.path.join(parent, run_name(run.variant, run.recipe, run.scale, [run.seed])) for run in runs]
    if [os.path.abspath(run.folder) for run in runs] != default:
        checksums = "\n".join(sorted(model.checksum for model in models))
        name += f"-{hashlib.sha256(checksums.encode()).hexdigest()[:8]}"
    return runs[0].folder.parent / name


def check_folder(models: Sequence[Classifier], what: str, images: int) -> None:
    """Raise ReproError if predictions for `images` images cannot be written to the folder of an evaluation."""
    folder = evaluation_folder(models)
    size = atomic.RECORD_BYTES + PREDICTION_BYTES * images
    atomic.check_writable(folder if folder.exists() else folder.parent, what, size)


def variants_of(models: Sequence[Classifier]) -> str:
    """Return the names of the models' variants, each once, joined by "+"."""
    return "+".join(dict.fromkeys(model.run.variant for model in models))


def predict_average(
    models: Sequence[Classifier],
    store: Store,
    split: str,
    views: int,
    searched: bool,
    batch_size: int,
    on_progress: Progress | None,
    devices: Sequence[torch.device],
) -> tuple[Predictions, NDArray[np.float64] | None]:
    """Return the predictions of the averaged models, and their weights in the average, None for equal ones.

    The models are on the first of `devices`, which share the work.
    """
    nets = [model.net if isinstance(model, TrainedModel) else model.model for model in models]
    preprocessing = [model.views(store) if isinstance(model, TrainedModel) else None for model in models]
    searched_images = len(store.splits[SEARCHED_ON]) if searched else 0
    total = searched_images + len(store.splits[split])

    def progress_from(before: int) -> Progress:
        return lambda done, _: on_progress(before + done, total) if on_progress else None

    weights = None
    if searched:
        weights = search_weights(
            nets, preprocessing, store.splits[SEARCHED_ON], views, progress_from(0), batch_size, devices
        )
    predictions = predict(
        nets,
        preprocessing,
        store.splits[split],
        views,
        on_progress=progress_from(searched_images),
        weights=weights,
        batch_size=batch_size,
        devices=devices,
    )
    return predictions, weights


def _record(
    models: Sequence[Classifier],
    store: Store,
    split: str,
    views: int,
    predictions: Predictions,
    weights: NDArray[np.float64] | None,
    command: str,
) -> EvaluationRecord:
    first, searched = _first(models), weights is not None
    return EvaluationRecord(
        runs=tuple(model.run.folder.name for model in models),
        checksums=tuple(model.checksum for model in models),
        variant=variants_of(models),
        recipe=first.recipe,
        scale=first.scale,
        seeds=tuple(model.run.seed for model in models),
        data=_data_record(models, store),
        split=split,
        views=views,
        images=len(predictions.labels),
        classes=len(store.classes),
        top1_error=predictions.error(1),
        top5_error=predictions.error(5),
        top1_interval=error_interval(predictions.wrong(1), len(predictions.labels)),
        top5_interval=error_interval(predictions.wrong(5), len(predictions.labels)),
        weights=() if weights is None else tuple(weights.tolist()),
        weights_selected_on=SEARCHED_ON if searched else "",
        # A search on the images that are evaluated makes their error look lower.
        note=SELECTED_ON_THESE if searched and split == SEARCHED_ON else "",
        predictions=predictions_name(split, views, searched, other_store(models, store)),
        command=command,
        **vars(current_provenance()),
    )


def _write(path: Path, record: EvaluationRecord, predictions: Predictions) -> Path:
    """Write the predictions, then the evaluation at `path`, whose record names them."""
    folder = path.parent
    atomic.make_folder(folder)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(predictions))
    atomic.write(folder / record.predictions, buffer.getvalue())
    write_record(path, record)
    return path
