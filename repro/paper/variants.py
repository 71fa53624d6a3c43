"""Variants of the paper's net: each a named change of the network or the recipe, with the paper's result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from repro.errors import ReproError, unknown
from repro.paper import differences, recipes
from repro.paper.arithmetic import count, parameters
from repro.paper.baselines import BASELINES
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
    TowerLinear,
)
from repro.paper.recipes import RECIPES, Recipe, Steps
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
        recorded: recipes that replace those of `recipes` on one dataset, by recipe's name and dataset, because the
            authors' notes record another training there.
        classes: number of classes of the dataset that the paper trains these nets on.
    """

    bases: Mapping[str, Network]
    recipes: Mapping[str, Recipe]
    scales: Mapping[str, Scale]
    recorded: Mapping[tuple[str, str], Recipe] = field(default_factory=dict)
    classes: int = 1000


def _with_conv6(network: Network) -> Network:
    """Add a sixth conv layer over the last pooling layer (Sec. 6), of the size in the authors' net 146."""
    after = [layer.name for layer in network.layers].index("pool5") + 1
    conv6 = (Conv("conv6", 256, 3, padding=1), Activation("relu6a"))
    return replace(network, layers=(*network.layers[:after], *conv6, *network.layers[after:]))


def _with_bottleneck(network: Network) -> Network:
    """Add a linear layer of 2 × 1024 units below the outputs, as net 146 has on Fall 2011 with its 21,843 outputs."""
    *below, last = network.layers
    return replace(network, layers=(*below, Linear("bottleneck", 2 * 1024), last))


CONV6_BASES = {recipe: _with_conv6(network) for recipe, network in BASES.items()}
_RECORDED = {("authors", "ilsvrc2012"): recipes.AUTHORS_2012}

LARGE = Family(BASES, RECIPES, SCALES, _RECORDED)
CONV6 = Family(CONV6_BASES, RECIPES, SCALES, {**_RECORDED, ("authors", "fall2009"): recipes.AUTHORS_FALL2009})
FALL2009 = Family(CONV6_BASES, {"authors": recipes.CONV6_FALL2009}, SCALES)
FALL2011 = Family(
    {**CONV6_BASES, "authors": _with_bottleneck(CONV6_BASES["authors"])},
    {"authors": recipes.CONV6_FALL2011, "paper": recipes.PAPER},
    SCALES,
)
FINE_TUNED = Family(CONV6_BASES, {"authors": recipes.CONV6_FROM_FALL2011, "paper": recipes.PAPER_FINE_TUNING}, SCALES)
FINE_TUNED_FALL2009 = Family(CONV6_BASES, {"authors": recipes.CONV6_FROM_FALL2009}, SCALES)
# The two large nets differ in the order and constants of normalisation, pooling and ReLU, and in nothing else.
SWAPPED_NORMALISATION = Family({"authors": BASES["paper"], "paper": BASES["authors"]}, RECIPES, SCALES, _RECORDED)
CIFAR_PLAIN = Family(
    {"authors": CIFAR_FOUR_LAYERS, "fan-in": CIFAR_FOUR_LAYERS},
    {"authors": recipes.CIFAR_FOUR_LAYERS, "fan-in": recipes.CIFAR_FAN_IN},
    CIFAR_SCALES,
    classes=10,
)
CIFAR_13 = Family({"authors": CIFAR_LOCAL}, {"authors": recipes.CIFAR_LOCAL}, CIFAR_CROP_SCALES, classes=10)
CIFAR_11 = Family({"authors": CIFAR_LOCAL_LRN}, {"authors": recipes.CIFAR_LOCAL_LRN}, CIFAR_CROP_SCALES, classes=10)


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
        edit_network: change of the network as a whole, at its scale, after `edit_layer`.
        family: the base networks, recipes and scales.
        schedules: schedules that the authors' notes record for this net, by dataset; recipe "authors" only.
        starts_from: variants whose trained weights a run starts from, by recipe; random initial weights otherwise.
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
    schedules: Mapping[str, Steps] = field(default_factory=dict)
    starts_from: Mapping[str, str] = field(default_factory=dict)
    dataset: str = "ilsvrc2012"

    def recipe_for(self, recipe: str) -> str:
        """Return the name of the recipe asked for, or of the only one that the variant has."""
        return recipe if recipe in self.family.recipes else next(iter(self.family.recipes))


@dataclass(frozen=True)
class Configuration:
    """A variant with a recipe at a scale: everything about a run except its data and seed."""

    variant: Variant
    network: Network
    recipe: Recipe
    scale: Scale

    @property
    def length(self) -> float:
        """Length of training in passes over the training set, unless the user sets another."""
        return self.scale.epochs or self.recipe.schedule.epochs

    @property
    def epochs(self) -> int:
        """Number of epochs, of which the last may be cut short; see `length`."""
        return math.ceil(self.length)

    @property
    def starts_from(self) -> str | None:
        """The variant whose trained weights a run starts from; None for random initial weights."""
        return self.variant.starts_from.get(self.recipe.name)


def _without(*names: str) -> Callable[[Layer], Layer | None]:
    return lambda layer: None if layer.name in names else layer


def _one_gpu(layer: Layer) -> Layer:
    """Halve the kernels of every conv layer but the last; each kernel sees all maps (Sec. 3.2, footnote 2)."""
    if isinstance(layer, Conv):
        kernels = layer.kernels if layer.name == "conv5" else layer.kernels // 2
        return replace(layer, kernels=kernels, towers=1)
    return replace(layer, towers=1) if isinstance(layer, LRN) else layer


def _no_overlap(network: Network) -> Network:
    """Pool without overlap, and pad less below a pooling layer where its output would become larger otherwise.

    At scale paper, that takes a pixel of padding from conv2 and conv5, as in the authors' net 147.
    """
    sizes = {row.layer.name: row.size for row in count(network)}
    network = network.edit(lambda layer: replace(layer, size=2, stride=2) if isinstance(layer, Pool) else layer)
    below = ""
    for layer in network.layers:
        if isinstance(layer, Conv):
            below = layer.name
        elif isinstance(layer, Pool) and _size_of(network, layer.name) > sizes[layer.name]:
            network = network.edit(_with_less_padding(below))
    return network


def _size_of(network: Network, name: str) -> int:
    return next(row.size for row in count(network) if row.layer.name == name)


def _with_less_padding(name: str) -> Callable[[Layer], Layer]:
    def edit(layer: Layer) -> Layer:
        if isinstance(layer, Conv) and layer.name == name and layer.padding:
            return replace(layer, padding=layer.padding - 1)
        return layer

    return edit


def _tanh(layer: Layer) -> Layer:
    return replace(layer, function="tanh") if isinstance(layer, Activation) else layer


def _no_conv1(layer: Layer) -> Layer | None:
    """Let conv2 see the image, at conv1's stride, in both towers; pool1 and pool2 follow, so that sizes stay."""
    if layer.name in ("conv1", "relu1", "lrn1"):
        return None
    return replace(layer, stride=4, padding=0, towers=1) if isinstance(layer, Conv) and layer.name == "conv2" else layer


def _pool1_above_conv2(network: Network) -> Network:
    """Move pool1 from the bottom of the net to below pool2."""
    pool1, *others = network.layers
    at = [layer.name for layer in others].index("pool2")
    return replace(network, layers=(*others[:at], pool1, *others[at:]))


def _no_conv3_cross(layer: Layer) -> Layer | None:
    """Remove conv3 and let conv4, in its place, see both towers."""
    if layer.name in ("conv3", "relu3"):
        return None
    return replace(layer, towers=1) if isinstance(layer, Conv) and layer.name == "conv4" else layer


def _no_conv5_narrow(network: Network) -> Network:
    """Remove conv5 and narrow fc6 until the number of parameters is that of `network` again, to half a unit."""
    shorter = network.edit(_without("conv5", "relu5"))
    few, more = (parameters(shorter.edit(_with_units_of_fc6(units))) for units in (1, 2))
    return shorter.edit(_with_units_of_fc6(1 + round((parameters(network) - few) / (more - few))))


def _with_units_of_fc6(units: int) -> Callable[[Layer], Layer]:
    return lambda layer: replace(layer, units=units) if isinstance(layer, Linear) and layer.name == "fc6" else layer


def _no_conv4_wide(layer: Layer) -> Layer | None:
    """Remove conv4 and widen conv3 to 576 kernels: at scale paper the number of parameters stays, less 192."""
    if layer.name in ("conv4", "relu4"):
        return None
    return replace(layer, kernels=576) if isinstance(layer, Conv) and layer.name == "conv3" else layer


def _no_cross(layer: Layer) -> Layer:
    """Restrict conv3 and LRN to their own tower. The fully-connected layers still see both towers: ours."""
    if isinstance(layer, LRN):
        return replace(layer, towers=2)
    return replace(layer, towers=2) if isinstance(layer, Conv) and layer.name == "conv3" else layer


def _separate_towers(layer: Layer) -> Layer:
    """The authors' net 150: no communication below fc8, 160 conv2 kernels and 4096 units of fc6 and fc7 per tower."""
    match layer:
        case Conv(name="conv2"):
            return replace(layer, kernels=2 * 160)
        case Linear(name="fc6" | "fc7"):
            return TowerLinear(layer.name, 2 * 4096)
    return _no_cross(layer)


def _augmentation(**changes: object) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, augmentation=replace(recipe.augmentation, **changes))  # type: ignore[arg-type]


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            name="alexnet",
            section="3",
            summary="the paper's net",
            expected="37.5/17.0 (2010 test), 40.7/18.2 (2012 validation)",
        ),
        Variant(
            name="one-gpu",
            section="3.2",
            summary="one tower, half the kernels in conv1 to conv4",
            expected="+1.7/+1.2",
            edit_layer=_one_gpu,
            schedules={"ilsvrc2010": Steps(after=(20, 48), epochs=96)},  # net 145-half
        ),
        Variant(
            name="no-lrn",
            section="3.3",
            summary="no normalisation layers",
            expected="+1.4/+1.2",
            edit_layer=lambda layer: None if isinstance(layer, LRN | SpatialNorm) else layer,
            schedules={"ilsvrc2012": Steps(after=(22, 44, 86), epochs=97)},  # net 148
        ),
        Variant(
            name="no-overlap",
            section="3.4",
            summary="pooling without overlap, less padding before it",
            expected="+0.4/+0.3",
            edit_network=_no_overlap,
            schedules={"ilsvrc2012": Steps(after=(23, 51, 79), epochs=90)},  # net 147
        ),
        Variant(
            name="tanh",
            section="3.1",
            summary="tanh instead of ReLU",
            expected="slower (Figure 1's claim, on the large net)",
            edit_layer=_tanh,
        ),
        Variant(
            name="zero-biases",
            section="5",
            summary="all biases start at 0",
            expected="slower in the early stages",
            edit_recipe=lambda recipe: replace(recipe, initialisation=replace(recipe.initialisation, ones=())),
        ),
        Variant(
            name="no-dropout",
            section="4.2",
            summary="no dropout",
            expected="overfits substantially, converges in half the iterations",
            edit_layer=lambda layer: None if isinstance(layer, Dropout) else layer,
        ),
        Variant(
            name="no-crops",
            section="4.1",
            summary="no random crops and flips",
            expected="overfits substantially",
            edit_recipe=_augmentation(crops=False, mirror=False),
        ),
        Variant(
            name="no-colour",
            section="4.1",
            summary="no colour augmentation",
            expected="over +1 (top-1)",
            edit_recipe=_augmentation(colour=None),
        ),
        Variant(
            name="no-weight-decay",
            section="5",
            summary="no weight decay",
            expected="higher training error",
            edit_recipe=lambda recipe: replace(recipe, weight_decay=0.0),
        ),
        Variant(
            name="no-conv1",
            section="1",
            summary="without conv1 and its normalisation; conv2 sees the image, at stride 4",
            expected="higher error",
            edit_layer=_no_conv1,
            edit_network=_pool1_above_conv2,
        ),
        Variant(
            name="no-conv2",
            section="1",
            summary="without conv2 and its normalisation; pool1 and pool2 follow each other",
            expected="higher error",
            edit_layer=_without("conv2", "relu2", "lrn2", "spatial2"),
        ),
        Variant(
            name="no-conv3",
            section="7",
            summary="without conv3, and so without communication between the towers below fc6",
            expected="about +2 (top-1)",
            edit_layer=_without("conv3", "relu3"),
        ),
        Variant(
            name="no-conv4",
            section="7",
            summary="without conv4; the towers communicate and fc6 stays, 1.1% fewer parameters",
            expected="about +2 (top-1)",
            edit_layer=_without("conv4", "relu4"),
        ),
        Variant(
            name="no-conv5",
            section="7",
            summary="without conv5; fc6 sees 384 maps instead of 256, so the net has 30% more parameters",
            expected="about +2 (top-1)",
            edit_layer=_without("conv5", "relu5"),
        ),
        Variant(
            name="no-conv3-cross",
            section="7",
            summary="without conv3; conv4 sees both towers in its place, so they communicate; 1.1% fewer parameters",
            expected="not in the paper",
            edit_layer=_no_conv3_cross,
        ),
        Variant(
            name="no-conv4-wide",
            section="7",
            summary="without conv4; conv3 has 576 kernels, so the number of parameters stays",
            expected="not in the paper",
            edit_layer=_no_conv4_wide,
        ),
        Variant(
            name="no-conv5-narrow",
            section="7",
            summary="without conv5; fc6 has 3068 units (scale paper), so the number of parameters stays",
            expected="not in the paper",
            edit_network=_no_conv5_narrow,
        ),
        Variant(
            name="conv6",
            section="6",
            summary="a sixth conv layer over pool5",
            expected="67.4/40.9 (Fall 2009)",
            family=CONV6,
        ),
        Variant(
            name="conv6-fall2009",
            section="6",
            summary="conv6 on Fall 2009, starting from alexnet's conv layers",
            expected="not given",
            family=FALL2009,
            starts_from={"authors": "alexnet"},
            dataset="fall2009",
        ),
        Variant(
            name="conv6-fall2011",
            section="6",
            summary="conv6 on Fall 2011, starting from the conv layers of conv6-fall2009 (paper: from random weights)",
            expected="not given",
            family=FALL2011,
            starts_from={"authors": "conv6-fall2009"},
            dataset="fall2011",
        ),
        Variant(
            name="conv6-pretrained",
            section="6",
            summary="conv6-fall2011 fine-tuned on ILSVRC-2012",
            expected="39.0/16.6 (2012 validation)",
            family=FINE_TUNED,
            starts_from={"authors": "conv6-fall2011", "paper": "conv6-fall2011"},
        ),
        Variant(
            name="conv6-pretrained-fall2009",
            section="6",
            summary="conv6-fall2009 fine-tuned on ILSVRC-2012",
            expected="not in the paper; 39.1/16.9 in the authors' notes",
            family=FINE_TUNED_FALL2009,
            starts_from={"authors": "conv6-fall2009"},
        ),
        Variant(
            name="no-cross",
            section="3.2",
            summary="no communication between the towers below fc6",
            expected="not in the paper",
            edit_layer=_no_cross,
        ),
        Variant(
            name="separate-towers",
            section="3.2",
            summary="no communication below fc8; 160 conv2 kernels and separate fc layers of 4096 in each tower",
            expected="not in the paper; 41.8/19.3 in the authors' notes (net 150)",
            edit_layer=_separate_towers,
            schedules={"ilsvrc2012": Steps(after=(25, 49, 79), epochs=92)},  # net 150
        ),
        *(
            Variant(
                name=name,
                section="3 to 5",
                summary=f"{what} of the other recipe",
                expected="not in the paper",
                edit_recipe=exchange,
            )
            for name, what, exchange in (
                ("swap-initialisation", "the initial weights", differences.swap_initialisation),
                ("swap-biases", "the learning rate and decay of the biases", differences.swap_biases),
                ("swap-colour", "the colour noise", differences.swap_colour),
                ("swap-crops", "the crops and the mean subtracted from them", differences.swap_crops),
                ("swap-schedule", "the schedule of the learning rate", differences.swap_schedule),
            )
        ),
        Variant(
            name="swap-normalisation",
            section="3.3",
            summary="the order and constants of normalisation, pooling and ReLU of the other recipe",
            expected="not in the paper",
            family=SWAPPED_NORMALISATION,
        ),
        Variant(
            name="cifar-relu",
            section="3.1",
            summary="Figure 1: four layers on CIFAR-10, ReLU",
            expected="25% training error in a sixth of the epochs",
            family=CIFAR_PLAIN,
            dataset="cifar10",
        ),
        Variant(
            name="cifar-tanh",
            section="3.1",
            summary="Figure 1: the same with tanh",
            expected="25% training error in six times as many epochs",
            edit_layer=_tanh,
            family=CIFAR_PLAIN,
            dataset="cifar10",
        ),
        Variant(
            name="cifar-no-lrn",
            section="3.3",
            summary="CIFAR-10 without response normalisation",
            expected="13% test error",
            family=CIFAR_13,
            dataset="cifar10",
        ),
        Variant(
            name="cifar-lrn",
            section="3.3",
            summary="CIFAR-10 with response normalisation",
            expected="11% test error",
            family=CIFAR_11,
            dataset="cifar10",
        ),
    )
}

Members = tuple[tuple[str, int], ...]  # variants with their numbers of seeds

# Table 2: the averaged nets, by recipe. The text says that both pre-trained nets of "7 CNNs*" had seen Fall 2011; the
# authors' notes hold one such net, and one from Fall 2009 alone.
ENSEMBLES: dict[str, dict[str, Members]] = {
    "5cnns": {"authors": (("alexnet", 5),), "paper": (("alexnet", 5),)},
    "7cnns": {
        "authors": (("alexnet", 5), ("conv6-pretrained", 1), ("conv6-pretrained-fall2009", 1)),
        "paper": (("alexnet", 5), ("conv6-pretrained", 2)),
    },
}


def members_of(net: str, seeds: int = 1, recipe: str = "authors") -> Members:
    """Return the variants that make up `net` by a recipe, each with its number of seeds; `seeds` if it is one net."""
    readings = ENSEMBLES.get(net)
    return readings.get(recipe, readings["authors"]) if readings else ((net, seeds),)


def ensemble_of(nets: Mapping[str, int]) -> str | None:
    """Return the ensemble, by either recipe's reading, that averages `nets` (number of seeds by variant), if any."""
    for name, readings in ENSEMBLES.items():
        if any(dict(members) == nets for members in readings.values()):
            return name
    return None


def ancestors_of(variant: str, recipe: str = "authors") -> tuple[Variant, ...]:
    """Return the variants that are pre-trained before `variant`, the nearest first; none if it starts at random.

    A baseline, which is no net, has none.
    """
    found: list[Variant] = []
    if variant in BASELINES:
        return ()
    while before := find_variant(found[-1].name if found else variant).starts_from.get(recipe):
        found.append(find_variant(before))
    return tuple(found)


def find_variant(variant: str) -> Variant:
    """Return the variant of that name. Raises ReproError with the nearest names if there is none."""
    if variant not in VARIANTS:
        raise unknown("variant", variant, (*VARIANTS, *BASELINES))
    return VARIANTS[variant]


def configure(
    variant: str, recipe: str = "authors", scale: str = "paper", classes: int = 1000, dataset: str | None = None
) -> Configuration:
    """Return the network and recipe of a variant, by names.

    `dataset` is the one to train on: where the authors' notes record another training there, that is the recipe. None
    stands for a dataset that is not in the notes. Raises ReproError with the nearest names for an unknown name.
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
    network = family.bases[recipe].edit(chosen.edit_layer).scaled(size.crop_size, size.width, classes)
    training = family.recorded.get((recipe, dataset or ""), family.recipes[recipe])
    if recipe == "authors" and (schedule := chosen.schedules.get(dataset or "")):
        training = replace(training, schedule=schedule)
    return Configuration(chosen, chosen.edit_network(network), chosen.edit_recipe(training), size)
