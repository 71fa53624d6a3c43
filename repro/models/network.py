"""The torch module of a network's specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.data.sampling import WEIGHTS, torch_seed
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
    TowerLinear,
)
from repro.paper.recipes import Initialisation
from repro.paper.variants import configure

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class AlexNet(nn.Module):
    """A net of the paper: images [N, 3, S, S], 0–255 values with the mean subtracted, to logits [N, classes].

    Its children have the paper's names (`conv1`, `lrn1`, `pool1`, … `fc8`) and act in order. `network` is the
    specification that it was built from. The methods for feature extraction are those of timm's models.
    """

    pretrained_cfg: dict[str, Any]  # set by `repro.models.registry` alone, as is default_cfg
    default_cfg: dict[str, Any]

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        maps, size = 3, network.input_size
        for row in count(network):
            self.add_module(row.layer.name, make_layer(row.layer, row, maps, size))
            maps, size = row.maps, row.size

    @property
    def num_classes(self) -> int:
        """Number of outputs; 0 if the classifier was removed."""
        return int(getattr(self.get_classifier(), "out_features", 0))

    @property
    def num_features(self) -> int:
        """Number of features that the classifier sees: fc7's units, 4096 at full width."""
        return count(self.network)[-1].kernel_depth

    @property
    def head_hidden_size(self) -> int:
        """Number of outputs of `forward_head` with `pre_logits`, timm's name for it."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """Return the last layer, fc8 (fc10 in the CIFAR-10 nets)."""
        return self.get_submodule(self.network.layers[-1].name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by one with torch's default weights; 0 classes make the features the output.

        `global_pool` is accepted as by timm's models and changes nothing: the classifier sees a single position, whose
        average and maximum are itself. Raises ValueError for the name of any other kind of pooling.
        """
        if global_pool not in (None, "", "avg", "max", "avgmax", "fast"):
            raise ValueError(f"global_pool is {global_pool!r}: known are '', 'avg', 'max', 'avgmax' and 'fast'")
        like = next(self.parameters())
        last = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.add_module(self.network.layers[-1].name, last.to(like.device, like.dtype).train(self.training))

    def forward_features(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] to the features that the classifier sees, [N, num_features]: fc7's activations (Sec. 6.1)."""
        return apply_layers(list(self.children())[:-1], images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """[N, num_features] to logits [N, classes]; with `pre_logits` the features themselves."""
        return features if pre_logits else apply_layers([self.get_classifier()], features)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] to logits [N, classes]."""
        return apply_layers(list(self.children()), images)

    @torch.no_grad()
    def initialise(self, initialisation: Initialisation, generator: torch.Generator | None = None) -> AlexNet:
        """Draw the weights and set the biases as the recipe says (Sec. 5); return the net itself."""
        for name, module in self.named_children():
            if isinstance(module, nn.Conv2d | nn.Linear | layers.LocallyConnected2d):
                local = isinstance(module, layers.LocallyConnected2d)
                inputs = module.weight.shape[-1] if local else module.weight[0].numel()
                module.weight.normal_(0.0, initialisation.weight_std(name, inputs), generator=generator)
                assert module.bias is not None
                module.bias.fill_(initialisation.bias(name))
        return self


def apply_layers(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Apply consecutive layers of a net to `x` [N, …] and flatten the result to [N, neurons]."""
    for layer in layers:
        x = layer(x.flatten(1) if is_linear(layer) else x)
    return x.flatten(1)


def is_linear(layer: nn.Module) -> bool:
    """Return whether a layer is fully connected: `nn.Linear`, or what quantization and adapters replace it by."""
    return hasattr(layer, "in_features")


def build_model(variant: str = "alexnet", recipe: str = "authors", num_classes: int = 1000) -> AlexNet:
    """Build a net of the paper at its full size, freshly initialised by the recipe.

    `variant` is one of `repro list variants`, `recipe` "authors" or "paper" ("fan-in" for Figure 1's nets). Its input
    is RGB images of 0–255 values with the mean subtracted, [N, 3, 224, 224] (32 or 24 pixels for the CIFAR-10 nets).
    On a CPU it is fastest after `model.to(memory_format=torch.channels_last)`, whatever the format of the images, and
    `repro.models.allocator.keep_freed_memory()`, as in `repro train`. Raises ReproError for an unknown name.
    """
    configuration = configure(variant, recipe, "paper", num_classes)
    return AlexNet(configuration.network).initialise(configuration.recipe.initialisation)


def initial_net(network: Network, initialisation: Initialisation, seed: int) -> AlexNet:
    """Return the net with the weights that a run with that seed draws before its first update."""
    generator = torch.Generator().manual_seed(torch_seed(seed, WEIGHTS))
    return AlexNet(network).initialise(initialisation, generator)


def make_layer(layer: Layer, row: LayerCount, maps: int, size: int) -> nn.Module:
    """Return the torch module of `layer` for an input of `maps` maps of `size`×`size`; `row` has its counts."""
    match layer:
        case Conv():
            shape = (maps, layer.kernels, layer.size, layer.stride, layer.padding)
            if layer.round_up:
                return layers.RoundedUpConv2d(*shape, groups=layer.towers, overhang=overhang(layer, size))
            if layer.towers > 1:
                return layers.TowerConv2d(*shape, groups=layer.towers)
            return nn.Conv2d(*shape)
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
        case TowerLinear():
            return layers.TowerLinear(row.kernel_depth, layer.units)
        case Linear():
            return nn.Linear(row.kernel_depth, layer.units)
