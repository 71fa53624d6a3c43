"""Check that a run is undamaged: the part of `repro verify` that needs torch."""

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
    """Check all files of the run in `path`, finished or not; return its problems, lines that name the file.

    Weights and checkpoints must have the shapes of the recorded network, finite values and the recorded checksums.
    The log must have a complete line for each epoch. Evaluations must agree with their predictions per image. Raises
    ReproError if `run.json` cannot be read.
    """
    run = read_run(path)
    try:
        shapes = _shapes(run)
    except (*UNREADABLE, ArithmeticError, RuntimeError, AttributeError) as error:
        return [f"run.json: it does not describe a network and its training ({_reason(error)})"]
    log, problems = _check_log(run)
    return [
        *problems,
        *_check_checkpoints(run, shapes, len(log)),
        *_check_weights(run, shapes),
        *check_evaluations(path),
        *_check_retrievals(path),
    ]


def _shapes(record: RunRecord) -> dict[str, torch.Size]:
    """Return the shape of each parameter by name. Raises any error if the record lacks what that requires."""
    if record.epochs < 1 or not record.settings["schedule"] or not record.command:
        raise ValueError("epochs, schedule or command")
    layers = [dict(layer) for layer in record.network]
    network = Network(tuple(LAYERS[layer.pop("layer")](**layer) for layer in layers), record.input_size)
    if layers[-1]["units"] != len(record.data.classes):
        raise ValueError(f"{layers[-1]['units']} outputs for {len(record.data.classes)} classes")
    with torch.device("meta"):  # shapes without memory
        return {name: parameter.shape for name, parameter in AlexNet(network).named_parameters()}


def _check_log(run: Run) -> tuple[list[Any], list[str]]:
    """Return the log's lines up to the first one that is wrong, and the log's problems."""
    lines: list[Any] = []
    for line in run.log_path.read_bytes().splitlines(keepends=True) if run.log_path.exists() else []:
        try:
            epoch = json.loads(line)
            number, complete = epoch["epoch"], line.endswith(b"\n") and math.isfinite(epoch["train_top1_error"])
        except UNREADABLE:
            complete = False
        if not complete:
            return lines, [f"log.jsonl: line {len(lines) + 1} is incomplete"]
        if number != len(lines) + 1:
            return lines, [f"log.jsonl: line {len(lines) + 1} is of epoch {number}"]
        lines.append(epoch)
    if len(lines) > run.epochs:
        return lines, [f"log.jsonl: it has {len(lines)} epochs, more than the run's {run.epochs}"]
    if run.finished and not _may_end(run, lines):
        return lines, [f"log.jsonl: it ends after epoch {len(lines)}, although the run is finished"]
    return lines, []


def _may_end(record: RunRecord, log: list[Any]) -> bool:
    """Return whether training can have ended after the epochs of `log`."""
    if not log:
        return False
    early = "drops" in record.settings["schedule"]  # the plateau rule can end training at any epoch
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
            problems.append(f"log.jsonl: it has {logged} epochs, but {name} is from after epoch {known}")
    return problems


def _check_weights(run: Run, shapes: Mapping[str, torch.Size]) -> list[str]:
    name = run.weights_path.name
    if not run.finished:
        gone = run.checksum_path.exists() and not run.checkpoints_path.exists()
        return [f"{name}: it is missing, although its checksum exists"] if gone else []
    content = run.weights_path.read_bytes()
    if run.checksum_path.exists():
        should = run.checksum_path.read_text(errors="replace").partition(" ")[0]
        found = hashlib.sha256(content).hexdigest()
        if found != should:
            return [f"{name}: its SHA-256 is {found} instead of {should}, which {run.checksum_path.name} records"]
    try:
        return _check_tensors(name, safetensors.torch.load(content), shapes)
    except (*UNREADABLE, RuntimeError, safetensors.SafetensorError) as error:
        return [f"{name}: it cannot be read ({_reason(error)})"]


def _check_tensors(file: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    problems = []
    for name in dict.fromkeys((*shapes, *tensors)):
        if name not in shapes or name not in tensors:
            problems.append(f"{file}: {name} is {'missing' if name in shapes else 'not a parameter of this net'}")
        elif tensors[name].shape != shapes[name]:
            found, should = list(tensors[name].shape), list(shapes[name])
            problems.append(f"{file}: {name} has the shape {found} instead of {should}")
        elif not tensors[name].isfinite().all():
            problems.append(f"{file}: {name} has values that are not finite")
    return problems


def check_evaluations(path: Path) -> list[str]:
    """Return the problems of the evaluations in the folder `path`: each must agree with its predictions per image."""
    problems = []
    for file in sorted(path.glob(EVALUATIONS)):
        try:
            record = read_evaluation(file)
            stated = {key: float(getattr(record, key)) for key in ("images", "top1_error", "top5_error")}
            name = record.predictions_path.name
        except UNREADABLE as error:
            problems.append(f"{file.name}: it cannot be read ({_reason(error)})")
            continue
        try:
            predictions = Predictions(**_arrays(path / name))
            found = (len(predictions.labels), predictions.error(1), predictions.error(5))
        except (*UNREADABLE, ArithmeticError) as error:
            problems.append(f"{name}: it cannot be read ({_reason(error)})")
            continue
        problems += [
            f"{file.name}: {key} is {should:g}, but {value:g} according to {name}"
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
    """Return all arrays of an `.npz` file; reading verifies their checksums."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, ReproError) else f"{type(error).__name__} {error}"
    return text.splitlines()[0].strip()
