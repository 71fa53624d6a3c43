"""Check that a run is undamaged: the part of `repro verify` that needs torch."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from repro.baselines.model import method_of, model_shapes
from repro.errors import ReproError
from repro.evaluation.predictions import Predictions
from repro.evaluation.trained_model import network_of, read_preprocessing
from repro.models.finite import all_finite
from repro.models.network import AlexNet
from repro.records.file_names import ACTIVATIONS, EVALUATIONS, LOG, MEAN, RETRIEVALS, RUN
from repro.records.reading import (
    check_epoch,
    read_activations,
    read_checksum,
    read_evaluation,
    read_retrieval,
    read_run,
)
from repro.records.runs import Run
from repro.records.schema import BASELINE, NET
from repro.training import checkpoint

UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


def verify_run(path: Path) -> list[str]:
    """Check all files of the run in `path`, finished or not; return its problems, lines that name the file.

    Weights and checkpoints must have the shapes of the recorded network, finite values and the recorded checksums.
    The log must have a complete line for each epoch. Evaluations must be of these weights and agree with their
    predictions per image. Raises ReproError if `run.json` cannot be read.
    """
    run = read_run(path)
    try:
        shapes = _shapes(run)
    except (ReproError, *UNREADABLE, ArithmeticError, RuntimeError, AttributeError) as error:
        what = "a network" if run.kind == NET else "a method"
        return [f"run.json: it does not describe {what} and its training ({_reason(error)})"]
    epochs, problems = _check_log(run)
    return [
        *problems,
        *_check_checkpoints(run, shapes, epochs),
        *_check_weights(run, shapes),
        *_check_mean(run),
        *check_evaluations(path),
        *_check_retrievals(path),
        *_check_activations(path),
    ]


def _shapes(run: Run) -> dict[str, torch.Size]:
    """Return the shape of each parameter by name. Raises any error if the record lacks what that requires."""
    if run.kind == BASELINE:
        if run.epochs < 1 or not run.command:
            raise ValueError("epochs or command")
        shapes = model_shapes(method_of(run), len(run.data.classes))
        return {name: torch.Size(shape) for name, shape in shapes.items()}
    imported = run.ended is not None and run.ended.reason == "imported"
    if not imported and (run.epochs < 1 or not run.schedule or not run.command):
        raise ValueError("epochs, schedule or command")
    network = network_of(run)
    with torch.device("meta"):  # shapes without memory
        return {name: parameter.shape for name, parameter in AlexNet(network).named_parameters()}


def _check_log(run: Run) -> tuple[int, list[str]]:
    """Return the number of the log's lines up to the first one that is wrong, and the log's problems."""
    count = 0
    for line in run.log_path.read_bytes().splitlines(keepends=True) if run.log_path.exists() else []:
        name = f"{LOG}: line {count + 1}"
        try:
            epoch = check_epoch(line)
        except ValueError as error:
            # JSON's own errors are about a line that was cut, others about one of its fields.
            cut = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
            return count, [f"{name} is incomplete" if cut else f"{name} is wrong: {error}"]
        if not line.endswith(b"\n"):
            return count, [f"{name} is incomplete"]
        if epoch.epoch != count + 1:
            return count, [f"{name} is of epoch {epoch.epoch}"]
        if "val" in run.data.images and math.isnan(epoch.val_top1_error + epoch.val_top5_error):
            return count, [f"{name} is wrong: it has no validation error"]
        count += 1
    return count, _check_end(run, count)


def _check_end(run: Run, epochs: int) -> list[str]:
    """Return the problems of a log with `epochs` lines that are correct."""
    if epochs > run.epochs:
        return [f"{LOG}: it has {epochs} epochs, more than the run's {run.epochs}"]
    if run.ended is None:
        missing = f"{RUN}: it does not record how training ended, although the weights exist"
        return [missing] if run.has_weights else []
    expected = run.epochs if run.ended.reason == "unknown" else run.ended.epochs
    if epochs != expected:
        return [f"{LOG}: it ends after epoch {epochs}, although the run is finished, after epoch {expected}"]
    return []


def _check_checkpoints(run: Run, shapes: Mapping[str, torch.Size], logged: int) -> list[str]:
    problems = []
    for path in run.checkpoints:
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
    if not run.has_weights:
        gone = run.checksum_path.exists() and not run.checkpoints
        return [f"{name}: it is missing, although its checksum exists"] if gone else []
    content = run.weights_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    recorded = {RUN: run.ended.weights} if run.ended and run.ended.weights else {}  # older runs have neither
    if (written := read_checksum(run.folder)) is not None:
        recorded = {run.checksum_path.name: written} | recorded
    for file, checksum in recorded.items():
        if found != checksum:
            return [f"{name}: its SHA-256 is {found} instead of {checksum}, which {file} records"]
    try:
        return _check_tensors(name, safetensors.torch.load(content), shapes)
    except (*UNREADABLE, RuntimeError, safetensors.SafetensorError) as error:
        return [f"{name}: it cannot be read ({_reason(error)})"]


def _check_mean(run: Run) -> list[str]:
    """Return the problems of the mean image, which baselines and runs of older versions do not have."""
    if run.kind == BASELINE or run.preprocessing is None or not run.has_weights:
        return []
    if not run.mean_path.exists():
        return [f"{MEAN}: it is missing"]
    try:
        read_preprocessing(run)
    except ReproError as error:
        return [f"{MEAN}: it cannot be read ({_reason(error)})"]
    return []


def _check_tensors(file: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    problems = []
    for name in dict.fromkeys((*shapes, *tensors)):
        if name not in shapes or name not in tensors:
            problems.append(f"{file}: {name} is {'missing' if name in shapes else 'not a parameter of this net'}")
        elif tensors[name].shape != shapes[name]:
            found, should = list(tensors[name].shape), list(shapes[name])
            problems.append(f"{file}: {name} has the shape {found} instead of {should}")
        elif not all_finite(tensors[name]):
            problems.append(f"{file}: {name} has values that are not finite")
    return problems


def check_evaluations(path: Path) -> list[str]:
    """Return the problems of the evaluations in the folder `path`.

    Each must be of the weights that its runs have now, and agree with its predictions per image.
    """
    problems = []
    for file in sorted(path.glob(EVALUATIONS)):
        try:
            record = read_evaluation(file)
            stated = {key: float(getattr(record, key)) for key in ("images", "top1_error", "top5_error")}
            name = record.predictions_path.name
        except UNREADABLE as error:
            problems.append(f"{file.name}: it cannot be read ({_reason(error)})")
            continue
        problems += [
            f"{file.name}: it is of other weights than the run '{run.name}' has now"
            for run in record.retrained(_read_runs(record.run_folders))
        ]
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


def _read_runs(folders: Iterable[Path]) -> dict[Path, Run]:
    """Return the runs that can be read, by folder."""
    runs = {}
    for folder in folders:
        with suppress(ReproError):
            runs[folder] = read_run(folder)
    return runs


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


def _check_activations(path: Path) -> list[str]:
    problems = []
    for file in sorted(path.glob(ACTIVATIONS)):
        try:
            read_activations(file)
        except UNREADABLE as error:
            problems.append(f"{file.name}: it cannot be read ({_reason(error)})")
    return problems


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an `.npz` file; reading verifies their checksums."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, ReproError) else f"{type(error).__name__} {error}"
    return text.splitlines()[0].strip()
