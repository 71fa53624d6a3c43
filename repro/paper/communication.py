"""What crosses between two devices that hold a tower each, from the network's specification alone (Sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from repro.paper.arithmetic import count
from repro.paper.networks import LRN, Conv, Dropout, Layer, Linear, Network

VALUE = 4  # bytes of an activation, float32
FLAG = 1  # bytes of a neuron's place in a dropout mask


@dataclass(frozen=True)
class Crossing:
    """What crosses on behalf of one layer, in both directions together: bytes per image.

    `backward` is the gradient's way back. `layer` is the paper's name, or "images" and "softmax": the first
    device makes the views and needs all logits for the loss.
    """

    layer: str
    forward: int
    backward: int


def has_towers(network: Network) -> bool:
    """Whether `network` has two towers at all."""
    return any(isinstance(layer, Conv) and layer.towers == 2 for layer in network.layers)


def sees_both_towers(network: Network, layer: Layer) -> bool:
    """Whether the kernels of `layer` see the maps of both towers; below the first layer there are no towers."""
    dense = isinstance(layer, Linear) or (isinstance(layer, Conv) and layer.towers == 1)
    return dense and layer is not network.layers[0]


def crossings(network: Network) -> tuple[Crossing, ...]:
    """Every crossing of a training step in float32, in order, for a `network` with two towers."""
    found = [Crossing("images", VALUE * 3 * network.input_size**2, 0)]
    rows = count(network)
    for below, row in pairwise(rows):
        layer = row.layer
        if sees_both_towers(network, layer):
            # Each device sends its half of the maps to the other.
            found.append(Crossing(layer.name, VALUE * below.neurons, VALUE * below.neurons))
        elif isinstance(layer, LRN) and layer.towers == 1:
            border = VALUE * 2 * (layer.n // 2) * row.size**2
            found.append(Crossing(layer.name, border, border))
        elif isinstance(layer, Dropout):
            found.append(Crossing(layer.name, FLAG * (row.neurons // 2), 0))
    logits = VALUE * (network.classes // 2)
    return (*found, Crossing("softmax", logits, logits))
