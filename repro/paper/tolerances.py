"""Tolerances of errors and of their differences, derived by one function from what is known of their variation.

The paper's number and ours are taken on the same images. The error of one net on them varies with variance

    v = spread² + differing / (2 · images)

where `spread` is the standard deviation of the error over seeds on an unlimited number of images, and `differing` the
share of the images on which exactly one of two nets of the same recipe is wrong. How hard the images are as a whole is
common to both numbers and cancels. A mean of n nets has variance v / n, and numbers of different nets add.

The authors published no repeated runs, so that the variations below are assumptions, fixed beforehand. Later
reproductions of the net lie within such a band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.stats import norm

from repro.paper.datasets import DATASET_SIZES, PRIVATE_TEST_IMAGES
from repro.paper.variants import ENSEMBLES, members_of

if TYPE_CHECKING:
    from repro.paper.targets import Target

TWO_SIDED, ONE_SIDED = float(norm.ppf(0.975)), float(norm.ppf(0.95))
MIN_SEEDS = 3  # of each net, to attribute a difference of two nets to what distinguishes them


@dataclass(frozen=True)
class Variation:
    """How a quantity varies from net to net.

    Attributes:
        spread: standard deviation over seeds on an unlimited number of images, in points.
        differing: share of the images on which exactly one of two such nets is wrong.
    """

    spread: float
    differing: float

    def variance(self, images: int) -> float:
        """Return the variance over seeds on a fixed set of `images`, in squared points."""
        return self.spread**2 + 100**2 * self.differing / (2 * images)


# By metric: one net; an average of five or more; one net with one view minus the same net with ten, where `differing`
# is twice the share of the images that the two tell apart; one of the CIFAR-10 nets.
NET = {"top1_error": Variation(0.2, 0.2), "top5_error": Variation(0.15, 0.1)}
ENSEMBLE = {"top1_error": Variation(0.1, 0.1), "top5_error": Variation(0.07, 0.05)}
VIEWS = {"top1_error": Variation(0.1, 0.2), "top5_error": Variation(0.05, 0.1)}
CIFAR_NET = {"top1_error": Variation(0.3, 0.08)}


def derive_tolerance(theirs: float, ours: float, rounding: float, one_sided: bool = False) -> float:
    """Return the largest difference of the paper's number and ours that their variation explains.

    Args:
        theirs: variance of the paper's number, see `Variation.variance`.
        ours: variance of ours.
        rounding: half a unit of the last printed digit, doubled if the number is a difference of two printed ones.
        one_sided: whether the claim is a bound.

    The result is in points, rounded to two digits. Two runs of one recipe differ by more with probability 5%.
    """
    return round((ONE_SIDED if one_sided else TWO_SIDED) * math.sqrt(theirs + ours) + rounding, 2)


def tolerance_of_errors(target: Target) -> tuple[float, str]:
    """Return the tolerance of an error or of a difference of two errors, and how it is derived."""
    assert target.dataset is not None
    assert target.split is not None
    images = DATASET_SIZES[target.dataset].images.get(target.split) or PRIVATE_TEST_IMAGES[target.dataset]
    net = _variation(target.variant, target).variance(images)
    if target.baseline is None:
        theirs, ours, nets = net, net, "one run"
    elif target.baseline_views:
        theirs = ours = VIEWS[target.measure].variance(images)
        nets = "one net with both numbers of views"
    else:
        baseline = _variation(target.baseline, target).variance(images)
        theirs = net + baseline
        if target.within_net:
            members = sum(seeds for _, seeds in members_of(target.baseline))
            ours, nets = net / members + baseline, f"the average and its {members} nets"
        else:
            ours, nets = theirs / MIN_SEEDS, f"{MIN_SEEDS} runs of each net"
    one_sided = target.relation != "equal"
    rounding = target.rounding or 0.0
    factor = ONE_SIDED if one_sided else TWO_SIDED
    reason = f"{factor:.2f}·√({math.sqrt(theirs):.2f}² + {math.sqrt(ours):.2f}²) + {rounding:g}: variation of the "
    reason += f"paper's number and of ours ({nets}) over seeds on the same {images:,} images; rounding"
    return derive_tolerance(theirs, ours, rounding, one_sided), reason


def _variation(net: str, target: Target) -> Variation:
    if net in ENSEMBLES:
        return ENSEMBLE[target.measure]
    return (CIFAR_NET if target.dataset == "cifar10" else NET)[target.measure]
