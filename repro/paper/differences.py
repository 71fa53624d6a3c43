"""What differs between the text's recipe and the program's, each difference to be exchanged alone.

The variants `swap-…` take one difference from the other recipe: with recipe `paper` they are the text with one choice
of the program, with recipe `authors` the program with one choice of the text. Exchanged normalisation is a change of
the network (`repro.paper.variants`), the others are below. All together turn one recipe into the other.
"""

from __future__ import annotations

from dataclasses import replace

from repro.paper.recipes import RECIPES, LrChange, Recipe


def swap_initialisation(recipe: Recipe) -> Recipe:
    """Exchange the standard deviations of the initial weights (Sec. 5): 0.01, or 0.03 in conv3 to conv5."""
    return replace(recipe, initialisation=_other(recipe).initialisation)


def swap_biases(recipe: Recipe) -> Recipe:
    """Exchange the training of the biases: as the weights, or at twice their rate, undivided and without decay."""
    other = _other(recipe)
    return replace(
        recipe,
        bias_lr_ratio=other.bias_lr_ratio,
        bias_decay=other.bias_decay,
        unscheduled=other.unscheduled,
        lr_changes=_lr_changes(biases=other, weights=recipe),
    )


def swap_schedule(recipe: Recipe) -> Recipe:
    """Exchange when the learning rate is divided: at plateaus (Sec. 5), or at the program's times."""
    other = _other(recipe)
    return replace(
        recipe,
        schedule=other.schedule,
        colour_until=other.colour_until,
        lr_changes=_lr_changes(biases=recipe, weights=other),
    )


def swap_colour(recipe: Recipe) -> Recipe:
    """Exchange the scale of the colour noise (Sec. 4.1): by eigenvalue, or by its square root."""
    return replace(recipe, augmentation=replace(recipe.augmentation, colour=_other(recipe).augmentation.colour))


def swap_crops(recipe: Recipe) -> Recipe:
    """Exchange the crops (Sec. 4.1): one per image, or one for 32 images and the centre of the mean image."""
    other = _other(recipe).augmentation
    crops = replace(recipe.augmentation, draws_shared_by=other.draws_shared_by, mean_of_patch=other.mean_of_patch)
    return replace(recipe, augmentation=crops)


def _other(recipe: Recipe) -> Recipe:
    return RECIPES["authors" if recipe.name == "paper" else "paper"]


def _lr_changes(biases: Recipe, weights: Recipe) -> tuple[LrChange, ...]:
    """Return the changes of the learning rate of the biases alone by one recipe, all others by another."""
    of_biases = (change for change in biases.lr_changes if change.pattern == "*.bias")
    return (*of_biases, *(change for change in weights.lr_changes if change.pattern != "*.bias"))
