"""What follows from a network's specification alone: map sizes, neurons, parameters, multiplications."""

from __future__ import annotations

from dataclasses import dataclass

from repro.paper.networks import Conv, Layer, Linear, Local, Network, Pool


@dataclass(frozen=True)
class LayerCount:
    """One layer of a network on one image.

    `maps`×`size`×`size` is its output (`size` 1 for a fully-connected layer), `kernel_depth` the number of
    input maps that one kernel sees, `multiplications` those of one forward pass.
    """

    layer: Layer
    maps: int
    size: int
    kernel_depth: int = 0
    parameters: int = 0
    multiplications: int = 0

    @property
    def neurons(self) -> int:
        """The number of outputs on one image."""
        return self.maps * self.size * self.size


def conv_positions(layer: Conv, size: int) -> int:
    """The number of positions of `layer`'s kernel along one side of `size` pixels."""
    span = size + 2 * layer.padding - layer.size
    return (-(-span // layer.stride) if layer.round_up else span // layer.stride) + 1


def overhang(layer: Conv, size: int) -> int:
    """By how many pixels the last window of `layer` runs over the right and the bottom edge; ≥ 0."""
    reach = (conv_positions(layer, size) - 1) * layer.stride + layer.size
    return max(0, reach - (size + 2 * layer.padding))


def pool_positions(layer: Pool, size: int) -> int:
    """The number of windows of `layer` along one side, rounded up; every window starts inside the map."""
    positions = -(-(size - layer.size) // layer.stride) + 1
    return positions if (positions - 1) * layer.stride < size else positions - 1


def count(network: Network) -> tuple[LayerCount, ...]:
    """Each layer of `network` with its output size and its parameters, in order."""
    maps, size, counts = 3, network.input_size, []
    for layer in network.layers:
        match layer:
            case Conv():
                depth = maps // layer.towers
                weights = layer.kernels * layer.size**2 * depth
                maps, size = layer.kernels, conv_positions(layer, size)
                row = LayerCount(layer, maps, size, depth, weights + maps, weights * size * size)
            case Local():
                depth, below = maps, size
                maps, size = layer.kernels, below + 2 * layer.padding - layer.size + 1
                weights = maps * size * size * layer.size**2 * depth
                row = LayerCount(layer, maps, size, depth, weights + maps * size * size, weights)
            case Pool():
                size = pool_positions(layer, size)
                row = LayerCount(layer, maps, size)
            case Linear():
                depth = maps * size * size
                maps, size = layer.units, 1
                row = LayerCount(layer, maps, size, depth, maps * depth + maps, maps * depth)
            case _:
                row = LayerCount(layer, maps, size)
        if size < 1:
            raise ValueError(f"the input of {network.input_size} pixels leaves nothing for {layer.name}")
        counts.append(row)
    return tuple(counts)


def parameters(network: Network) -> int:
    """The number of weights and biases of `network`."""
    return sum(row.parameters for row in count(network))
