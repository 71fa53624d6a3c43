"""The recipes against what the authors' notes record, layer by layer and stage by stage."""

import math
from itertools import product

import pytest

from repro.paper.networks import Conv, Linear, Local
from repro.paper.recipes import AUTHORS, AUTHORS_2012, PAPER, Recipe, Steps
from repro.paper.variants import configure, members_of

LATER = 10_000  # updates: past every change that counts updates
CONV = ("conv1", "conv2", "conv3", "conv4", "conv5")
CONV6 = (*CONV, "conv6")


def rates(recipe: Recipe, layers: tuple[str, ...], kind: str, passes: float, updates: int = LATER) -> list[float]:
    """The learning rate of each of `layers` after `passes` over the training set."""
    assert isinstance(recipe.schedule, Steps)
    drops = sum(passes >= after for after in recipe.schedule.after)
    return [recipe.lr_of(f"{layer}.{kind}", drops, passes, updates) for layer in layers]


@pytest.mark.parametrize(
    ("parameter", "drops", "passes", "lr"),
    [
        ("conv3.weight", 0, 0, 0.01), ("conv3.weight", 1, 23, 0.001),
        # The biases' learning rate stays while the weights' is divided.
        ("conv3.bias", 0, 0, 0.02), ("conv3.bias", 2, 65.9, 0.02), ("conv3.bias", 2, 66, 0.002),
        ("conv1.weight", 2, 65.9, 0.0001), ("conv1.weight", 2, 66, 0.00001), ("conv1.weight", 2, 71, 0.0),
        ("conv2.weight", 2, 71, 0.0001), ("conv1.bias", 2, 71, 0.0),
    ],
)  # fmt: skip
def test_the_run_on_2010(parameter: str, drops: int, passes: float, lr: float) -> None:
    assert AUTHORS.lr_of(parameter, drops, passes) == pytest.approx(lr)


def test_by_the_text_all_layers_have_one_learning_rate() -> None:
    assert PAPER.lr_of("conv1.weight") == PAPER.lr_of("fc8.bias") == 0.01
    assert PAPER.lr_of("fc8.bias", 2, 80) == pytest.approx(0.0001)


def test_the_run_on_2012_ends_with_the_first_rate_of_the_biases_and_conv1_at_0() -> None:
    assert AUTHORS_2012.lr_of("conv1.bias", 3, 90.9) == AUTHORS_2012.lr_of("conv1.weight", 3, 90.9) == 0
    for layer in (*CONV[1:], "fc6", "fc7", "fc8"):
        assert AUTHORS_2012.lr_of(f"{layer}.bias", 3, 90.9) == pytest.approx(0.02)
        assert AUTHORS.lr_of(f"{layer}.bias", 3, 92.9) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("variant", "dataset", "after", "epochs"),
    [
        ("alexnet", "ilsvrc2010", (23, 51, 78), 93), ("alexnet", "ilsvrc2012", (25, 51, 79), 91),
        ("alexnet", "imagenette", (23, 51, 78), 93), ("one-gpu", "ilsvrc2010", (20, 48), 96),
        ("one-gpu", "ilsvrc2012", (25, 51, 79), 91), ("no-lrn", "ilsvrc2012", (22, 44, 86), 97),
        ("no-overlap", "ilsvrc2012", (23, 51, 79), 90), ("separate-towers", "ilsvrc2012", (25, 49, 79), 92),
        ("conv6", "fall2009", (6.26, 13.34, 25.37), 28.3), ("conv6", "ilsvrc2012", (25, 51, 79), 91),
        ("conv6-fall2009", "fall2009", (2.16,), 6.65), ("conv6-fall2011", "fall2011", (6,), 8.11),
        ("conv6-pretrained", "ilsvrc2012", (22, 42), 54),
        ("conv6-pretrained-fall2009", "ilsvrc2012", (22, 42), 52),
    ],
)  # fmt: skip
def test_each_net_has_the_recorded_schedule_of_its_dataset(
    variant: str, dataset: str, after: tuple[float, ...], epochs: float
) -> None:
    configuration = configure(variant, "authors", dataset=dataset)
    assert configuration.recipe.schedule == Steps(after, epochs)
    assert configuration.length == epochs
    assert configuration.epochs == math.ceil(epochs)
    small = configure(variant, "authors", "small", dataset=dataset)
    assert small.length == small.epochs == 30


# The pre-training chain of net 146: the learning rates of the weights and biases of every layer in each span of time.
# conv1, conv2–conv5, conv6, fc6 and fc7 (and the bottleneck), fc8.
STAGE1 = {
    (0, 2.15): ((0.001, 0.001, 0.01, 0.01, 0.01), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (2.16, 6.65): ((0.001, 0.001, 0.001, 0.001, 0.001), (0.02, 0.02, 0.002, 0.02, 0.02)),
}
STAGE2 = {
    (0, 5.99): ((0.001, 0.001, 0.001, 0.01, 0.01), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (6, 8.11): ((0.001, 0.001, 0.001, 0.001, 0.001), (0.02, 0.02, 0.002, 0.02, 0.02)),
}
STAGE3A = {
    (0.01, 4.99): ((0.0001, 0.001, 0.001, 0.001, 0.01), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (5, 6.99): ((0.00001, 0.001, 0.001, 0.001, 0.01), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (7, 8.99): ((0, 0.001, 0.001, 0.001, 0.01), (0, 0.02, 0.002, 0.02, 0.02)),
    (9, 21.99): ((0, 0.001, 0.001, 0.001, 0.001), (0, 0.02, 0.002, 0.02, 0.02)),
    (22, 41.99): ((0, 0.0001, 0.0001, 0.0001, 0.0001), (0, 0.02, 0.002, 0.02, 0.02)),
    (42, 54): ((0, 0.00001, 0.00001, 0.00001, 0.00001), (0, 0.02, 0.022, 0.02, 0.02)),
}
STAGE3B = {
    (0, 2.99): ((0.0001, 0.001, 0.001, 0.001, 0.001), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (3, 3.99): ((0.00001, 0.001, 0.001, 0.001, 0.001), (0.02, 0.02, 0.002, 0.02, 0.02)),
    (4, 21.99): ((0, 0.001, 0.001, 0.001, 0.001), (0, 0.02, 0.002, 0.02, 0.02)),
    (22, 41.99): ((0, 0.0001, 0.0001, 0.0001, 0.0001), (0, 0.02, 0.002, 0.02, 0.02)),
    (42, 52): ((0, 0.00001, 0.00001, 0.00001, 0.00001), (0, 0.02, 0.002, 0.02, 0.02)),
}
CHAIN = {
    "conv6-fall2009": STAGE1, "conv6-fall2011": STAGE2,
    "conv6-pretrained": STAGE3A, "conv6-pretrained-fall2009": STAGE3B,
}  # fmt: skip


@pytest.mark.parametrize("variant", CHAIN)
def test_every_layer_of_the_pretraining_chain_learns_at_the_recorded_rate(variant: str) -> None:
    configuration = configure(variant, "authors", dataset="fall2009" if variant == "conv6-fall2009" else "ilsvrc2012")
    recipe = configuration.recipe
    assert (recipe.momentum, recipe.weight_decay, recipe.decay_of("fc8.bias")) == (0.9, 0.0005, 0.0)
    layers = tuple(layer.name for layer in configuration.network.layers if isinstance(layer, Conv | Linear))
    assert layers[:6] == CONV6
    place = {"conv1": 0, "conv6": 2, "fc6": 3, "fc7": 3, "bottleneck": 3, "fc8": 4}
    for (start, end), (weights, biases) in CHAIN[variant].items():
        for passes, (kind, expected) in product((start, end), (("weight", weights), ("bias", biases))):
            found = rates(recipe, layers, kind, passes)
            assert found == pytest.approx([expected[place.get(layer, 1)] for layer in layers]), (passes, kind)


def test_the_last_layer_learns_faster_only_from_update_300_on() -> None:
    recipe = configure("conv6-pretrained").recipe
    assert rates(recipe, ("fc7", "fc8"), "weight", 0.02, 299) == pytest.approx([0.001, 0.001])
    assert rates(recipe, ("fc7", "fc8"), "weight", 0.03, 300) == pytest.approx([0.001, 0.01])
    assert rates(recipe, ("fc8",), "bias", 0.03, 300) == pytest.approx([0.02])


def test_what_each_stage_of_the_chain_loads_and_when_its_colour_augmentation_ends() -> None:
    recipes = {variant: configure(variant).recipe for variant in CHAIN}
    assert [recipes[variant].colour_until for variant in CHAIN] == [None, None, 38, 38]
    assert {configure(each, dataset="ilsvrc2012").starts_from for each in CHAIN} == {
        "alexnet", "conv6-fall2009", "conv6-fall2011",
    }  # fmt: skip
    assert configure("conv6-pretrained-fall2009").starts_from == "conv6-fall2009"
    assert recipes["conv6-pretrained"].load_patterns == ("conv*", "fc6.*", "fc7.*")


def test_fall_2011_has_a_linear_bottleneck_below_its_outputs() -> None:
    network = configure("conv6-fall2011", classes=21_843).network
    assert network.layers[-2:] == (Linear("bottleneck", 2 * 1024), Linear("fc8", 21_843))
    assert not any(layer.name == "bottleneck" for layer in configure("conv6-fall2011", "paper").network.layers)


def test_the_net_on_fall_2009_starts_from_random_weights_and_follows_net_141() -> None:
    configuration = configure("conv6", "authors", dataset="fall2009")
    recipe = configuration.recipe
    assert configuration.starts_from is None
    assert recipe.colour_until == 18.24
    layers = ("conv1", "conv2", "conv3", "conv6", "fc8")
    assert rates(recipe, layers, "weight", 6.25) == pytest.approx([0.01] * 5)
    assert rates(recipe, layers, "weight", 6.26) == pytest.approx([0.001] * 5)
    assert rates(recipe, layers, "weight", 18.24) == pytest.approx([0.00001, 0.00001, 0.0001, 0.0001, 0.0001])
    assert rates(recipe, layers, "weight", 21.19) == pytest.approx([0, 0, 0.0001, 0.0001, 0.0001])
    assert rates(recipe, layers, "weight", 25.37) == pytest.approx([0, 0, 0.00001, 0.00001, 0.00001])


def test_the_average_of_seven_is_read_by_each_recipe_as_its_source_says() -> None:
    assert dict(members_of("7cnns", recipe="paper")) == {"alexnet": 5, "conv6-pretrained": 2}
    assert dict(members_of("7cnns", recipe="authors")) == {
        "alexnet": 5, "conv6-pretrained": 1, "conv6-pretrained-fall2009": 1,
    }  # fmt: skip
    for recipe in ("paper", "authors"):
        for variant, _ in members_of("7cnns", recipe=recipe):
            assert configure(variant, recipe).recipe.name == recipe


@pytest.mark.parametrize(("variant", "fc10"), [("cifar-no-lrn", 0.004), ("cifar-lrn", 0.01)])
def test_the_13_and_11_percent_nets_are_trained_as_recorded(variant: str, fc10: float) -> None:
    configuration = configure(variant)
    recipe, schedule = configuration.recipe, configuration.recipe.schedule
    learned = [layer.name for layer in configuration.network.layers if isinstance(layer, Conv | Local | Linear)]
    assert [recipe.decay_of(f"{layer}.weight") for layer in learned] == [0, 0, 0.004, 0.004, fc10]
    assert {recipe.decay_of(f"{layer}.bias") for layer in learned} == {0}
    # About 350 epochs with the fifth batch held out, 150 with all images, and 10 at each lower learning rate.
    assert recipe.held_out
    assert (recipe.held_out.share, recipe.held_out.epochs) == (0.2, 350)
    assert schedule == Steps(after=(500, 510), epochs=520)
    assert recipe.lr_of("conv1.weight", 1) == pytest.approx(0.0001)
    assert recipe.lr_of("conv1.bias", 2) == pytest.approx(0.002)  # only the weights' learning rate is divided
    assert configuration.scale.crop_size == 24


def test_figure_1_is_trained_without_any_regularisation() -> None:
    for variant, recipe in product(("cifar-relu", "cifar-tanh"), ("authors", "fan-in")):
        training = configure(variant, recipe).recipe
        assert training.weight_decay == 0
        assert training.weight_decay_of == ()
        assert training.augmentation.colour is None
        assert not training.augmentation.crops
        assert not training.augmentation.mirror
