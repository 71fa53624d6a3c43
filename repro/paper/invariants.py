"""Numbers of the paper that follow from the network, the recipe and the datasets, without a run.

All are computed from the text's net and recipe at the paper's scale, unless the argument names another recipe. Each
function takes the target's `argument` (a layer, a variant, a number of days; often empty) and returns one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from repro.paper.arithmetic import LayerCount, count
from repro.paper.arithmetic import parameters as parameters_of
from repro.paper.datasets import DATASET_SIZES
from repro.paper.networks import Conv, Linear, Network
from repro.paper.recipes import PAPER, Steps
from repro.paper.scales import SCALES
from repro.paper.variants import configure

TRAINING_IMAGES = 1_200_000  # Sec. 2, "roughly 1.2 million"


def _network(variant: str = "alexnet") -> Network:
    return configure(variant, recipe="paper", scale="paper").network


def _row(layer: str, variant: str = "alexnet") -> LayerCount:
    return next(row for row in count(_network(variant)) if row.layer.name == layer)


def _learned() -> list[LayerCount]:
    return [row for row in count(_network()) if isinstance(row.layer, Conv | Linear)]


def parameters(variant: str) -> float:
    """Return the number of weights and biases of a variant."""
    return parameters_of(_network(variant))


def neurons(layer: str) -> float:
    """Return the number of outputs of a layer, or of all layers with weights if `layer` is empty."""
    return sum(row.neurons for row in _learned() if layer in ("", row.layer.name))


def input_values(_: str) -> float:
    """Return the number of values in one input image."""
    return 3 * _network().input_size ** 2


def kernel_weights(layer: str) -> float:
    """Return the number of weights of a conv layer: kernels × size² × input maps of one kernel."""
    row = _row(layer)
    return row.parameters - row.maps


def learned_layers(kind: str) -> float:
    """Return the number of layers with weights: "conv", "fc", or both if `kind` is empty."""
    return sum(row.layer.name.startswith(kind) for row in _learned())


def parameter_share(layer: str) -> float:
    """Return the share of a layer in the net's parameters, in percent."""
    return 100 * _row(layer).parameters / parameters("alexnet")


def first_positions(_: str) -> float:
    """Return the number of positions of conv1's kernel along one side of the image, before rounding."""
    network = _network()
    conv1 = network.layers[0]
    assert isinstance(conv1, Conv)
    return (network.input_size + 2 * conv1.padding - conv1.size) / conv1.stride + 1


def training_patches(_: str) -> float:
    """Return the number of different crops of one training image, flips included (Sec. 4.1)."""
    scale = SCALES["paper"]
    return 2 * (scale.image_size - scale.crop_size + 1) ** 2


def label_bits(_: str) -> float:
    """Return the information in one label, in bits (Sec. 4)."""
    return math.log2(_network().classes)


def parameter_ratio(variant: str) -> float:
    """Return the number of parameters of a variant over that of `alexnet`."""
    return parameters(variant) / parameters("alexnet")


def pooled_ratio(variant: str) -> float:
    """Return the output size of the last pooling layer of a variant over that of `alexnet`."""
    return _row("pool5", variant).neurons / _row("pool5").neurons


def implied_speed(days: str) -> float:
    """Return the images per second if training takes `days` (Sec. 5: epochs × training images)."""
    return PAPER.schedule.epochs * TRAINING_IMAGES / (float(days) * 86_400)


def dataset_images(name: str) -> float:
    """Return the number of images in a dataset as released, "ilsvrc2010 train"; of all splits for "all"."""
    dataset, split = name.split()
    size = DATASET_SIZES[dataset]
    return size.total if split == "all" else size.images[split]


def dataset_classes(name: str) -> float:
    """Return the number of classes of a dataset as released."""
    return DATASET_SIZES[name].classes


def recipe_epochs(recipe: str) -> float:
    """Return the number of epochs that a recipe prescribes."""
    return configure("alexnet", recipe).epochs


def recipe_lr_drops(recipe: str) -> float:
    """Return how many times a recipe divides the learning rate by 10."""
    schedule = configure("alexnet", recipe).recipe.schedule
    return len(schedule.after) if isinstance(schedule, Steps) else schedule.drops


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
        dataset_images,
        dataset_classes,
        recipe_epochs,
        recipe_lr_drops,
    )
}
