"""What the readers of all formats share: layers with their weights, assembled into a net of this program.

A net here takes RGB values of 0–255 less a mean, and multiplies by 1 − rate in testing where dropout is (Sec. 4.2).
Published nets may take BGR or divide by standard deviations, and rescale in training instead. `convert` changes
their weights once, so that the net computes the same function of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from repro.errors import ReproError
from repro.models.finite import all_finite
from repro.paper.arithmetic import count
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Network, Pool

NAMES: dict[type[Layer], str] = {
    Conv: "conv", Activation: "relu", LRN: "lrn", Pool: "pool", Linear: "fc", Dropout: "drop"
}  # fmt: skip


@dataclass(frozen=True)
class ReadLayer:
    """A layer as a file describes it, with its weights if it has any.

    Attributes:
        layer: the layer; its name is what the file calls it.
        weight: [kernels, maps, size, size] of a convolution, [units, inputs] of a fully-connected layer.
        bias: [kernels] or [units].
    """

    layer: Layer
    weight: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class ReadNetwork:
    """A net read from a file, in the convention of its format.

    Attributes:
        layers: the layers under this program's names.
        weights: weights and biases by name, float32.
        bgr: whether the input's maps are in the order blue, green, red.
        deviations: what the input's maps, values of 0–255 less a mean, are divided by.
        dropout_rescales: whether dropout divides by 1 − rate in training and does nothing in testing.
    """

    layers: tuple[Layer, ...]
    weights: dict[str, Tensor]
    bgr: bool = False
    deviations: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dropout_rescales: bool = True


def assemble(layers: Sequence[ReadLayer]) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """Name the layers as the paper's are named: conv1, relu1, … fc8; what follows a weight layer has its number."""
    named: list[Layer] = []
    weights: dict[str, Tensor] = {}
    number = 0
    for each in layers:
        number += isinstance(each.layer, Conv | Linear)
        name = f"{NAMES[type(each.layer)]}{number}"
        if any(layer.name == name for layer in named):
            raise ReproError(f"the layer '{each.layer.name}' is a second {NAMES[type(each.layer)]} in its block")
        named.append(replace(each.layer, name=name))
        if each.weight is not None and each.bias is not None:
            weights[f"{name}.weight"], weights[f"{name}.bias"] = each.weight, each.bias
    return tuple(named), weights


def check_shapes(network: Network, weights: dict[str, Tensor]) -> None:
    """Raise ReproError if `weights` are not those of `network`, or are not all finite."""
    expected: dict[str, tuple[int, ...]] = {}
    for row in count(network):
        if isinstance(row.layer, Conv):
            expected[f"{row.layer.name}.weight"] = (row.maps, row.kernel_depth, row.layer.size, row.layer.size)
        elif isinstance(row.layer, Linear):
            expected[f"{row.layer.name}.weight"] = (row.maps, row.kernel_depth)
        if row.parameters:
            expected[f"{row.layer.name}.bias"] = (row.maps,)
    for name, shape in expected.items():
        if name not in weights:
            raise ReproError(f"it has no {name}")
        if tuple(weights[name].shape) != shape:
            raise ReproError(f"its {name} has the shape {list(weights[name].shape)}, expected {list(shape)}")
        if not all_finite(weights[name]):
            raise ReproError(f"its {name} has values that are not finite")
    if extra := sorted(weights.keys() - expected.keys()):
        raise ReproError(f"it has {extra[0]}, which the net has not")


def convert(read: ReadNetwork, network: Network) -> dict[str, Tensor]:
    """Return the weights of `network`, which has the layers of `read`, in this program's convention.

    Raises ReproError if the weights do not have the shapes of the net.
    """
    check_shapes(network, read.weights)
    weights = dict(read.weights)
    kernels = weights["conv1.weight"].flip(1) if read.bgr else weights["conv1.weight"]
    deviations = torch.tensor(read.deviations, dtype=torch.float64).view(1, -1, 1, 1)
    weights["conv1.weight"] = (kernels.double() / deviations).float().contiguous()
    if read.dropout_rescales:
        weights |= _rescaled_after_dropout(network.layers, weights)
    return weights


def _rescaled_after_dropout(layers: Sequence[Layer], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that follow dropout, divided by 1 − rate; with the rate 0.5 that is exact."""
    rescaled, factor = {}, 1.0
    for layer in layers:
        if isinstance(layer, Dropout):
            factor /= 1 - layer.rate
        elif isinstance(layer, Linear) and factor != 1.0:
            rescaled[f"{layer.name}.weight"] = weights[f"{layer.name}.weight"] * factor
            factor = 1.0
    return rescaled


def decimal(value: float) -> float:
    """Return the shortest decimal number that a float32 stands for: 1e-4 for 9.9999997e-05."""
    return float(str(np.float32(value)))
