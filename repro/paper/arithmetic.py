"""Map sizes, neurons, parameters and multiplications of a network, computed from its specification."""

from __future__ import annotations

from dataclasses import dataclass

from repro.paper.networks import Conv, Layer, Linear, Local, Network, Pool, TowerLinear


@dataclass(frozen=True)
class LayerCount:
    """Counts for one layer of a network, on one image.

    Attributes:
        layer: the layer's specification.
        maps: number of output maps, or of units.
        size: side of an output map; 1 for a fully-connected layer.
        kernel_depth: number of input maps that one kernel sees, or of inputs of one unit.
        parameters: weights and biases.
        multiplications: multiplications of one forward pass.
    """

    layer: Layer
    maps: int
    size: int
    kernel_depth: int = 0
    parameters: int = 0
    multiplications: int = 0

    @property
    def neurons(self) -> int:
        """Number of outputs on one image."""
        return self.maps * self.size * self.size


def conv_positions(layer: Conv, size: int) -> int:
    """Return the number of positions of the kernel of `layer` along one side of `size` pixels."""
    span = size + 2 * layer.padding - layer.size
    return (-(-span // layer.stride) if layer.round_up else span // layer.stride) + 1


def overhang(layer: Conv, size: int) -> int:
    """Return by how many pixels the last window of `layer` extends over the right and bottom edge; at least 0."""
    end = (conv_positions(layer, size) - 1) * layer.stride + layer.size
    return max(0, end - (size + 2 * layer.padding))


def pool_positions(layer: Pool, size: int) -> int:
    """Return the number of windows of `layer` along one side, rounded up; every window starts inside the map."""
    positions = -(-(size - layer.size) // layer.stride) + 1
    return positions if (positions - 1) * layer.stride < size else positions - 1


def count(network: Network) -> tuple[LayerCount, ...]:
    """Return the counts of each layer of `network`, in order. Raises ValueError if the input is too small."""
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
                depth = maps * size * size // (2 if isinstance(layer, TowerLinear) else 1)
                maps, size = layer.units, 1
                row = LayerCount(layer, maps, size, depth, maps * depth + maps, maps * depth)
            case _:
                row = LayerCount(layer, maps, size)
        if size < 1:
            raise ValueError(
                f"the input of {network.input_size} pixels is too small: nothing is left of it at {layer.name}"
            )
        counts.append(row)
    return tuple(counts)


def parameters(network: Network) -> int:
    """Return the number of weights and biases of `network`."""
    return sum(row.parameters for row in count(network))
