"""torchvision's `alexnet`: a state dict saved by `torch.save`."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from repro.errors import ReproError
from repro.models.published.layers import ReadNetwork
from repro.paper.published import TORCHVISION_ALEXNET

# torchvision divides its inputs, values of 0–1 less a mean, by these.
DEVIATIONS = (0.229 * 255, 0.224 * 255, 0.225 * 255)
PARTS = {
    "features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4", "features.10": "conv5",
    "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8",
}  # fmt: skip


def read(path: Path) -> ReadNetwork:
    """Read a state dict of torchvision's `alexnet`. Raises ReproError if the file is anything else.

    The file is loaded with `weights_only=True`, which constructs tensors and plain containers and runs no code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names '{named[1]}', which no state dict does" if named else "it is no state dict of PyTorch"
        raise ReproError(f"'{path}' is refused: {reason}") from error
    except Exception as error:  # damaged files make torch.load raise almost any type
        reason = (" ".join(str(error).split()) or type(error).__name__).split(". ")[0]
        raise ReproError(f"'{path}' cannot be read as a state dict of PyTorch ({reason})") from error
    if not isinstance(state, dict):
        raise ReproError(f"'{path}' holds a {type(state).__name__}, expected a state dict of torchvision's alexnet")
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, kind = str(name).rpartition(".")
        if part not in PARTS or kind not in ("weight", "bias") or not isinstance(value, Tensor):
            raise ReproError(f"'{path}' has the entry '{name}', which torchvision's alexnet has not")
        weights[f"{PARTS[part]}.{kind}"] = value.detach().float().contiguous()
    last = weights.get("fc8.bias", torch.empty(0))
    network = TORCHVISION_ALEXNET.scaled(TORCHVISION_ALEXNET.input_size, 1.0, classes=last.numel())
    return ReadNetwork(network.layers, weights, deviations=DEVIATIONS)
