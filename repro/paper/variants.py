"""Variants of the paper's net: each a named change of the network or the recipe, with the paper's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from repro.errors import ReproError, unknown
from repro.paper import recipes
from repro.paper.networks import (
    ALEXNET_PROGRAM,
    ALEXNET_TEXT,
    CIFAR_FOUR_LAYERS,
    CIFAR_LOCAL,
    CIFAR_LOCAL_LRN,
    LRN,
    Activation,
    Conv,
    Dropout,
    Layer,
    Linear,
    Network,
    Pool,
    SpatialNorm,
)
from repro.paper.recipes import RECIPES, Recipe
from repro.paper.scales import CIFAR_CROP_SCALES, CIFAR_SCALES, SCALES, Scale

BASES = {"paper": ALEXNET_TEXT, "authors": ALEXNET_PROGRAM}


def _unchanged(layer: Layer) -> Layer:
    return layer


@dataclass(frozen=True)
class Family:
    """Variants that share their base networks, recipes and scales.

    Attributes:
        bases: base network by recipe.
        recipes: recipes by name.
        scales: scales by name.
        classes: number of classes of the dataset that the paper trains these nets on.
    """

    bases: Mapping[str, Network]
    recipes: Mapping[str, Recipe]
    scales: Mapping[str, Scale]
    classes: int = 1000


LARGE = Family(BASES, RECIPES, SCALES)
FALL2009, FALL2011, FINE_TUNED = (
    Family(BASES, {"authors": recipe}, SCALES)
    for recipe in (recipes.CONV6_FALL2009, recipes.CONV6_FALL2011, recipes.CONV6_2012)
)
CIFAR_PLAIN = Family(
    {"authors": CIFAR_FOUR_LAYERS, "fan-in": CIFAR_FOUR_LAYERS},
    {"authors": recipes.CIFAR_FOUR_LAYERS, "fan-in": recipes.CIFAR_FAN_IN},
    CIFAR_SCALES,
    classes=10,
)
CIFAR_13 = Family({"authors": CIFAR_LOCAL}, {"authors": recipes.CIFAR_LOCAL}, CIFAR_CROP_SCALES, classes=10)
CIFAR_11 = Family({"authors": CIFAR_LOCAL_LRN}, {"authors": recipes.CIFAR_LOCAL}, CIFAR_CROP_SCALES, classes=10)


@dataclass(frozen=True)
class Variant:
    """A net of the paper, as a change of its family's base network and recipe.

    Attributes:
        name: the name to give to `--variant`.
        section: section of the paper.
        summary: how the net differs from `alexnet`.
        expected: the paper's result at its scale, in points of top-1/top-5 error.
        edit_layer: change of each layer of the base network; None removes the layer.
        edit_recipe: change of the recipe.
        edit_network: change of the network as a whole, after `edit_layer`.
        family: the base networks, recipes and scales.
        begins_from: variant whose trained weights a run starts from; None for random initial weights.
        dataset: dataset that the paper trains the net on.
    """

    name: str
    section: str
    summary: str
    expected: str
    edit_layer: Callable[[Layer], Layer | None] = _unchanged
    edit_recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe
    edit_network: Callable[[Network], Network] = lambda network: network
    family: Family = LARGE
    begins_from: str | None = None
    dataset: str = "ilsvrc2012"


@dataclass(frozen=True)
class Configuration:
    """A variant with a recipe at a scale: everything about a run except its data and seed."""

    variant: Variant
    network: Network
    recipe: Recipe
    scale: Scale

    @property
    def epochs(self) -> int:
        """Number of epochs, unless the user sets another."""
        return self.scale.epochs or self.recipe.schedule.epochs


def _without(*names: str) -> Callable[[Layer], Layer | None]:
    return lambda layer: None if layer.name in names else layer


def _one_gpu(layer: Layer) -> Layer:
    """Halve the kernels of every conv layer but the last; each kernel sees all maps (Sec. 3.2, footnote 2)."""
    if isinstance(layer, Conv):
        kernels = layer.kernels if layer.name == "conv5" else layer.kernels // 2
        return replace(layer, kernels=kernels, towers=1)
    return replace(layer, towers=1) if isinstance(layer, LRN) else layer


def _no_overlap(layer: Layer) -> Layer:
    """Pool without overlap; the paddings that keep the output sizes are those of the authors' net 147."""
    if isinstance(layer, Pool):
        return replace(layer, size=2, stride=2)
    if isinstance(layer, Conv) and layer.name in ("conv2", "conv5"):
        return replace(layer, padding=layer.padding - 1)
    return layer


def _tanh(layer: Layer) -> Layer:
    return replace(layer, function="tanh") if isinstance(layer, Activation) else layer


def _with_conv6(network: Network) -> Network:
    """Add a sixth conv layer over the last pooling layer (Sec. 6), of the size in the authors' net 146."""
    after = [layer.name for layer in network.layers].index("pool5") + 1
    conv6 = (Conv("conv6", 256, 3, padding=1), Activation("relu6a"))
    return replace(network, layers=(*network.layers[:after], *conv6, *network.layers[after:]))


def _with_bottleneck(network: Network) -> Network:
    """Add a linear layer of 2048 units below the outputs, which would otherwise have 89 million weights."""
    *below, last = _with_conv6(network).layers
    return replace(network, layers=(*below, Linear("bottleneck", 2048), last))


def _no_cross(layer: Layer) -> Layer:
    """Restrict conv3 to its own tower. The fully-connected layers still see both towers: ours."""
    return replace(layer, towers=2) if isinstance(layer, Conv) and layer.name == "conv3" else layer


def _augmentation(**changes: object) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, augmentation=replace(recipe.augmentation, **changes))  # type: ignore[arg-type]


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("alexnet", "3", "the paper's net", "37.5/17.0 (2010 test), 40.7/18.2 (2012 validation)"),
        Variant("one-gpu", "3.2", "one tower, half the kernels in conv1 to conv4", "+1.7/+1.2", _one_gpu),
        Variant(
            "no-lrn", "3.3", "no normalisation layers", "+1.4/+1.2",
            lambda layer: None if isinstance(layer, LRN | SpatialNorm) else layer,
        ),
        Variant("no-overlap", "3.4", "pooling without overlap, less padding before it", "+0.4/+0.3", _no_overlap),
        Variant("tanh", "3.1", "tanh instead of ReLU", "slower (Figure 1's claim, on the large net)", _tanh),
        Variant(
            "no-dropout", "4.2", "no dropout", "overfits substantially, converges in half the iterations",
            lambda layer: None if isinstance(layer, Dropout) else layer,
        ),
        Variant(
            "no-crops", "4.1", "no random crops and flips", "overfits substantially",
            edit_recipe=_augmentation(crops=False, mirror=False),
        ),
        Variant(
            "no-colour", "4.1", "no colour augmentation", "over +1 (top-1)",
            edit_recipe=_augmentation(colour=None),
        ),
        Variant(
            "no-weight-decay", "5", "no weight decay", "higher training error",
            edit_recipe=lambda recipe: replace(recipe, weight_decay=0.0),
        ),
        Variant("no-conv3", "7", "without conv3", "about +2 (top-1)", _without("conv3", "relu3")),
        Variant("no-conv4", "7", "without conv4", "about +2 (top-1)", _without("conv4", "relu4")),
        Variant("no-conv5", "7", "without conv5", "about +2 (top-1)", _without("conv5", "relu5")),
        Variant("conv6", "6", "a sixth conv layer over pool5", "39.0/16.6 when pre-trained", edit_network=_with_conv6),
        Variant(
            "conv6-fall2009", "6", "conv6 on Fall 2009, starting from alexnet's conv layers", "67.4/40.9 (Fall 2009)",
            edit_network=_with_conv6, family=FALL2009, begins_from="alexnet", dataset="fall2009",
        ),
        Variant(
            "conv6-fall2011", "6", "the conv layers of conv6-fall2009, trained on Fall 2011", "not given",
            edit_network=_with_bottleneck, family=FALL2011, begins_from="conv6-fall2009", dataset="fall2011",
        ),
        Variant(
            "conv6-pretrained", "6", "conv6-fall2011 fine-tuned on ILSVRC-2012", "39.0/16.6 (2012 validation)",
            edit_network=_with_conv6, family=FINE_TUNED, begins_from="conv6-fall2011",
        ),
        Variant(
            "no-cross", "3.2", "no communication between the towers below fc6",
            "not in the paper; 41.8/19.3 in the authors' notes", _no_cross,
        ),
        Variant(
            "cifar-relu", "3.1", "Figure 1: four layers on CIFAR-10, ReLU",
            "25% training error in a sixth of the epochs",
            family=CIFAR_PLAIN, dataset="cifar10",
        ),
        Variant(
            "cifar-tanh", "3.1", "Figure 1: the same with tanh", "25% training error in six times as many epochs",
            _tanh, family=CIFAR_PLAIN, dataset="cifar10",
        ),
        Variant(
            "cifar-no-lrn", "3.3", "CIFAR-10 without response normalisation", "13% test error",
            family=CIFAR_13, dataset="cifar10",
        ),
        Variant(
            "cifar-lrn", "3.3", "CIFAR-10 with response normalisation", "11% test error",
            family=CIFAR_11, dataset="cifar10",
        ),
    )
}  # fmt: skip

# Table 2: the averaged nets, with their number of seeds.
ENSEMBLES = {
    "5cnns": (("alexnet", 5),),
    "7cnns": (("alexnet", 5), ("conv6-pretrained", 2)),
}


def members_of(net: str, seeds: int = 1) -> tuple[tuple[str, int], ...]:
    """Return the variants that make up `net`, each with its number of seeds; `seeds` of a net that is no ensemble."""
    return ENSEMBLES.get(net, ((net, seeds),))


def ancestors_of(variant: str) -> tuple[Variant, ...]:
    """Return the variants that are pre-trained before `variant`, the nearest first; none if it starts at random."""
    found: list[Variant] = []
    while before := find_variant(found[-1].name if found else variant).begins_from:
        found.append(find_variant(before))
    return tuple(found)


def find_variant(variant: str) -> Variant:
    """Return the variant of that name. Raises ReproError with the nearest names if there is none."""
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    return VARIANTS[variant]


def configure(variant: str, recipe: str = "authors", scale: str = "paper", classes: int = 1000) -> Configuration:
    """Return the network and recipe of a variant, by names.

    Raises ReproError with the nearest names for an unknown name.
    """
    names = {name for each in VARIANTS.values() for name in each.family.recipes}
    if recipe not in names:
        raise unknown("recipe", recipe, names)
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    chosen = find_variant(variant)
    family = chosen.family
    if recipe not in family.recipes:
        known = " or ".join(family.recipes)
        reason = ", the text does not give one" if recipe == "paper" else ""
        raise ReproError(f"'{variant}' has no recipe '{recipe}'{reason}: choose --recipe {known}")
    size = family.scales[scale]
    network = chosen.edit_network(family.bases[recipe].edit(chosen.edit_layer))
    network = network.scaled(size.crop_size, size.width, classes)
    return Configuration(chosen, network, chosen.edit_recipe(family.recipes[recipe]), size)
