"""Is what a run has written still what is there? The part of `repro verify` that needs torch."""

from __future__ import annotations

import hashlib
import json
import math
import typing
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from repro.errors import ReproError
from repro.evaluation.predictions import Predictions
from repro.models.network import AlexNet
from repro.paper.networks import Layer, Network
from repro.records import EVALUATIONS, RETRIEVALS, Run, RunRecord, read_evaluation, read_retrieval, read_run
from repro.training import checkpoint

LAYERS = {kind.__name__: kind for kind in typing.get_args(Layer)}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


def verify_run(path: Path) -> list[str]:
    """Read all that a run has written, finished or not; return its problems, one line each, naming the file.

    The record spells out its net: weights and checkpoints must have its shapes and finite values, and the checksums
    that they were written with. The log's lines must be whole, an epoch each, none left out. Evaluations must say
    what their predictions for each image say. Raises ReproError if there is no `run.json` to be read.
    """
    run = read_run(path)
    try:
        shapes = _shapes(run)
    except (*UNREADABLE, ArithmeticError, RuntimeError, AttributeError) as error:
        return [f"run.json: it does not spell out a net and its training ({_reason(error)})"]
    log, problems = _check_log(run)
    return [
        *problems,
        *_check_checkpoints(run, shapes, len(log)),
        *_check_weights(run, shapes),
        *check_evaluations(path),
        *_check_retrievals(path),
    ]


def _shapes(record: RunRecord) -> dict[str, torch.Size]:
    """The shape of each parameter of a record's net; any error if the record has not what `verify_run` needs."""
    if record.epochs < 1 or not record.settings["schedule"] or not record.command:
        raise ValueError("epochs, schedule or command")
    layers = [dict(layer) for layer in record.network]
    network = Network(tuple(LAYERS[layer.pop("layer")](**layer) for layer in layers), record.input_size)
    if layers[-1]["units"] != len(record.data.classes):
        raise ValueError(f"{layers[-1]['units']} outputs for {len(record.data.classes)} classes")
    with torch.device("meta"):  # shapes without memory
        return {name: parameter.shape for name, parameter in AlexNet(network).named_parameters()}


def _check_log(run: Run) -> tuple[list[Any], list[str]]:
    """The log's lines, as far as they are right, and what is wrong with it."""
    lines: list[Any] = []
    for line in run.log_path.read_bytes().splitlines(keepends=True) if run.log_path.exists() else []:
        try:
            epoch = json.loads(line)
            number, whole = epoch["epoch"], line.endswith(b"\n") and math.isfinite(epoch["train_top1_error"])
        except UNREADABLE:
            whole = False
        if not whole:
            return lines, [f"log.jsonl: line {len(lines) + 1} is not whole"]
        if number != len(lines) + 1:
            return lines, [f"log.jsonl: line {len(lines) + 1} is of epoch {number}"]
        lines.append(epoch)
    if len(lines) > run.epochs:
        return lines, [f"log.jsonl: it has {len(lines)} epochs, and the run was to have {run.epochs}"]
    if run.finished and not _may_end(run, lines):
        return lines, [f"log.jsonl: it ends after epoch {len(lines)}, and the run is finished"]
    return lines, []


def _may_end(record: RunRecord, log: list[Any]) -> bool:
    """Whether a run's training can be over after the epochs of `log`."""
    if not log:
        return False
    early = "drops" in record.settings["schedule"]  # by the plateau rule, when it has lowered the rate often enough
    until = record.until_train_error
    early |= until is not None and log[-1]["train_top1_error"] <= until
    return early or len(log) == record.epochs


def _check_checkpoints(run: Run, shapes: Mapping[str, torch.Size], logged: int) -> list[str]:
    problems = []
    for path in sorted(run.checkpoints_path.glob("*.json")):
        name = f"checkpoints/{path.name}"
        try:
            saved = checkpoint.load(path)
            known = saved.state["epoch"] - 1
        except (ReproError, *UNREADABLE) as error:
            problems.append(f"{name}: {_reason(error)}")
            continue
        expected = {**shapes, **{f"velocity.{each}": shape for each, shape in shapes.items()}}
        problems += _check_tensors(f"checkpoints/{path.stem}.safetensors", saved.tensors, expected)
        if known > logged:
            problems.append(f"log.jsonl: it has {logged} epochs, {name} knows of {known}")
    return problems


def _check_weights(run: Run, shapes: Mapping[str, torch.Size]) -> list[str]:
    name = run.weights_path.name
    if not run.finished:
        gone = run.checksum_path.exists() and not run.checkpoints_path.exists()
        return [f"{name}: it is missing, and its checksum is there"] if gone else []
    content = run.weights_path.read_bytes()
    if run.checksum_path.exists():
        should = run.checksum_path.read_text(errors="replace").partition(" ")[0]
        found = hashlib.sha256(content).hexdigest()
        if found != should:
            return [f"{name}: its SHA-256 is {found} and should be {should}, says {run.checksum_path.name}"]
    try:
        return _check_tensors(name, safetensors.torch.load(content), shapes)
    except (*UNREADABLE, RuntimeError, safetensors.SafetensorError) as error:
        return [f"{name}: it cannot be read ({_reason(error)})"]


def _check_tensors(file: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    problems = []
    for name in dict.fromkeys((*shapes, *tensors)):
        if name not in shapes or name not in tensors:
            problems.append(f"{file}: {name} is {'missing' if name in shapes else 'not of this net'}")
        elif tensors[name].shape != shapes[name]:
            found, should = list(tensors[name].shape), list(shapes[name])
            problems.append(f"{file}: {name} has the shape {found} and should have {should}")
        elif not tensors[name].isfinite().all():
            problems.append(f"{file}: {name} holds values that are not finite")
    return problems


def check_evaluations(path: Path) -> list[str]:
    """The problems of the evaluations in the folder `path`: each must say what its predictions for each image say."""
    problems = []
    for file in sorted(path.glob(EVALUATIONS)):
        try:
            record = read_evaluation(file)
            stated = {key: float(getattr(record, key)) for key in ("images", "top1_error", "top5_error")}
            kept = record.predictions_path.name
        except UNREADABLE as error:
            problems.append(f"{file.name}: it cannot be read ({_reason(error)})")
            continue
        try:
            predictions = Predictions(**_arrays(path / kept))
            found = (len(predictions.labels), predictions.error(1), predictions.error(5))
        except (*UNREADABLE, ArithmeticError) as error:
            problems.append(f"{kept}: it cannot be read ({_reason(error)})")
            continue
        problems += [
            f"{file.name}: {key} is {should:g}, and {value:g} by {kept}"
            for (key, should), value in zip(stated.items(), found, strict=True)
            if not math.isclose(value, should)
        ]
    return problems


def _check_retrievals(path: Path) -> list[str]:
    problems = []
    for file in sorted(path.glob(RETRIEVALS)):
        name = file.name
        try:
            arrays = read_retrieval(file).arrays_path
            name = arrays.name
            _arrays(arrays)
        except UNREADABLE as error:
            problems.append(f"{name}: it cannot be read ({_reason(error)})")
    return problems


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, each held against its own checksum."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, ReproError) else f"{type(error).__name__} {error}"
    return text.splitlines()[0].strip()
