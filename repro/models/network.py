"""From a network's specification to a torch module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repro.models import layers
from repro.paper.arithmetic import LayerCount, count, overhang
from repro.paper.networks import (
    LRN,
    Activation,
    Conv,
    Dropout,
    Layer,
    Linear,
    Local,
    Network,
    Pool,
    SpatialNorm,
)
from repro.paper.recipes import Initialisation
from repro.paper.variants import configure

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class AlexNet(nn.Module):
    """A net of the paper: images [N, 3, S, S], mean-subtracted 0–255 values, to logits [N, classes].

    Its children carry the paper's names (`conv1`, `lrn1`, `pool1`, … `fc8`) and act in order. `network` is the
    specification it was built from.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        below = (3, network.input_size)
        for row in count(network):
            self.add_module(row.layer.name, make_layer(row.layer, row, *below))
            below = (row.maps, row.size)

    @property
    def num_classes(self) -> int:
        """The number of outputs; 0 where the classifier was taken off."""
        last = self.get_classifier()
        return last.out_features if isinstance(last, nn.Linear) else 0

    def get_classifier(self) -> nn.Module:
        """The last layer, fc8."""
        return self.get_submodule(self.network.layers[-1].name)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new fc8 with torch's default weights in place; 0 leaves the activations of fc7 as the output."""
        width = count(self.network)[-1].kernel_depth
        last = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.add_module(self.network.layers[-1].name, last)

    def forward_features(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] to what the last layer sees: fc7's activations, [N, 4096] at full width (Sec. 6.1)."""
        return apply_layers(list(self.children())[:-1], images)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] to logits [N, classes]."""
        return apply_layers(list(self.children()), images)

    @torch.no_grad()
    def initialise(self, initialisation: Initialisation, generator: torch.Generator | None = None) -> AlexNet:
        """Draw the weights and set the biases as the recipe says (Sec. 5); returns the net itself."""
        for name, module in self.named_children():
            if isinstance(module, nn.Conv2d | nn.Linear | layers.LocallyConnected2d):
                local = isinstance(module, layers.LocallyConnected2d)
                inputs = module.weight.shape[-1] if local else module.weight[0].numel()
                module.weight.normal_(0.0, initialisation.weight_std(name, inputs), generator=generator)
                assert module.bias is not None
                module.bias.fill_(initialisation.bias(name))
        return self


def apply_layers(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """What some of a net's layers, one after the other, make of [N, …]: [N, neurons]."""
    for layer in layers:
        x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
    return x.flatten(1)


def build_model(variant: str = "alexnet", recipe: str = "authors", num_classes: int = 1000) -> AlexNet:
    """A net of the paper at its full size, freshly initialised by the recipe.

    `variant` is one of `repro list variants`, `recipe` "authors" or "paper". Images are mean-subtracted RGB
    values of 0–255, [N, 3, 224, 224]. Raises ReproError for an unknown name.
    """
    configuration = configure(variant, recipe, "paper", num_classes)
    return AlexNet(configuration.network).initialise(configuration.recipe.initialisation)


def make_layer(layer: Layer, row: LayerCount, maps: int, size: int) -> nn.Module:
    """The torch module of `layer` on `maps` input maps of `size`×`size`."""
    match layer:
        case Conv():
            shape = (maps, layer.kernels, layer.size, layer.stride, layer.padding)
            if layer.round_up:
                return layers.RoundedUpConv2d(*shape, groups=layer.towers, overhang=overhang(layer, size))
            return nn.Conv2d(*shape, groups=layer.towers)
        case Activation():
            return ACTIVATIONS[layer.function]()
        case LRN():
            return layers.LocalResponseNorm(layer.n, layer.k, layer.alpha, layer.beta, layer.towers)
        case SpatialNorm():
            return layers.SpatialNormalization(layer.size, layer.k, layer.alpha, layer.beta)
        case Local():
            return layers.LocallyConnected2d(maps, layer.kernels, layer.size, layer.padding, row.size)
        case Pool():
            pool = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
            return pool(layer.size, layer.stride, ceil_mode=True)
        case Dropout():
            return layers.PaperDropout(layer.rate)
        case Linear():
            return nn.Linear(row.kernel_depth, layer.units)
