"""`repro evaluate`: the errors of a trained net, or of several with averaged softmax outputs (Sec. 2, 4.1, 6)."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from repro import atomic, runs
from repro.data.store import Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.memory import keep_freed_memory
from repro.models.device import find_devices
from repro.models.network import AlexNet
from repro.models.towers import place
from repro.paper.statistics import error_interval
from repro.paper.variants import configure
from repro.predictions import Predictions, predict

FORMAT = 1


def evaluate(
    paths: Sequence[Path],
    data: Path,
    split: str = "val",
    views: int = 10,
    devices: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Evaluate one run, or the average of several; returns the evaluation file's path and its contents.

    Of one run the files go into its folder; of several, into a folder of their own beside the first. Computed
    in float32 whatever the training's precision. Raises ReproError for runs, data or a split that do not fit.
    """
    keep_freed_memory()
    members = [runs.open_run(path) for path in paths]
    store = open_store(data)
    _check(members, store, split)
    first = members[0].record
    places = find_devices(devices)
    models = [place(load_model(run), places) for run in members]
    configuration = configure(first["variant"], first["recipe"], first["scale"], len(store.classes))
    crop, augmentation = configuration.scale.crop_size, configuration.recipe.augmentation
    maker = Views(store.mean, store.covariance, crop, augmentation, places[0])
    predictions = predict(models, maker, store.splits[split], views, on_progress=on_progress)
    seeds = [run.record["seed"] for run in members]
    nets = "+".join(dict.fromkeys(run.record["variant"] for run in members))
    folder = members[0].path
    if len(members) > 1:
        folder = folder.parent / runs.run_name(nets, first["recipe"], first["scale"], seeds)
    record = {
        "format": FORMAT,
        "runs": [run.path.name for run in members],
        "variant": nets,
        "recipe": first["recipe"],
        "scale": first["scale"],
        "seeds": seeds,
        "data": runs.data_record(store),
        "split": split,
        "views": views,
        "images": len(predictions.labels),
        "classes": len(store.classes),
        "top1_error": predictions.error(1),
        "top5_error": predictions.error(5),
        "top1_interval": error_interval(predictions.wrong(1), len(predictions.labels)),
        "top5_interval": error_interval(predictions.wrong(5), len(predictions.labels)),
        "predictions": f"predictions-{split}-{views}.npz",
        "command": _command(paths, data, split, views),
        **runs.provenance(),
    }
    return _write(folder, record, predictions), record


def load_model(run: runs.Run) -> AlexNet:
    """The trained net of a finished run, on the CPU. Raises ReproError if it is unfinished or damaged."""
    record = run.record
    if not run.weights.exists():
        raise ReproError(f"the run '{run.path}' is not finished: go on with {record['command']} --resume")
    classes = len(record["data"]["classes"])
    model = AlexNet(configure(record["variant"], record["recipe"], record["scale"], classes).network)
    try:
        model.load_state_dict(safetensors.torch.load_file(run.weights))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ReproError(f"the weights '{run.weights}' are damaged ({reason}): train the run again") from error
    return model


def _check(members: Sequence[runs.Run], store: Store, split: str) -> None:
    """Raise ReproError if the runs, the store and the split cannot go together."""
    if split not in store.splits:
        raise ReproError(f"the store '{store.path}' has no split '{split}', only {', '.join(store.splits)}")
    for run in members:
        fingerprint = run.record["data"]["fingerprint"]
        if fingerprint != store.fingerprint:
            raise ReproError(
                f"the run '{run.path}' was trained on other data than '{store.path}' (fingerprint "
                f"{fingerprint[:12]}, not {store.fingerprint[:12]}): name the store '{run.record['data']['path']}'"
            )
        for key in ("recipe", "scale"):
            if run.record[key] != members[0].record[key]:
                raise ReproError(f"'{run.path}' and '{members[0].path}' differ in their {key}: average like with like")
    if len({run.path.resolve() for run in members}) < len(members):
        raise ReproError("the same run is named twice: each member of an average counts once")


def _command(paths: Sequence[Path], data: Path, split: str, views: int) -> str:
    words = ["repro", "evaluate", *map(str, paths), "--data", str(data), "--split", split, "--views", str(views)]
    return shlex.join(words)


def _write(folder: Path, record: dict[str, Any], predictions: Predictions) -> Path:
    """Write the predictions, then the evaluation that names them."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ReproError(f"cannot make the folder '{folder}': {error.strerror}") from error
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(predictions))
    atomic.write(folder / record["predictions"], buffer.getvalue())
    path = folder / f"evaluation-{record['split']}-{record['views']}.json"
    atomic.write_json(path, record)
    return path
