"""The paper's networks as values: tuples of layers, in the order in which they act (Sec. 3).

Of the large net there are two, because the text and the authors' own program order the layers of the first two
blocks differently; every other large net is one of these two, changed (`repro.paper.variants`). The small nets on
CIFAR-10 are the program's, for the text says no more of them than "four-layer".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Conv:
    """A convolution: `kernels` kernels of `size`×`size` over the maps below.

    With `towers=2` each half of the kernels sees its own half of the maps ("on the same GPU", Sec. 3.2).
    With `round_up` the number of positions is rounded up: the last window runs over the right and bottom
    edge into zeros. That is how 224 pixels give 55 positions at size 11, stride 4.
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
    """A locally-connected layer: `size`×`size` windows like a convolution's, but each place has its own kernels.

    In the CIFAR-10 nets of the authors' program only.
    """

    name: str
    kernels: int
    size: int
    padding: int


@dataclass(frozen=True)
class Activation:
    """The nonlinearity of each neuron, "relu" or "tanh" (Sec. 3.1)."""

    name: str
    function: str = "relu"


@dataclass(frozen=True)
class LRN:
    """Local response normalisation across `n` adjacent maps at one position (Sec. 3.3).

    b_i = a_i / (k + alpha · Σ_j a_j²)^beta; `alpha` multiplies the plain sum. With `towers=2` the
    neighbourhood stops at the border between the two halves of the maps.
    """

    name: str
    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    towers: int = 1


@dataclass(frozen=True)
class SpatialNorm:
    """Normalisation over a `size`×`size` window of each map on its own; in the authors' program only.

    b = a / (k + alpha · Σ a²)^beta, the sum over the window, zero beyond the edge.
    """

    name: str
    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 25
    beta: float = 0.75


@dataclass(frozen=True)
class Pool:
    """Pooling over `size`×`size` windows, `stride` apart (Sec. 3.4): their maximum, or with kind "mean" their mean.

    The number of positions is rounded up as in the authors' program; at the paper's sizes it divides evenly. The
    mean is over the part of a window that lies inside the map.
    """

    name: str
    size: int = 3
    stride: int = 2
    kind: str = "max"


@dataclass(frozen=True)
class Linear:
    """A fully-connected layer; "all of the layer before" (Sec. 3.5)."""

    name: str
    units: int


@dataclass(frozen=True)
class Dropout:
    """Zeroes each neuron with probability `rate` in training; multiplies by 1 − rate in testing (Sec. 4.2)."""

    name: str
    rate: float = 0.5


Layer = Conv | Local | Activation | LRN | SpatialNorm | Pool | Linear | Dropout


@dataclass(frozen=True)
class Network:
    """A feed-forward net on square RGB inputs of `input_size` pixels; the softmax is not a layer of it."""

    layers: tuple[Layer, ...]
    input_size: int = 224

    @property
    def classes(self) -> int:
        """The number of outputs of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, Linear)
        return last.units

    def edit(self, change: Callable[[Layer], Layer | None]) -> Network:
        """The net with each layer replaced by `change(layer)`; None takes it out."""
        return replace(self, layers=tuple(new for layer in self.layers if (new := change(layer)) is not None))

    def scaled(self, input_size: int, width: float, classes: int) -> Network:
        """The net for smaller images: every hidden layer `width` times as wide, `classes` outputs."""

        def narrow(layer: Layer) -> Layer:
            if isinstance(layer, Conv | Local):
                return replace(layer, kernels=_even(layer.kernels * width))
            if isinstance(layer, Linear):
                return replace(layer, units=classes if layer is self.layers[-1] else _even(layer.units * width))
            return layer

        return replace(self.edit(narrow), input_size=input_size)


def _even(count: float) -> int:
    """Rounded to a whole even number, so that two towers can share it."""
    return max(2, 2 * round(count / 2))


_FC = (
    Linear("fc6", 4096), Activation("relu6"), Dropout("drop6"),
    Linear("fc7", 4096), Activation("relu7"), Dropout("drop7"),
    Linear("fc8", 1000),
)  # fmt: skip

# Sec. 3.5, with the order of Sec. 3.3: LRN after ReLU. LRN runs over all maps of the layer, and alpha multiplies
# the plain sum.
ALEXNET_TEXT = Network((
    Conv("conv1", 96, 11, stride=4, round_up=True), Activation("relu1"), LRN("lrn1"), Pool("pool1"),
    Conv("conv2", 256, 5, padding=2, towers=2), Activation("relu2"), LRN("lrn2"), Pool("pool2"),
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 384, 3, padding=1, towers=2), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1, towers=2), Activation("relu5"), Pool("pool5"),
    *_FC,
))  # fmt: skip

# The authors' program, net 145: in the first block the normalisation sees conv1's outputs of both signs, and
# the ReLU comes last; the second block has a second normalisation; LRN stays inside a tower, and its alpha is
# divided by n.
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

# The nets behind the 13% and 11% of Sec. 3.3. They differ in more than the normalisation: the second has twice
# as many kernels in local3.
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
