"""The paper's numbers that follow from the network and the recipe alone, computed: no run is needed.

All are computed from the text's net and recipe at the paper's scale. Each function takes the target's
`argument` (a layer, a variant, a number of days; often empty) and returns one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from repro.paper.arithmetic import LayerCount, count
from repro.paper.arithmetic import parameters as parameters_of
from repro.paper.networks import Conv, Linear, Network
from repro.paper.recipes import PAPER
from repro.paper.scales import SCALES
from repro.paper.variants import configure

TRAINING_IMAGES = 1_200_000  # Sec. 2, "roughly 1.2 million"


def _network(variant: str = "alexnet") -> Network:
    return configure(variant, recipe="paper", scale="paper").network


def _row(layer: str, variant: str = "alexnet") -> LayerCount:
    return next(row for row in count(_network(variant)) if row.layer.name == layer)


def _learned(variant: str = "alexnet") -> list[LayerCount]:
    return [row for row in count(_network(variant)) if isinstance(row.layer, Conv | Linear)]


def parameters(variant: str) -> float:
    """Weights and biases of a variant."""
    return parameters_of(_network(variant))


def neurons(layer: str) -> float:
    """The outputs of one layer, or of all layers with weights if `layer` is empty."""
    return sum(row.neurons for row in _learned() if layer in ("", row.layer.name))


def input_values(_: str) -> float:
    """The numbers in one input image."""
    return 3 * _network().input_size ** 2


def kernel_weights(layer: str) -> float:
    """The weights in all kernels of a conv layer: kernels × size² × maps that one kernel sees."""
    row = _row(layer)
    return row.parameters - row.maps


def learned_layers(kind: str) -> float:
    """The number of layers with weights: "conv", "fc", or both if `kind` is empty."""
    return sum(row.layer.name.startswith(kind) for row in _learned())


def parameter_share(layer: str) -> float:
    """The share of one layer in all weights and biases, in percent."""
    return 100 * _row(layer).parameters / parameters("alexnet")


def first_positions(_: str) -> float:
    """The positions of conv1's kernel along one side of the image, before any rounding."""
    network = _network()
    conv1 = network.layers[0]
    assert isinstance(conv1, Conv)
    return (network.input_size + 2 * conv1.padding - conv1.size) / conv1.stride + 1


def training_patches(_: str) -> float:
    """The different patches, mirror images included, that one training image yields (Sec. 4.1)."""
    scale = SCALES["paper"]
    return 2 * (scale.image_size - scale.crop_size + 1) ** 2


def label_bits(_: str) -> float:
    """The bits that one label tells (Sec. 4)."""
    return math.log2(_network().classes)


def parameter_ratio(variant: str) -> float:
    """The parameters of a variant over those of `alexnet`."""
    return parameters(variant) / parameters("alexnet")


def pooled_ratio(variant: str) -> float:
    """The size of the last pooling layer's output in a variant over that in `alexnet`."""
    return _row("pool5", variant).neurons / _row("pool5").neurons


def implied_speed(days: str) -> float:
    """Images per second if the whole training takes `days` (Sec. 5: epochs × training images)."""
    return PAPER.schedule.epochs * TRAINING_IMAGES / (float(days) * 86_400)


INVARIANTS: dict[str, Callable[[str], float]] = {
    function.__name__: function
    for function in (
        parameters,
        neurons,
        input_values,
        kernel_weights,
        learned_layers,
        parameter_share,
        first_positions,
        training_patches,
        label_bits,
        parameter_ratio,
        pooled_ratio,
        implied_speed,
    )
}
