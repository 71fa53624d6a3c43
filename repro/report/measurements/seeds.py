"""Measurements over seeds: the mean of a quantity, or the difference of two nets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from repro.paper.intervals import rate_interval, seed_interval, welch_interval
from repro.paper.targets import Measurement


def mean_over_seeds(
    values: Sequence[float], image_error: float, runs: Iterable[str], rates: bool = False
) -> Measurement:
    """Return the mean of two or more `values`, one per seed, with its interval over seeds and images.

    `image_error`: standard error of the mean from the sampling of the images. `rates`: the values are in percent, and
    the interval ends at 0 and 100.
    """
    interval = rate_interval if rates else seed_interval
    return Measurement(
        fmean(values), interval(values, image_error), len(values), "seeds", runs=tuple(dict.fromkeys(runs)),
        deviation=stdev(values), image_error=image_error,
    )  # fmt: skip


def difference_over_seeds(
    first: Sequence[float], second: Sequence[float], image_error: float, runs: Iterable[str]
) -> Measurement:
    """Return mean(first) − mean(second) of independent samples of two or more seeds each, with Welch's interval.

    `image_error`: standard error of the difference from the sampling of the images.
    """
    return Measurement(
        fmean(first) - fmean(second), welch_interval(first, second, image_error), min(len(first), len(second)), "seeds",
        runs=tuple(dict.fromkeys(runs)), deviation=math.hypot(stdev(first), stdev(second)), image_error=image_error,
    )  # fmt: skip


def mean_of(known: Sequence[Measurement], rates: bool = False) -> Measurement:
    """Return the mean of two or more runs' measurements, which may be `rates` in percent, over seeds and images."""
    sampling = max(each.image_error for each in known)  # the seeds share the images
    runs = (name for each in known for name in each.runs)
    return mean_over_seeds([each.value for each in known], sampling, runs, rates)
