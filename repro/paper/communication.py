"""Communication between two devices that hold one tower each, computed from the network's specification (Sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from repro.paper.arithmetic import count
from repro.paper.networks import LRN, Conv, Dropout, Layer, Linear, Network, TowerLinear

ACTIVATION_BYTES = 4  # float32
MASK_BYTES = 1  # per neuron of a dropout mask


@dataclass(frozen=True)
class Transfer:
    """Bytes per image that the two devices send each other for one layer, both directions together.

    Attributes:
        layer: name of the layer; "images" for the input, which the first device prepares, and "softmax" for the
            logits, which it needs for the loss.
        forward: bytes of activations in the forward pass.
        backward: bytes of gradients in the backward pass.
    """

    layer: str
    forward: int
    backward: int


def has_towers(network: Network) -> bool:
    """Return whether `network` has two towers."""
    return any(isinstance(layer, Conv) and layer.towers == 2 for layer in network.layers)


def sees_both_towers(network: Network, layer: Layer) -> bool:
    """Return whether the kernels of `layer` see the maps of both towers; False for the first layer."""
    if layer is network.layers[0] or isinstance(layer, TowerLinear):
        return False
    return isinstance(layer, Linear) or (isinstance(layer, Conv) and layer.towers == 1)


def transfers(network: Network) -> tuple[Transfer, ...]:
    """Return every transfer of a float32 training step of a `network` with two towers, in order."""
    found = [Transfer("images", ACTIVATION_BYTES * 3 * network.input_size**2, 0)]
    rows = count(network)
    for below, row in pairwise(rows):
        layer = row.layer
        if sees_both_towers(network, layer):
            # Each device sends its half of the maps to the other.
            found.append(Transfer(layer.name, ACTIVATION_BYTES * below.neurons, ACTIVATION_BYTES * below.neurons))
        elif isinstance(layer, LRN) and layer.towers == 1:
            border = ACTIVATION_BYTES * 2 * (layer.n // 2) * row.size**2
            found.append(Transfer(layer.name, border, border))
        elif isinstance(layer, Dropout):
            found.append(Transfer(layer.name, MASK_BYTES * (row.neurons // 2), 0))
    logits = ACTIVATION_BYTES * (network.classes // 2)
    return (*found, Transfer("softmax", logits, logits))
