"""Confidence intervals: of an error, of a difference on the same images, of means over seeds. All are 95%.

Intervals over seeds carry the sampling of the images too. All seeds are evaluated on the same images, so that more
seeds do not reduce it. The two half-widths, of the seeds from Student's t and of the images from the normal
distribution, add in squares: the interval does not collapse when the seeds agree by chance, and covers the mean over
all seeds and images at least as often as it states.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm, t

LEVEL = 0.95
Z = float(norm.ppf((1 + LEVEL) / 2))

Interval = tuple[float, float]


def error_interval(wrong: int, images: int) -> Interval:
    """Return the exact (Clopper–Pearson) interval of an error of `wrong` among `images`, in percent from 0 to 100."""
    if not 0 <= wrong <= images or images == 0:
        raise ValueError(f"{wrong} wrong of {images} images is not an error rate")
    tail = (1 - LEVEL) / 2
    low = 0.0 if wrong == 0 else float(beta.ppf(tail, wrong, images - wrong + 1))
    high = 1.0 if wrong == images else float(beta.ppf(1 - tail, wrong + 1, images - wrong))
    return 100 * low, 100 * high


def paired_interval(only_first: int, only_second: int, images: int) -> Interval:
    """Return the interval of error(first) − error(second) on the same `images`, in points from −100 to 100.

    `only_first` images are wrong for the first model alone, `only_second` for the second alone. It is Tango's
    score interval (1998): it excludes 0 exactly when McNemar's test (without continuity correction) finds the
    two models different at 5%, and keeps its level when few images distinguish the models.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > images or images == 0:
        raise ValueError(f"{only_first} and {only_second} of {images} images cannot be wrong for one model alone")

    def score(difference: float) -> float:
        """Return the score statistic of a true `difference`; it falls from +∞ to −∞ over −1 … 1."""
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
        """Return where between `edge` and the observed difference the score is `target`."""
        if abs(observed - edge) < 1e-12:
            return edge

        def excess(difference: float) -> float:
            # At the edge the score is infinite: its sign is what the search needs.
            return min(max(score(difference), -1e9), 1e9) - target

        return float(brentq(excess, min(edge, observed), max(edge, observed), xtol=1e-12))

    return 100 * bound(-1.0, Z), 100 * bound(1.0, -Z)


def image_error(first: np.ndarray, second: np.ndarray | None = None) -> float:
    """Return the standard error, in points, of a mean error from the sampling of the images.

    `first` are the wrong answers of the nets of one kind, [nets, images] bool. With `second`, on the same images, the
    result is that of the difference of the two means.
    """
    per_image = first.mean(axis=0) - (0.0 if second is None else second.mean(axis=0))
    return 100 * float(per_image.std(ddof=1)) / math.sqrt(len(per_image)) if len(per_image) > 1 else math.inf


def seed_interval(values: Sequence[float], image_error: float = 0.0) -> Interval | None:
    """Return the t interval of the mean of `values`, one per seed; None for fewer than two.

    `image_error`: standard error of that mean from the sampling of the images.
    """
    if len(values) < 2:
        return None
    half = math.hypot(seed_factor(len(values)) * float(np.std(values, ddof=1)), Z * image_error)
    mean = float(np.mean(values))
    return mean - half, mean + half


def rate_interval(values: Sequence[float], image_error: float = 0.0) -> Interval | None:
    """Return the interval of `seed_interval` for rates in percent: what lies below 0 or above 100 is cut off."""
    interval = seed_interval(values, image_error)
    return interval and (max(interval[0], 0.0), min(interval[1], 100.0))


def seed_factor(count: int) -> float:
    """Return the half-width of the t interval of the mean of `count` ≥ 2 seeds, in standard deviations."""
    return float(t.ppf((1 + LEVEL) / 2, count - 1)) / math.sqrt(count)


def welch_interval(first: Sequence[float], second: Sequence[float], image_error: float = 0.0) -> Interval | None:
    """Return the interval of mean(first) − mean(second), two independent samples of unequal variance (Welch).

    `image_error`: standard error of that difference from the sampling of the images. None for fewer than two values in
    either sample.
    """
    if min(len(first), len(second)) < 2:
        return None
    difference = float(np.mean(first) - np.mean(second))
    variances = [float(np.var(each, ddof=1)) / len(each) for each in (first, second)]
    half = 0.0
    if total := sum(variances):
        freedom = total**2 / sum(v**2 / (len(each) - 1) for v, each in zip(variances, (first, second), strict=True))
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(total)
    half = math.hypot(half, Z * image_error)
    return difference - half, difference + half


def seeds_to_decide(
    distance: float, deviation: float, image_error: float = 0.0, least: int = 2, most: int = 1000
) -> int | None:
    """Return the smallest number of seeds, from `least`, with which an interval's half-width is below `distance`.

    `deviation`: standard deviation over seeds, of a net's quantity or of one net minus another. The degrees of freedom
    are those of one net, count − 1; Welch's for two nets lie between that and twice as many. None if no number up to
    `most` suffices, as the images are too few.
    """

    def decides(count: int) -> bool:
        half = seed_factor(count) * deviation
        return math.hypot(half, Z * image_error) < distance

    counts = range(least, most + 1)
    index = bisect_left(counts, True, key=decides)  # the interval shrinks with every seed
    return counts[index] if index < len(counts) else None


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the interval of the mean of many `values`, one per image (normal approximation)."""
    values = np.asarray(values, float)
    half = Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()) - half, float(values.mean()) + half
