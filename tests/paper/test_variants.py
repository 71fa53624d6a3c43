"""The variants' networks: what each changes, and what it holds fixed."""

import pytest

from repro.paper.arithmetic import count, parameters
from repro.paper.communication import transfers
from repro.paper.networks import Conv, Linear, TowerLinear
from repro.paper.variants import VARIANTS, configure

PARAMETERS = 60_965_224  # of the paper's net


def sizes(variant: str, recipe: str) -> dict[str, tuple[int, int]]:
    """Number and side of the output maps of each layer with weights or pooling."""
    return {row.layer.name: (row.maps, row.size) for row in count(configure(variant, recipe).network)}


def below_fc6(variant: str, recipe: str) -> list[str]:
    """The conv layers at which the towers communicate."""
    return [each.layer for each in transfers(configure(variant, recipe).network) if each.layer.startswith("conv")]


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_removing_a_middle_layer_changes_more_than_the_layer(recipe: str) -> None:
    assert below_fc6("alexnet", recipe) == ["conv3"]
    assert below_fc6("no-conv3", recipe) == []
    assert below_fc6("no-conv3-cross", recipe) == ["conv4"]
    assert below_fc6("no-conv4", recipe) == below_fc6("no-conv5", recipe) == ["conv3"]
    assert parameters(configure("no-conv5", recipe).network) / PARAMETERS == pytest.approx(1.302, abs=0.001)


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_the_controls_hold_the_number_of_parameters(recipe: str) -> None:
    assert parameters(configure("no-conv4-wide", recipe).network) == PARAMETERS - 192
    assert parameters(configure("no-conv5-narrow", recipe).network) == PARAMETERS + 8_956
    # With communication and fc6 held, removing conv3 gives the net of no-conv4 under other names.
    one, other = (configure(variant, recipe).network for variant in ("no-conv3-cross", "no-conv4"))
    assert [(row.maps, row.size, row.parameters) for row in count(one)] == [
        (row.maps, row.size, row.parameters) for row in count(other)
    ]


@pytest.mark.parametrize("scale", ["small", "smoke"])
@pytest.mark.parametrize("classes", [10, 100])
def test_the_controls_hold_it_at_every_scale(scale: str, classes: int) -> None:
    """Less the biases of conv4, and to half of what a unit of fc6 has."""
    whole, wide, narrow = (
        parameters(configure(variant, "authors", scale, classes).network)
        for variant in ("alexnet", "no-conv4-wide", "no-conv5-narrow")
    )
    (unit,) = (row.kernel_depth + 2049 for row in count(configure("no-conv5", "authors", scale, classes).network)
               if row.layer.name == "fc6")  # fmt: skip
    assert wide == whole - 96
    assert abs(narrow - whole) <= unit / 2


@pytest.mark.parametrize("recipe", ["authors", "paper"])
@pytest.mark.parametrize("variant", ["no-conv1", "no-conv2"])
def test_layers_above_a_removed_first_layer_keep_their_sizes(variant: str, recipe: str) -> None:
    whole, found = sizes("alexnet", recipe), sizes(variant, recipe)
    removed = variant.removeprefix("no-")
    assert set(whole) - set(found) == {
        name for name in whole if name in (removed, f"relu{removed[-1]}", f"lrn{removed[-1]}", f"spatial{removed[-1]}")
    }
    above = ("pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
    assert [found[name][1] for name in above] == [whole[name][1] for name in above]
    first = next(layer for layer in configure(variant, recipe).network.layers if isinstance(layer, Conv))
    assert found[first.name][1] == 55


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_the_separate_towers_are_net_150(recipe: str) -> None:
    network = configure("separate-towers", recipe).network
    layers = {layer.name: layer for layer in network.layers}
    assert layers["conv2"] == Conv("conv2", 320, 5, padding=2, towers=2)
    assert layers["fc6"] == TowerLinear("fc6", 8192)
    assert layers["fc7"] == TowerLinear("fc7", 8192)
    assert layers["fc8"] == Linear("fc8", 1000)
    # Only the images, the dropout masks, fc8 and the softmax cross; 4096 units of a tower see 128·6·6 values of it.
    assert [each.layer for each in transfers(network)] == ["images", "drop6", "drop7", "fc8", "softmax"]
    rows = {row.layer.name: row for row in count(network)}
    assert rows["fc6"].parameters == 2 * (4096 * 128 * 36 + 4096)
    assert rows["fc7"].parameters == 2 * (4096 * 4096 + 4096)


def test_no_cross_changes_the_communication_alone() -> None:
    network = configure("no-cross", "paper").network
    assert [each.layer for each in transfers(network)][:2] == ["images", "fc6"]
    assert sizes("no-cross", "paper") == sizes("alexnet", "paper")
    assert VARIANTS["no-cross"].expected == "not in the paper"


def test_biases_that_start_at_zero_are_the_only_change() -> None:
    whole, zero = configure("alexnet"), configure("zero-biases")
    assert zero.network == whole.network
    assert zero.recipe.initialisation.ones == ()
    assert zero.recipe.initialisation.std_of == whole.recipe.initialisation.std_of
