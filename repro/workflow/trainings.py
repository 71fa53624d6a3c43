"""The trainings that a requirement of an experiment implies, whatever the scale and wherever the runs are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from repro.paper.baselines import BASELINES
from repro.paper.experiments import Requirement
from repro.paper.variants import ancestors_of, find_variant, members_of


@dataclass(frozen=True)
class PlannedTraining:
    """A training of a variant on a dataset.

    Attributes:
        variant: name of the variant.
        dataset: name of the dataset.
        seed: the seed.
        lr: initial learning rate; None for the recipe's.
        origin: the training whose weights it starts with; None for random weights.
        fine_tuned: whether the experiment, rather than the variant, demands the origin.
    """

    variant: str
    dataset: str
    seed: int
    lr: float | None = None
    origin: PlannedTraining | None = None
    fine_tuned: bool = False

    @property
    def lineage(self) -> tuple[PlannedTraining, ...]:
        """The trainings whose weights it builds on, the earliest first, and itself."""
        return (*(self.origin.lineage if self.origin else ()), self)


def plan_training(
    variant: str,
    dataset: str,
    seed: int,
    lr: float | None = None,
    pretrained_on: str | None = None,
    recipe: str = "authors",
) -> PlannedTraining:
    """Return the training of a variant, with the origin that the variant or `pretrained_on`, a dataset, demands.

    `recipe` is the one asked for: a variant that does not have it is trained by the only one that it has.
    """
    origin = None
    if pretrained_on:
        origin = plan_training(variant, pretrained_on, seed, recipe=recipe)
    elif ancestors := ancestors_of(variant, find_variant(variant).recipe_for(recipe)):
        origin = plan_training(ancestors[0].name, ancestors[0].dataset, seed, recipe=recipe)
    return PlannedTraining(variant, dataset, seed, lr, origin, pretrained_on is not None)


def grid_of(requirement: Requirement) -> tuple[PlannedTraining, ...]:
    """Return the trainings of seed 0 at each learning rate of a requirement's grid, in the grid's order."""
    net, dataset, pretrained_on = requirement.net, requirement.dataset, requirement.pretrained_on
    return tuple(plan_training(net, dataset, 0, lr, pretrained_on) for lr in requirement.lrs)


def members_from_seeds(
    requirement: Requirement, lr: float | None, recipe: str = "authors"
) -> tuple[PlannedTraining, ...]:
    """Return the trainings of a requirement's members from all their seeds, at the learning rate `lr`."""
    return tuple(
        plan_training(variant, requirement.dataset, seed, lr, requirement.pretrained_on, recipe)
        for variant, seeds in members_of(requirement.net, requirement.seeds, recipe)
        for seed in range(seeds)
    )


def trainings_of(requirement: Requirement) -> Iterator[PlannedTraining]:
    """Yield every training that a requirement implies, origins included, possibly more than once.

    Of a grid, the first learning rate takes the place of the fastest, which only the training shows. A baseline is no
    training of a net.
    """
    if requirement.net in BASELINES:
        return
    lr = requirement.lrs[0] if requirement.lrs else None
    for training in (*grid_of(requirement), *members_from_seeds(requirement, lr)):
        yield from training.lineage
