"""The differences between the two recipes: each is exchanged alone, and together they are all there is."""

from dataclasses import fields, replace

import pytest

from repro.paper import differences
from repro.paper.networks import ALEXNET_PROGRAM, ALEXNET_TEXT
from repro.paper.recipes import AUTHORS, PAPER, Recipe
from repro.paper.variants import configure

SWAPS = {
    "swap-initialisation": {"initialisation"},
    "swap-biases": {"bias_lr_ratio", "bias_decay", "unscheduled", "lr_changes"},
    "swap-colour": {"augmentation"},
    "swap-crops": {"augmentation"},
    "swap-schedule": {"schedule", "colour_until", "lr_changes"},
    "swap-normalisation": set(),
}


def changed(one: Recipe, other: Recipe) -> set[str]:
    return {field.name for field in fields(Recipe) if getattr(one, field.name) != getattr(other, field.name)}


@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("variant", SWAPS)
def test_a_swap_changes_one_thing(variant: str, recipe: str) -> None:
    plain, swapped = configure("alexnet", recipe), configure(variant, recipe)
    assert changed(plain.recipe, swapped.recipe) == SWAPS[variant]
    assert (plain.network != swapped.network) == (variant == "swap-normalisation")


@pytest.mark.parametrize(("start", "end"), [(PAPER, AUTHORS), (AUTHORS, PAPER)], ids=["paper", "authors"])
def test_all_swaps_lead_from_one_recipe_to_the_other(start: Recipe, end: Recipe) -> None:
    swapped = start
    for name in ("initialisation", "biases", "colour", "crops", "schedule"):
        swapped = getattr(differences, f"swap_{name}")(swapped)
    assert replace(swapped, name=end.name, source=end.source) == end


def test_networks_are_exchanged() -> None:
    assert configure("swap-normalisation", "authors").network == ALEXNET_TEXT
    assert configure("swap-normalisation", "paper").network == ALEXNET_PROGRAM


def test_the_text_with_the_rate_of_the_programs_biases() -> None:
    recipe = configure("swap-biases", "paper").recipe
    assert recipe.lr_of("conv1.bias", drops=2) == 0.02
    assert recipe.lr_of("conv1.bias", drops=2, epochs=67) == pytest.approx(0.002)
    assert recipe.lr_of("conv1.weight", drops=2) == pytest.approx(0.0001)
    assert recipe.decay_of("conv1.bias") == 0
