"""Begin a run with the weights of another: fine-tuning (Sec. 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from repro import runs
from repro.errors import ReproError
from repro.models.network import AlexNet


@torch.no_grad()
def load_matching_weights(run: runs.Run, model: AlexNet, classes: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Copy into `model` the parameters of a finished `run` whose names match `patterns`; returns their names.

    The last layer is taken over only if the run was trained on the same `classes`, by id and in order. Raises
    ReproError if any other parameter does not fit, or nothing does.
    """
    if not run.weights.exists():
        raise ReproError(f"the run '{run.path}' is not finished: go on with {run.record['command']} --resume")
    try:
        weights = safetensors.torch.load_file(run.weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise ReproError(f"the weights '{run.weights}' are damaged ({error}): train that run again") from error
    same_classes = [each["id"] for each in run.record["data"]["classes"]] == list(classes)
    last = model.network.layers[-1].name
    carried = []
    for name, parameter in model.named_parameters():
        wanted = any(fnmatch(name, pattern) for pattern in patterns)
        if name not in weights or not wanted or (name.startswith(f"{last}.") and not same_classes):
            continue
        if weights[name].shape != parameter.shape:
            raise ReproError(
                f"{name} of '{run.path}' has the shape {list(weights[name].shape)}, the new net's is "
                f"{list(parameter.shape)}: begin from a run of the same scale and a kindred variant"
            )
        parameter.copy_(weights[name])
        carried.append(name)
    if not carried:
        raise ReproError(f"nothing of '{run.path}' fits the new net: begin from a run of a kindred variant")
    return carried


def origin(path: Path) -> dict[str, str]:
    """What a record says of the run at `path` that it began from."""
    with open(runs.open_run(path).weights, "rb") as weights:
        return {"run": path.resolve().name, "weights": hashlib.file_digest(weights, "sha256").hexdigest()}
