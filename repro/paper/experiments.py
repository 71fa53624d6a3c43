"""The experiments: for each table, figure and claim, the nets that it needs, their datasets and evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.paper.baselines import BASELINES
from repro.paper.variants import ancestors_of, members_of


@dataclass(frozen=True)
class Requirement:
    """A net or an ensemble that an experiment needs, trained on a dataset and evaluated on one of its splits.

    Attributes:
        net: name of the variant, ensemble or baseline.
        dataset: name of the dataset.
        recipe: the only recipe that serves the experiment; None for the recipe that the user asks for.
        seeds: number of seeds to train from: 0, 1, …
        split: split to evaluate on.
        views: numbers of test-time views to evaluate with; none if only training counts.
        lrs: grid of initial learning rates; empty for the recipe's. Seed 0 is trained at each, and all seeds at the
            fastest: the one that reaches `until_train_error` in the fewest epochs. Seed 0 chooses, and does not count.
        until_train_error: training error in percent at which a run of a grid ends.
        pretrained_on: dataset on which the same net is trained before; None for random initial weights.
        retrieve: whether to search for the nearest training images of each image of `split`.
        devices: number of devices that hold the net at the paper's scale: 2 for one tower on each of two GPUs.
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
    devices: int = 1


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


EFFECT_SEEDS = 3  # on each side of a comparison of two nets: fewer do not show the spread over seeds


def _compared(*nets: str, dataset: str = "ilsvrc2010", split: str = "test") -> tuple[Requirement, ...]:
    """Nets whose errors are compared, from several seeds each."""
    return tuple(Requirement(net, dataset, seeds=EFFECT_SEEDS, split=split) for net in nets)


def _overfitting(*nets: str, dataset: str) -> tuple[Requirement, ...]:
    """Nets whose errors on training and validation images are compared, both in test mode and with the same view."""
    return tuple(
        Requirement(net, dataset, seeds=EFFECT_SEEDS, split=split, views=(1,))
        for net in nets
        for split in ("train", "val")
    )


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
    cost="5 trainings on ILSVRC-2012; 3 pre-training chains, by the authors' recipe over Fall 2009 and Fall 2011, and "
    "1 over Fall 2009 alone, by the text's recipe over Fall 2011",
    expected="top-1/top-5 validation error 40.7/18.2, 38.1/16.4, 39.0/16.6 and 36.7/15.4",
    requirements=(
        Requirement("alexnet", "ilsvrc2012", seeds=5),
        Requirement("5cnns", "ilsvrc2012"),
        Requirement("conv6-pretrained", "ilsvrc2012", seeds=EFFECT_SEEDS),
        Requirement("7cnns", "ilsvrc2012"),
    ),
)
FALL2009 = Experiment(
    name="fall2009",
    section="6",
    summary="ImageNet Fall 2009: 10,184 classes, half of the images for testing; from random weights and pre-trained",
    cost="2 trainings on half of Fall 2009's 8.9 million images, 28.3 and 6.65 epochs, and 1 on ILSVRC-2012 before",
    expected="top-1/top-5 test error 67.4/40.9 (from random weights; the text does not mention pre-training here)",
    requirements=(
        Requirement("conv6", "fall2009", split="test"),
        Requirement("conv6-fall2009", "fall2009", split="test"),
    ),
)
# Each grid brackets the fastest learning rate of both nets. The likeliest one comes first: those after it are trained
# only as long as they could still be faster.
GRIDS = {"authors": (0.004, 0.008, 0.002, 0.001, 0.016), "fan-in": (0.02, 0.04, 0.01, 0.08, 0.005)}
FIGURE1 = Experiment(
    name="figure1",
    section="3.1",
    summary="Figure 1: ReLU against tanh on CIFAR-10, each at its fastest learning rate",
    cost="32 short trainings on CIFAR-10, of at most 60 epochs: hours on a laptop",
    expected="25% training error in a sixth of the epochs with ReLU (recipe authors)",
    requirements=tuple(
        Requirement(net, "cifar10", recipe, seeds=1 + EFFECT_SEEDS, views=(), lrs=lrs)
        for recipe, lrs in GRIDS.items()
        for net in ("cifar-relu", "cifar-tanh")
    ),
)
CIFAR_LRN = Experiment(
    name="cifar-lrn",
    section="3.3",
    summary="CIFAR-10 with local response normalisation and without",
    cost="6 trainings on CIFAR-10, 520 epochs each; at the smaller scales 10 and 2 epochs, without held-out images",
    expected="test error 13% without normalisation, 11% with it, averaged over ten views",
    requirements=tuple(
        Requirement(net, "cifar10", seeds=EFFECT_SEEDS, split="test", views=(1, 10))
        for net in ("cifar-no-lrn", "cifar-lrn")
    ),
)
FIGURE3 = Experiment(
    name="figure3",
    section="6.1",
    summary="Figure 3: the kernels of conv1",
    cost="1 training on ILSVRC-2010",
    expected="oriented kernels and coloured blobs, the kernels of one tower largely colour-agnostic",
    requirements=(Requirement("alexnet", "ilsvrc2010", views=()),),
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
    section="3, 4, 5",
    summary="What each ingredient contributes: the net without it, on the images of the paper's claim",
    cost="3 trainings of each of 8 nets on ILSVRC-2010 and of 5 nets on ILSVRC-2012",
    expected="top-1/top-5 error rises by 1.7/1.2 with one GPU, 1.4/1.2 without normalisation, 0.4/0.3 without "
    "overlapping pooling, over 1 (top-1) without colour augmentation; more overfitting without dropout or crops",
    requirements=(
        *_compared(
            "alexnet", "one-gpu", "no-colour", "no-dropout", "no-crops", "no-weight-decay", "zero-biases", "tanh"
        ),
        *_overfitting("alexnet", "no-dropout", "no-crops", dataset="ilsvrc2010"),
        *_compared("alexnet", "no-lrn", "no-overlap", "no-cross", "separate-towers", dataset="ilsvrc2012", split="val"),
        *_overfitting("alexnet", "no-overlap", dataset="ilsvrc2012"),
    ),
)
LAYERS = Experiment(
    name="layers",
    section="1, 7",
    summary="What each conv layer contributes: the net without it, and with what else changes held fixed",
    cost="3 trainings of each of 9 nets on ILSVRC-2010",
    expected="top-1 error rises by about 2 without conv3, conv4 or conv5, and rises without conv1 or conv2",
    requirements=_compared(
        "alexnet", "no-conv1", "no-conv2", "no-conv3", "no-conv4", "no-conv5",
        "no-conv3-cross", "no-conv4-wide", "no-conv5-narrow",
    ),
)  # fmt: skip
CONTEST = Experiment(
    name="contest",
    section="6",
    summary="The other rows of Tables 1 and 2, and pixels as a floor, beside the net on the same images; needs the "
    "extra contest",
    cost="3 baselines and 1 training on ILSVRC-2010, 1 and 1 on ILSVRC-2012; the Fisher vectors take 0.7 TB of disk",
    expected="top-1/top-5 error 45.7/25.7 (SIFT + FVs), 47.1/28.2 (sparse coding) and 37.5/17.0 (CNN) on ILSVRC-2010",
    requirements=(
        *(Requirement(name, "ilsvrc2010", split="test", views=(1,)) for name in BASELINES),
        Requirement("alexnet", "ilsvrc2010", split="test"),
        Requirement("sift-fv", "ilsvrc2012", views=(1,)),
        Requirement("alexnet", "ilsvrc2012"),
    ),
)
TWO_GPUS = Experiment(
    name="two-gpus",
    section="3.2",
    summary="Training time of the net on two GPUs, one tower on each, against the one-GPU net; needs two GPUs",
    cost="2 trainings on ILSVRC-2010",
    expected="slightly less time for the net on two GPUs",
    requirements=(
        Requirement("alexnet", "ilsvrc2010", views=(), devices=2),
        Requirement("one-gpu", "ilsvrc2010", views=()),
    ),
)
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
RECIPE_DIFFERENCES = Experiment(
    name="recipes",
    section="3 to 5",
    summary="Not in the paper: from the text's recipe to the program's, one difference at a time, and back",
    cost="3 trainings on ILSVRC-2012 by each recipe, and 3 by each with each of its 6 differences from the other",
    expected="no number of the paper; which differences decide how soon the net leaves chance",
    requirements=tuple(
        Requirement(net, "ilsvrc2012", recipe, seeds=EFFECT_SEEDS, views=(1,))
        for recipe in ("paper", "authors")
        for net in (
            "alexnet", "swap-initialisation", "swap-biases", "swap-normalisation", "swap-colour", "swap-crops",
            "swap-schedule",
        )
    ),
)  # fmt: skip

PARTS = (
    TABLE1, TABLE2, FALL2009, FIGURE1, CIFAR_LRN, FIGURE3, FIGURE4, ABLATIONS, LAYERS, TWO_GPUS, CATSDOGS, CONTEST,
    RECIPE_DIFFERENCES,
)  # fmt: skip
ALL = Experiment(
    name="all",
    section="",
    summary="All of the above except two-gpus, contest and recipes",
    cost="all of the above, each training once",
    expected="the numbers of each experiment",
    requirements=tuple(
        each for part in PARTS if part not in (TWO_GPUS, CONTEST, RECIPE_DIFFERENCES) for each in part.requirements
    ),
)
EXPERIMENTS = {experiment.name: experiment for experiment in (*PARTS, ALL)}
# Nets whose learning rate is chosen for speed, by name and recipe, with the requirement that has the grid.
LR_GRIDS = {(each.net, each.recipe): each for each in ALL.requirements if len(each.lrs) > 1}


def trains(requirement: Requirement, net: str, dataset: str) -> bool:
    """Return whether `net` on `dataset` is what a requirement asks for, or is trained on the way to it."""
    if (requirement.net, requirement.dataset) == (net, dataset):
        return True
    members = [variant for variant, _ in members_of(requirement.net)]
    ancestors = [ancestor for variant in members for ancestor in ancestors_of(variant)]
    trained = [(variant, requirement.dataset) for variant in members]
    return (net, dataset) in [*trained, *((ancestor.name, ancestor.dataset) for ancestor in ancestors)]


def find_experiment(nets: Sequence[str], dataset: str) -> Experiment | None:
    """Return the first experiment that trains all `nets`, variants or ensembles, on `dataset`, if there is one."""
    for experiment in PARTS:
        if all(any(trains(each, net, dataset) for each in experiment.requirements) for net in nets):
            return experiment
    return None


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
