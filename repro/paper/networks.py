"""Specifications of the paper's networks: tuples of layers in forward order (Sec. 3).

There are two large nets, because the text and the authors' program order the layers of the first two blocks
differently. Every other large net is a change of one of these two (`repro.paper.variants`). The small nets on
CIFAR-10 are the program's; the text only calls them "four-layer".
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Conv:
    """A convolution.

    Attributes:
        name: the layer's name in the paper.
        kernels: number of kernels, which is the number of output maps.
        size: side of a kernel.
        stride: distance between neighbouring positions.
        padding: zeros on each side of the input.
        towers: 2 if each half of the kernels sees only its own half of the input maps ("on the same GPU", Sec. 3.2).
        round_up: round the number of positions up, so that the last window extends over the right and bottom edge
            into zeros. This is how 224 pixels give 55 positions at size 11 and stride 4.
    """

    name: str
    kernels: int
    size: int
    stride: int = 1
    padding: int = 0
    towers: int = 1
    round_up: bool = False


@dataclass(frozen=True)
class Local:
    """A locally-connected layer: a convolution with separate kernels at each position.

    Only the CIFAR-10 nets of the authors' program have it.
    """

    name: str
    kernels: int
    size: int
    padding: int


@dataclass(frozen=True)
class Activation:
    """A nonlinearity, "relu" or "tanh" (Sec. 3.1)."""

    name: str
    function: str = "relu"


@dataclass(frozen=True)
class LRN:
    """Local response normalisation over `n` adjacent maps at one position (Sec. 3.3).

    b_i = a_i / (k + alpha · Σ_j a_j²)^beta; `alpha` multiplies the plain sum. With `towers=2` the
    neighbourhood ends at the border between the two halves of the maps.
    """

    name: str
    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    towers: int = 1


@dataclass(frozen=True)
class SpatialNorm:
    """Normalisation of each map over `size`×`size` windows; only in the authors' program.

    b = a / (k + alpha · Σ a²)^beta, with the sum over the window, zero beyond the edge.
    """

    name: str
    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 25
    beta: float = 0.75


@dataclass(frozen=True)
class Pool:
    """Pooling over `size`×`size` windows, `stride` apart (Sec. 3.4); `kind` is "max" or "mean".

    The number of positions is rounded up as in the authors' program; at the paper's sizes it divides evenly. The
    mean is over the part of a window inside the map.
    """

    name: str
    size: int = 3
    stride: int = 2
    kind: str = "max"


@dataclass(frozen=True)
class Linear:
    """A fully-connected layer: each unit sees all outputs of the layer below (Sec. 3.5)."""

    name: str
    units: int


@dataclass(frozen=True)
class TowerLinear(Linear):
    """A fully-connected layer within each tower: each half of the units sees only its own half of the outputs below.

    Only net 150 of the authors' program has it, whose towers do not communicate.
    """


@dataclass(frozen=True)
class Dropout:
    """Dropout: zeroes each neuron with probability `rate` in training, multiplies by 1 − rate in testing (Sec. 4.2)."""

    name: str
    rate: float = 0.5


Layer = Conv | Local | Activation | LRN | SpatialNorm | Pool | Linear | TowerLinear | Dropout


@dataclass(frozen=True)
class Network:
    """A feed-forward net on square RGB inputs of `input_size` pixels. Its outputs are logits."""

    layers: tuple[Layer, ...]
    input_size: int = 224

    @property
    def classes(self) -> int:
        """Number of outputs of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, Linear)
        return last.units

    def edit(self, change: Callable[[Layer], Layer | None]) -> Network:
        """Return the net with each layer replaced by `change(layer)`; None removes the layer."""
        return replace(self, layers=tuple(new for layer in self.layers if (new := change(layer)) is not None))

    def scaled(self, input_size: int, width: float, classes: int) -> Network:
        """Return the net for other images: every hidden layer `width` times as wide, with `classes` outputs."""

        def narrow(layer: Layer) -> Layer:
            if isinstance(layer, Conv | Local):
                return replace(layer, kernels=_even(layer.kernels * width))
            if isinstance(layer, Linear):
                return replace(layer, units=classes if layer is self.layers[-1] else _even(layer.units * width))
            return layer

        return replace(self.edit(narrow), input_size=input_size)


def network_record(network: Network) -> tuple[dict[str, Any], ...]:
    """Return the layers as records hold them: each a mapping of its kind under "layer" and its fields."""
    return tuple({"layer": type(layer).__name__} | asdict(layer) for layer in network.layers)


def network_from_record(layers: Sequence[Mapping[str, Any]], input_size: int) -> Network:
    """Return the net that a record spells out. Raises ValueError if it does not."""
    kinds = {kind.__name__: kind for kind in typing.get_args(Layer)}
    try:
        found = [dict(layer) for layer in layers]
        network = Network(tuple(kinds[layer.pop("layer")](**layer) for layer in found), input_size)
        if not isinstance(network.layers[-1], Linear):
            raise ValueError("its last layer is not fully connected")
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    return network


def _even(count: float) -> int:
    """Round to an even number, which two towers can share; at least 2."""
    return max(2, 2 * round(count / 2))


_FC = (
    Linear("fc6", 4096), Activation("relu6"), Dropout("drop6"),
    Linear("fc7", 4096), Activation("relu7"), Dropout("drop7"),
    Linear("fc8", 1000),
)  # fmt: skip

# Sec. 3.5, with the order of Sec. 3.3: LRN after ReLU. LRN runs over all maps of the layer, and alpha multiplies the
# plain sum.
ALEXNET_TEXT = Network((
    Conv("conv1", 96, 11, stride=4, round_up=True), Activation("relu1"), LRN("lrn1"), Pool("pool1"),
    Conv("conv2", 256, 5, padding=2, towers=2), Activation("relu2"), LRN("lrn2"), Pool("pool2"),
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 384, 3, padding=1, towers=2), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1, towers=2), Activation("relu5"), Pool("pool5"),
    *_FC,
))  # fmt: skip

# The authors' program, net 145. In the first block, LRN acts on conv1's outputs of both signs, and the ReLU comes last.
# The second block has a second normalisation. LRN stays within a tower, and its alpha is divided by n.
ALEXNET_PROGRAM = Network((
    Conv("conv1", 96, 11, stride=4, round_up=True),
    LRN("lrn1", alpha=1e-4 / 5, towers=2), Pool("pool1"), Activation("relu1"),
    Conv("conv2", 256, 5, padding=2, towers=2), Activation("relu2"),
    LRN("lrn2", alpha=1e-4 / 5, towers=2), SpatialNorm("spatial2"), Pool("pool2"),
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 384, 3, padding=1, towers=2), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1, towers=2), Activation("relu5"), Pool("pool5"),
    *_FC,
))  # fmt: skip

# The four-layer net of Figure 1: three convolutions and a fully-connected layer ("19%" in the authors' program).
CIFAR_FOUR_LAYERS = Network(
    (
        Conv("conv1", 32, 5, padding=2), Activation("relu1"), Pool("pool1"),
        Conv("conv2", 32, 5, padding=2), Activation("relu2"), Pool("pool2", kind="mean"),
        Conv("conv3", 64, 5, padding=2), Activation("relu3"), Pool("pool3", kind="mean"),
        Linear("fc10", 10),
    ),
    input_size=32,
)  # fmt: skip

# The nets behind the 13% and 11% of Sec. 3.3. They differ in more than normalisation: the second has twice as many
# kernels in local3.
CIFAR_LOCAL = Network(
    (
        Conv("conv1", 64, 5, padding=2), Activation("relu1"), Pool("pool1"),
        Conv("conv2", 64, 5, padding=2), Activation("relu2"), Pool("pool2"),
        Local("local3", 32, 3, padding=1), Activation("relu3"),
        Local("local4", 32, 3, padding=1), Activation("relu4"),
        Linear("fc10", 10),
    ),
    input_size=24,
)  # fmt: skip

CIFAR_LOCAL_LRN = Network(
    (
        Conv("conv1", 64, 5, padding=2), Activation("relu1"), Pool("pool1"), LRN("lrn1", 9, 1.0, 0.001 / 9),
        Conv("conv2", 64, 5, padding=2), Activation("relu2"), LRN("lrn2", 9, 1.0, 0.001 / 9), Pool("pool2"),
        Local("local3", 64, 3, padding=1), Activation("relu3"),
        Local("local4", 32, 3, padding=1), Activation("relu4"),
        Linear("fc10", 10),
    ),
    input_size=24,
)  # fmt: skip
