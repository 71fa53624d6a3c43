"""The experiments: for each table, figure and claim, the nets that it needs, their datasets and evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """A net or an ensemble that an experiment needs, trained on a dataset and evaluated on one of its splits.

    Attributes:
        net: name of the variant or ensemble.
        dataset: name of the dataset.
        recipe: the only recipe that serves the experiment; None for the recipe that the user asks for.
        seeds: number of seeds to train from: 0, 1, …
        split: split to evaluate on.
        views: numbers of test-time views to evaluate with; none if only training counts.
        lrs: grid of initial learning rates; empty for the recipe's. Seed 0 is trained at each, and all seeds at the
            fastest: the one that reaches `until_train_error` in the fewest epochs.
        until_train_error: training error in percent at which a run of a grid ends.
        pretrained_on: dataset on which the same net is trained before; None for random initial weights.
        retrieve: whether to search for the nearest training images of each image of `split`.
    """

    net: str
    dataset: str
    recipe: str | None = None
    seeds: int = 1
    split: str = "val"
    views: tuple[int, ...] = (10,)
    lrs: tuple[float, ...] = ()
    until_train_error: float = 25.0
    pretrained_on: str | None = None
    retrieve: bool = False


@dataclass(frozen=True)
class Experiment:
    """A table, a figure or a claim of the paper, with everything that is needed to reproduce it.

    Attributes:
        name: the name to give to `repro run`.
        section: section of the paper.
        summary: what the experiment shows.
        cost: trainings at the paper's scale. `repro plan` measures this machine and estimates the hours.
        expected: the paper's numbers at the paper's scale, errors in percent.
        requirements: the nets to train and evaluate, in order.
    """

    name: str
    section: str
    summary: str
    cost: str
    expected: str
    requirements: tuple[Requirement, ...]

    @property
    def command(self) -> str:
        """The command that runs the experiment at the paper's scale."""
        return f"repro run {self.name} --scale paper"

    @property
    def description(self) -> str:
        """The summary with the command, the cost and the numbers to expect."""
        return f"{self.summary}. Command: {self.command}. Cost: {self.cost}. Expect: {self.expected}."


TABLE1 = Experiment(
    name="table1",
    section="6",
    summary="Table 1: ILSVRC-2010, test error with one view and with ten",
    cost="1 training, 93 epochs of 1.26 million images: five to six days on the paper's two GTX 580",
    expected="top-1/top-5 error 37.5/17.0 with ten views, 39.0/18.3 with the centre crop",
    requirements=(Requirement("alexnet", "ilsvrc2010", split="test", views=(1, 10)),),
)
TABLE2 = Experiment(
    name="table2",
    section="6",
    summary="Table 2: ILSVRC-2012, one net, the average of five, a pre-trained net, the average of seven",
    cost="5 trainings on ILSVRC-2012, and 2 pre-training chains over Fall 2009, Fall 2011 and ILSVRC-2012",
    expected="top-1/top-5 validation error 40.7/18.2, 38.1/16.4, 39.0/16.6 and 36.7/15.4",
    requirements=(
        Requirement("alexnet", "ilsvrc2012"),
        Requirement("5cnns", "ilsvrc2012"),
        Requirement("conv6-pretrained", "ilsvrc2012"),
        Requirement("7cnns", "ilsvrc2012"),
    ),
)
FALL2009 = Experiment(
    name="fall2009",
    section="6",
    summary="ImageNet Fall 2009: 10,184 classes, half of the images for testing",
    cost="1 training on ILSVRC-2012 and 1 on half of Fall 2009's 8.9 million images",
    expected="top-1/top-5 test error 67.4/40.9",
    requirements=(Requirement("conv6-fall2009", "fall2009", split="test"),),
)
# Each grid brackets the fastest learning rate of both nets. The likeliest one comes first: those after it are trained
# only as long as they could still be faster.
GRIDS = {"authors": (0.004, 0.008, 0.002, 0.001, 0.016), "fan-in": (0.02, 0.04, 0.01, 0.08, 0.005)}
FIGURE1 = Experiment(
    name="figure1",
    section="3.1",
    summary="Figure 1: ReLU against tanh on CIFAR-10, each at its fastest learning rate",
    cost="28 short trainings on CIFAR-10, of at most 60 epochs: hours on a laptop",
    expected="25% training error in a sixth of the epochs with ReLU (recipe authors)",
    requirements=tuple(
        Requirement(net, "cifar10", recipe, seeds=3, views=(), lrs=lrs)
        for recipe, lrs in GRIDS.items()
        for net in ("cifar-relu", "cifar-tanh")
    ),
)
CIFAR_LRN = Experiment(
    name="cifar-lrn",
    section="3.3",
    summary="CIFAR-10 with local response normalisation and without",
    cost="2 trainings on CIFAR-10, 120 epochs each",
    expected="test error 13% without normalisation, 11% with it",
    requirements=(
        Requirement("cifar-no-lrn", "cifar10", split="test", views=(1,)),
        Requirement("cifar-lrn", "cifar10", split="test", views=(1,)),
    ),
)
FIGURE3 = Experiment(
    name="figure3",
    section="6.1",
    summary="Figure 3: the kernels of conv1",
    cost="1 training on ILSVRC-2012",
    expected="oriented kernels and coloured blobs, the kernels of one tower largely colour-agnostic",
    requirements=(Requirement("alexnet", "ilsvrc2012", views=()),),
)
FIGURE4 = Experiment(
    name="figure4",
    section="6.1",
    summary="Figure 4: test images with their five most probable labels, and their nearest training images",
    cost="1 training on ILSVRC-2010, and fc7 activations of all its training and test images",
    expected="plausible labels; neighbours in fc7 that show the same kind of object and are not close in pixels",
    requirements=(Requirement("alexnet", "ilsvrc2010", split="test", views=(), retrieve=True),),
)
ABLATIONS = Experiment(
    name="ablations",
    section="3, 4, 7",
    summary="What each ingredient contributes: the net without it",
    cost="13 trainings on ILSVRC-2012",
    expected="top-1/top-5 error rises by 1.7/1.2 with one GPU, 1.4/1.2 without normalisation, 0.4/0.3 without "
    "overlapping pooling, over 1 (top-1) without colour augmentation, about 2 (top-1) without a middle layer",
    requirements=tuple(
        Requirement(net, "ilsvrc2012")
        for net in (
            "alexnet", "one-gpu", "no-lrn", "no-overlap", "tanh", "no-dropout", "no-crops", "no-colour",
            "no-weight-decay", "no-conv3", "no-conv4", "no-conv5", "no-cross",
        )
    ),
)  # fmt: skip
CATSDOGS = Experiment(
    name="catsdogs",
    section="6",
    summary="Not in the paper: cats against dogs, with pre-training on ImageNet and without",
    cost="3 trainings on your own images from random weights and 3 fine-tuned; 3 on ILSVRC-2012 before those",
    expected="no number of the paper",
    requirements=(
        Requirement("alexnet", "catsdogs", seeds=3),
        # The learning rate of the authors' fine-tuning.
        Requirement("alexnet", "catsdogs", seeds=3, lrs=(0.001,), pretrained_on="ilsvrc2012"),
    ),
)

PARTS = (TABLE1, TABLE2, FALL2009, FIGURE1, CIFAR_LRN, FIGURE3, FIGURE4, ABLATIONS, CATSDOGS)
ALL = Experiment(
    name="all",
    section="",
    summary="All of the above",
    cost="all of the above, each training once",
    expected="the numbers of each experiment",
    requirements=tuple(requirement for part in PARTS for requirement in part.requirements),
)
EXPERIMENTS = {experiment.name: experiment for experiment in (*PARTS, ALL)}
# Nets whose learning rate is chosen for speed, by name and recipe, with the requirement that has the grid.
LR_GRIDS = {(each.net, each.recipe): each for each in ALL.requirements if len(each.lrs) > 1}


def epochs_to_error(errors: Sequence[float], target: float) -> float | None:
    """Return after how many epochs `errors` (percent, one per epoch) reach `target`; None if they do not.

    Between two epochs, the error is interpolated linearly, as one reads a figure.
    """
    for epoch, error in enumerate(errors, 1):
        if error <= target:
            before = errors[epoch - 2] if epoch > 1 else math.nan
            return epoch - (target - error) / (before - error) if before > target else float(epoch)
    return None


def fastest_lr(errors: Mapping[float, Sequence[float]], target: float) -> float:
    """Return the learning rate whose training errors reach `target` in the fewest epochs.

    `errors` holds the errors by epoch, in percent, of each learning rate. If none reaches `target`, the learning rate
    with the lowest error is the fastest; of equals, the first.
    """

    def speed(lr: float) -> tuple[float, float]:
        reached = epochs_to_error(errors[lr], target)
        lowest = min((error for error in errors[lr] if math.isfinite(error)), default=math.inf)
        return math.inf if reached is None else reached, lowest

    return min(errors, key=speed)
