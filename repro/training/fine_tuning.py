"""Initialise a run with trained weights: those of another run, or those that others published (Sec. 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from repro.errors import ReproError
from repro.evaluation.trained_model import read_weights
from repro.models.finite import all_finite
from repro.models.network import AlexNet
from repro.records.file_names import RUN
from repro.records.reading import read_run
from repro.records.schema import Origin

SAFETENSORS = ".safetensors"
WANTED = (
    f"--init-from takes the folder of a finished run, its {RUN}, or a file of weights: {SAFETENSORS}, .pth, "
    ".caffemodel, .onnx, or a checkpoint of cuda-convnet2"
)


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a run is initialised with.

    Attributes:
        source: the run's folder, or the file.
        weights: parameters by name, for RGB values of 0–255 less the mean.
        classes: ids of the classes in the order of the outputs; empty if they are not known.
    """

    source: Path
    weights: dict[str, Tensor]
    classes: tuple[str, ...]


def read_initial_weights(path: Path) -> InitialWeights:
    """Read the weights of a finished run, of its `run.json`, or of a file.

    A `.safetensors` file has the parameters of a net under the names of this program; other files are those that
    `repro.models.published` reads. Raises ReproError if `path` is none of these, or if the weights are damaged or not
    finite.
    """
    if _is_run(path):
        run = read_run(path)
        return InitialWeights(run.folder, read_weights(run)[0], tuple(each.id for each in run.data.classes))
    _check_file(path)
    if path.suffix.lower() == SAFETENSORS:
        return InitialWeights(path, _read_safetensors(path), ())
    from repro.models.published import read_published  # reads formats that few runs start from

    try:
        published = read_published(path)
    except ReproError as error:
        raise ReproError(f"{error}; {WANTED}") from error
    return InitialWeights(path, published.weights, tuple(info.id for info in published.classes))


@torch.no_grad()
def load_matching_weights(
    initial: InitialWeights, model: AlexNet, classes: Sequence[str], patterns: Sequence[str]
) -> list[str]:
    """Copy the initial weights whose names match `patterns` into `model`; return their names.

    The last layer is copied only if it is known to have the same `classes`, by id and in order. Raises ReproError if
    any other parameter has a different shape, or if no parameter matches.
    """
    weights, source = initial.weights, initial.source
    same_classes = list(initial.classes) == list(classes)
    last = model.network.layers[-1].name
    copied = []
    for name, parameter in model.named_parameters():
        matches = any(fnmatch(name, pattern) for pattern in patterns)
        if name not in weights or not matches or (name.startswith(f"{last}.") and not same_classes):
            continue
        if weights[name].shape != parameter.shape:
            raise ReproError(
                f"{name} of '{source}' has the shape {list(weights[name].shape)}, in the new net it is "
                f"{list(parameter.shape)}: start from a run of the same scale and a similar variant"
            )
        parameter.copy_(weights[name])
        copied.append(name)
    if not copied:
        raise ReproError(f"no weights of '{source}' fit the new net: start from a run of a similar variant")
    return copied


def origin(path: Path) -> Origin:
    """Return the record of the run or the file whose weights another run is initialised with.

    Its checksum is that of the run's weights, or of the file. Raises ReproError if there is neither.
    """
    if _is_run(path):
        run = read_run(path)
        run.require_weights()
        name, file = run.folder.resolve().name, run.weights_path
    else:
        _check_file(path)
        name, file = path.name, path
    try:
        with file.open("rb") as content:
            return Origin(name, hashlib.file_digest(content, "sha256").hexdigest())
    except OSError as error:
        raise ReproError(f"cannot read '{file}': {error.strerror}") from error


def _is_run(path: Path) -> bool:
    return path.name == RUN or (path / RUN).exists()


def _check_file(path: Path) -> None:
    """Raise ReproError with what is wanted if `path` is not a file of weights."""
    if not path.exists():
        raise ReproError(f"no run at '{path}': {WANTED}")
    if path.is_dir():
        raise ReproError(f"no run at '{path}': it has no {RUN}; {WANTED}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise ReproError(f"'{path}' cannot be read as safetensors ({str(error).splitlines()[0]}); {WANTED}") from error
    for name, value in weights.items():
        if not all_finite(value):
            raise ReproError(f"the weights '{path}' are not finite ({name}): start from others")
    return weights
