"""`repro evaluate`: the errors of a trained net, or of several with averaged softmax outputs (Sec. 2, 4.1, 6)."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from repro import atomic
from repro.data.store import Store, open_store
from repro.errors import ReproError
from repro.evaluation.ensemble_weights import search_weights
from repro.evaluation.predictions import Predictions, predict
from repro.evaluation.trained_model import open_run
from repro.models.allocator import keep_freed_memory
from repro.paper.intervals import error_interval
from repro.provenance import current_provenance, data_record
from repro.records import EvaluationRecord, Run, evaluation_name, predictions_name, run_name, write_record

SEARCHED_ON = "val"
SELECTED_ON_THESE = "the weights were selected on these very images: on others the errors would be higher"


def evaluate(
    paths: Sequence[Path],
    data: Path,
    split: str = "val",
    views: int = 10,
    devices: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    searched: bool = False,
) -> tuple[Path, EvaluationRecord]:
    """Evaluate one run, or the average of several; returns the evaluation file's path and its contents.

    Of one run the files go into its folder; of several, into a folder of their own beside the first. Computed
    in float32 whatever the training's precision. `searched`: the members' weights in their average are searched on
    the val split with as many views (`mixing.search`), in a pass over its images that comes before; the files have
    names of their own. Raises ReproError for runs, data or a split that do not fit.
    """
    keep_freed_memory()
    models = [open_run(path, devices) for path in paths]
    members = [model.run for model in models]
    if searched and len(members) == 1:
        raise ReproError("--search-weights is about the average of several runs: name at least two")
    store = open_store(data)
    for needed in dict.fromkeys((split, SEARCHED_ON) if searched else (split,)):
        _check(members, store, needed)
    first = members[0]
    member_nets, maker = [model.net for model in models], models[0].views(store)
    weights, show = None, on_progress
    if searched:
        done, total = len(store.splits[SEARCHED_ON]), len(store.splits[SEARCHED_ON]) + len(store.splits[split])
        weights = search_weights(member_nets, maker, store.splits[SEARCHED_ON], views, _part(on_progress, 0, total))
        show = _part(on_progress, done, total)
    predictions = predict(member_nets, maker, store.splits[split], views, on_progress=show, weights=weights)
    seeds = [run.seed for run in members]
    nets = "+".join(dict.fromkeys(run.variant for run in members))
    folder = first.folder
    if len(members) > 1:
        folder = folder.parent / run_name(nets, first.recipe, first.scale, seeds)
    record = EvaluationRecord(
        runs=tuple(run.folder.name for run in members),
        variant=nets,
        recipe=first.recipe,
        scale=first.scale,
        seeds=tuple(seeds),
        data=data_record(store),
        split=split,
        views=views,
        images=len(predictions.labels),
        classes=len(store.classes),
        top1_error=predictions.error(1),
        top5_error=predictions.error(5),
        top1_interval=error_interval(predictions.wrong(1), len(predictions.labels)),
        top5_interval=error_interval(predictions.wrong(5), len(predictions.labels)),
        weights=() if weights is None else tuple(weights.tolist()),
        weights_selected_on="" if weights is None else SEARCHED_ON,
        # A search on the images that are evaluated makes their error look lower.
        note="" if weights is None or split != SEARCHED_ON else SELECTED_ON_THESE,
        predictions=predictions_name(split, views, searched),
        command=_command(paths, data, split, views, searched),
        **vars(current_provenance()),
    )
    return _write(folder / evaluation_name(split, views, searched), record, predictions), record


def _check(members: Sequence[Run], store: Store, split: str) -> None:
    """Raise ReproError if the runs, the store and the split cannot go together."""
    if split not in store.splits:
        raise ReproError(f"the store '{store.path}' has no split '{split}', only {', '.join(store.splits)}")
    for run in members:
        fingerprint = run.data.fingerprint
        if fingerprint != store.fingerprint:
            raise ReproError(
                f"the run '{run.folder}' was trained on other data than '{store.path}' (fingerprint "
                f"{fingerprint[:12]}, not {store.fingerprint[:12]}): name the store '{run.data.path}'"
            )
        for key in ("recipe", "scale"):
            if getattr(run, key) != getattr(members[0], key):
                raise ReproError(
                    f"'{run.folder}' and '{members[0].folder}' differ in their {key}: average like with like"
                )
    if len({run.folder.resolve() for run in members}) < len(members):
        raise ReproError("the same run is named twice: each member of an average counts once")


def _part(on_progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None]:
    """What is told of a part of the work, as part of the whole: `before` images were done of `total`."""
    return lambda done, _: on_progress(before + done, total) if on_progress else None


def _command(paths: Sequence[Path], data: Path, split: str, views: int, searched: bool) -> str:
    words = ["repro", "evaluate", *map(str, paths), "--data", str(data), "--split", split, "--views", str(views)]
    return shlex.join([*words, *(["--search-weights"] if searched else [])])


def _write(path: Path, record: EvaluationRecord, predictions: Predictions) -> Path:
    """Write the predictions, then the evaluation at `path`, whose record names them."""
    folder = path.parent
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ReproError(f"cannot create the folder '{folder}': {error.strerror}") from error
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(predictions))
    atomic.write(folder / record.predictions, buffer.getvalue())
    write_record(path, record)
    return path
