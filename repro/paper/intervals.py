"""Intervals for what is measured: one error, a difference on the same images, a spread over seeds. All are 95%."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm, t, ttest_ind

LEVEL = 0.95

Interval = tuple[float, float]


def error_interval(wrong: int, images: int) -> Interval:
    """The exact (Clopper–Pearson) interval of an error of `wrong` among `images`, in percent from 0 to 100."""
    if not 0 <= wrong <= images or images == 0:
        raise ValueError(f"{wrong} wrong of {images} images is no error rate")
    tail = (1 - LEVEL) / 2
    low = 0.0 if wrong == 0 else float(beta.ppf(tail, wrong, images - wrong + 1))
    high = 1.0 if wrong == images else float(beta.ppf(1 - tail, wrong + 1, images - wrong))
    return 100 * low, 100 * high


def paired_interval(only_first: int, only_second: int, images: int) -> Interval:
    """The interval of error(first) − error(second) on the same `images`, in points from −100 to 100.

    `only_first` images are wrong for the first model alone, `only_second` for the second alone. It is Tango's
    score interval (1998): it leaves out 0 exactly when McNemar's test (without continuity correction) finds
    the two models different at 5%, and keeps its level when few images tell the models apart.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > images or images == 0:
        raise ValueError(f"{only_first} and {only_second} of {images} images cannot be told apart by two models")
    z = float(norm.ppf((1 + LEVEL) / 2))

    def score(difference: float) -> float:
        """The score statistic of a true `difference`; falls from +∞ to −∞ over −1 … 1."""
        # The share wrong for the second alone, at its most likely under that difference.
        a = 2 * images
        b = -only_first - only_second + (2 * images - only_first + only_second) * difference
        c = -only_second * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = images * (2 * share + difference * (1 - difference))
        distance = only_first - only_second - images * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    observed = (only_first - only_second) / images

    def bound(edge: float, target: float) -> float:
        """Where between `edge` and the observed difference the score is `target`."""
        if abs(observed - edge) < 1e-12:
            return edge

        def excess(difference: float) -> float:
            # At the edge the score is infinite: its sign is what the search needs.
            return min(max(score(difference), -1e9), 1e9) - target

        return float(brentq(excess, min(edge, observed), max(edge, observed), xtol=1e-12))

    return 100 * bound(-1.0, z), 100 * bound(1.0, -z)


def seed_interval(values: Sequence[float]) -> Interval | None:
    """The t interval of the mean of `values`, one per seed; None for fewer than two."""
    if len(values) < 2:
        return None
    half = seed_factor(len(values)) * float(np.std(values, ddof=1))
    mean = float(np.mean(values))
    return mean - half, mean + half


def seed_factor(count: int) -> float:
    """How many standard deviations of `count` ≥ 2 seeds lie between their mean and the end of its t interval."""
    return float(t.ppf((1 + LEVEL) / 2, count - 1)) / math.sqrt(count)


def welch_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """The interval of mean(first) − mean(second), two independent samples of unequal variance (Welch).

    None for fewer than two values in either sample.
    """
    if min(len(first), len(second)) < 2:
        return None
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(LEVEL)
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The interval of the mean of many `values`, one per image (normal approximation)."""
    values = np.asarray(values, float)
    half = (
        float(norm.ppf((1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
    )
    return float(values.mean()) - half, float(values.mean()) + half
