"""What each table, figure and claim needs: which nets, trained on what, and evaluated how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """A net or an ensemble, by name, trained on `dataset` from `seeds` seeds each and evaluated on `split`.

    `recipe`: the only one that will do; None for whichever the user asks for.
    `views`: the numbers of views to evaluate with; none, if only the training counts. `rates`: a grid of initial
    rates, of which the one that reaches `until` percent of training error soonest is trained from all the seeds;
    empty for the recipe's own. `tuned_from`: the data set on which the net is trained before, if any. `retrieve`:
    the training images nearest to each image of `split` are wanted too.
    """

    net: str
    dataset: str
    recipe: str | None = None
    seeds: int = 1
    split: str = "val"
    views: tuple[int, ...] = (10,)
    rates: tuple[float, ...] = ()
    until: float = 25.0
    tuned_from: str | None = None
    retrieve: bool = False


@dataclass(frozen=True)
class Experiment:
    """A table, a figure or a claim."""

    name: str
    section: str
    shows: str
    needs: tuple[Requirement, ...]


TABLE1 = Experiment(
    "table1", "6", "Table 1: ILSVRC-2010, test error with one view and ten",
    (Requirement("alexnet", "ilsvrc2010", split="test", views=(1, 10)),),
)  # fmt: skip
TABLE2 = Experiment(
    "table2", "6", "Table 2: ILSVRC-2012, one net, five averaged, pre-trained, seven averaged",
    (
        Requirement("alexnet", "ilsvrc2012"),
        Requirement("5cnns", "ilsvrc2012"),
        Requirement("conv6-pretrained", "ilsvrc2012"),
        Requirement("7cnns", "ilsvrc2012"),
    ),
)  # fmt: skip
FALL2009 = Experiment(
    "fall2009", "6", "Fall 2009: 10,184 classes, half of the images for testing",
    (Requirement("conv6-fall2009", "fall2009", split="test"),),
)  # fmt: skip
# Each grid brackets the fastest rate of both nets. The likeliest rate comes first: those after it are trained only as
# long as they could still be faster.
GRIDS = {"authors": (0.004, 0.008, 0.002, 0.001, 0.016), "fan-in": (0.02, 0.04, 0.01, 0.08, 0.005)}
FIGURE1 = Experiment(
    "figure1", "3.1", "Figure 1: ReLU against tanh on CIFAR-10, each at the rate that is fastest for it",
    tuple(
        Requirement(net, "cifar10", recipe, seeds=3, views=(), rates=rates)
        for recipe, rates in GRIDS.items()
        for net in ("cifar-relu", "cifar-tanh")
    ),
)  # fmt: skip
CIFAR_LRN = Experiment(
    "cifar-lrn", "3.3", "CIFAR-10 with normalisation, 11% test error, and without, 13%",
    (
        Requirement("cifar-no-lrn", "cifar10", split="test", views=(1,)),
        Requirement("cifar-lrn", "cifar10", split="test", views=(1,)),
    ),
)  # fmt: skip
FIGURE3 = Experiment(
    "figure3", "6.1", "Figure 3: the kernels of conv1", (Requirement("alexnet", "ilsvrc2012", views=()),)
)  # fmt: skip
FIGURE4 = Experiment(
    "figure4", "6.1", "Figure 4: test images with their five most probable labels, and their nearest training images",
    (Requirement("alexnet", "ilsvrc2010", split="test", views=(), retrieve=True),),
)  # fmt: skip
ABLATIONS = Experiment(
    "ablations", "3, 4, 7", "What each ingredient is worth: the net without it",
    tuple(
        Requirement(net, "ilsvrc2012")
        for net in (
            "alexnet", "one-gpu", "no-lrn", "no-overlap", "tanh", "no-dropout", "no-crops", "no-colour",
            "no-weight-decay", "no-conv3", "no-conv4", "no-conv5", "no-cross",
        )
    ),
)  # fmt: skip

CATSDOGS = Experiment(
    "catsdogs", "6", "Not in the paper: cats against dogs, with pre-training on ImageNet and without",
    (
        Requirement("alexnet", "catsdogs", seeds=3),
        # The rate of the authors' fine-tuning.
        Requirement("alexnet", "catsdogs", seeds=3, rates=(0.001,), tuned_from="ilsvrc2012"),
    ),
)  # fmt: skip

PARTS = (TABLE1, TABLE2, FALL2009, FIGURE1, CIFAR_LRN, FIGURE3, FIGURE4, ABLATIONS, CATSDOGS)
ALL = Experiment("all", "", "everything above", tuple(need for part in PARTS for need in part.needs))
EXPERIMENTS = {experiment.name: experiment for experiment in (*PARTS, ALL)}
# The nets whose rate is chosen for speed, by name and recipe, with what it is chosen from.
LR_GRIDS = {(need.net, need.recipe): need for need in ALL.needs if len(need.rates) > 1}


def epochs_to_error(errors: Sequence[float], until: float) -> float | None:
    """The epoch, counted from 1, at which `errors` (percent, one an epoch) come to `until`; None if they do not.

    Between two epochs it is read off the straight line, as one reads it off a figure.
    """
    for epoch, error in enumerate(errors, 1):
        if error <= until:
            before = errors[epoch - 2] if epoch > 1 else math.nan
            return epoch - (until - error) / (before - error) if before > until else float(epoch)
    return None


def fastest_lr(courses: Mapping[float, Sequence[float]], until: float) -> float:
    """Of the rates of `courses`, each with its training errors by epoch, the one that comes to `until` soonest.

    If none does, the one that comes closest; of equals the first.
    """

    def soonest(rate: float) -> tuple[float, float]:
        reached = epochs_to_error(courses[rate], until)
        lowest = min((error for error in courses[rate] if math.isfinite(error)), default=math.inf)
        return math.inf if reached is None else reached, lowest

    return min(courses, key=soonest)


@dataclass(frozen=True)
class DatasetSize:
    """How large a data set is: images by split, and classes."""

    train: int
    held_out: int
    classes: int


# Sec. 2 and 6. Fall 2009's images are halved; of Fall 2011's none are held out.
DATASET_SIZES = {
    "ilsvrc2010": DatasetSize(1_261_406, 200_000, 1000),
    "ilsvrc2012": DatasetSize(1_281_167, 50_000, 1000),
    "fall2009": DatasetSize(4_450_000, 4_450_000, 10_184),
    "fall2011": DatasetSize(15_000_000, 0, 21_841),
    "cifar10": DatasetSize(50_000, 10_000, 10),
    "catsdogs": DatasetSize(20_000, 5_000, 2),
}
IMAGENET = ("ilsvrc2010", "ilsvrc2012", "fall2009", "fall2011")
# What stands in for every ImageNet set at the smaller scales: ten classes such as Imagenette's, and generated images.
STAND_INS = {"small": DatasetSize(9_469, 3_925, 10), "smoke": DatasetSize(300, 600, 10)}


def dataset_size(dataset: str, scale: str) -> DatasetSize:
    """How large `dataset`, or what stands in for it, is at `scale`."""
    if scale == "smoke" or (dataset in IMAGENET and scale in STAND_INS):
        return STAND_INS[scale]
    return DATASET_SIZES[dataset]
