"""Initialise a run with the weights of another one: fine-tuning (Sec. 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

from repro.errors import ReproError
from repro.evaluation.trained_model import read_weights
from repro.models.network import AlexNet
from repro.records import Origin, Run, read_run


@torch.no_grad()
def load_matching_weights(run: Run, model: AlexNet, classes: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Copy the parameters of a finished `run` whose names match `patterns` into `model`; return their names.

    The last layer is copied only if the run was trained on the same `classes`, by id and in order. Raises ReproError
    if any other parameter has a different shape, if no parameter matches, or if the weights are damaged or not finite.
    """
    weights, _ = read_weights(run)
    same_classes = [each.id for each in run.data.classes] == list(classes)
    last = model.network.layers[-1].name
    copied = []
    for name, parameter in model.named_parameters():
        matches = any(fnmatch(name, pattern) for pattern in patterns)
        if name not in weights or not matches or (name.startswith(f"{last}.") and not same_classes):
            continue
        if weights[name].shape != parameter.shape:
            raise ReproError(
                f"{name} of '{run.folder}' has the shape {list(weights[name].shape)}, in the new net it is "
                f"{list(parameter.shape)}: start from a run of the same scale and a similar variant"
            )
        parameter.copy_(weights[name])
        copied.append(name)
    if not copied:
        raise ReproError(f"no weights of '{run.folder}' fit the new net: start from a run of a similar variant")
    return copied


def origin(folder: Path) -> Origin:
    """Return the record of the run in `folder`, whose weights another run is initialised with."""
    run = read_run(folder)
    run.require_weights()
    with run.weights_path.open("rb") as weights:
        return Origin(folder.resolve().name, hashlib.file_digest(weights, "sha256").hexdigest())
