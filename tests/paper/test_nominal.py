"""Simulated data with known truth: intervals cover it, and directions go wrong, as often as they claim to."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from repro.paper.intervals import (
    Interval,
    error_interval,
    mean_interval,
    paired_interval,
    seed_interval,
    welch_interval,
)
from repro.paper.targets import Measurement, compare, find_target

WORLDS = 1500
# How far a share of 1,500 worlds strays from a true 95% or 5%, but once in a thousand times.
MARGIN = float(binom.ppf(0.9995, WORLDS, 0.05) / WORLDS - 0.05)


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize("error", [2.0, 17.0, 37.5])
def test_an_exact_interval_covers_at_least_as_often_as_it_says(error: float) -> None:
    wrong = np.random.default_rng(0).binomial(600, error / 100, WORLDS)
    share = covered([error_interval(int(each), 600) for each in wrong], error)
    assert 0.95 - MARGIN <= share <= 0.985  # exact intervals err on the safe side


@pytest.mark.parametrize("difference", [0.0, 1.4])
def test_a_paired_interval_covers_the_true_difference(difference: float) -> None:
    """Two models that are wrong alone on 6% and 6% − difference of 3,000 images."""
    rng = np.random.default_rng(1)
    shares = [0.06, 0.06 - difference / 100, 0.88 + difference / 100]
    counts = rng.multinomial(3000, shares, WORLDS)
    share = covered([paired_interval(int(a), int(b), 3000) for a, b, _ in counts], difference)
    assert share == pytest.approx(0.95, abs=MARGIN)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seed_and_welch_intervals_cover_the_true_means(seeds: int) -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(40, 0.2, (WORLDS, seeds)), rng.normal(39, 0.2, (WORLDS, seeds))
    intervals = [seed_interval(each.tolist()) for each in first]
    assert covered([each for each in intervals if each], 40) == pytest.approx(0.95, abs=MARGIN)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    differences = [interval for a, b in pairs if (interval := welch_interval(a, b))]
    # Welch's degrees of freedom are an approximation, on the safe side for few seeds.
    assert covered(differences, 1) >= 0.95 - MARGIN


def test_a_mean_over_images_covers_the_true_precision() -> None:
    worlds = np.random.default_rng(3).binomial(6, 0.7, (WORLDS, 400)) / 6
    assert covered([mean_interval(100 * each) for each in worlds], 70) == pytest.approx(0.95, abs=MARGIN)


def test_directions_without_an_effect_are_claimed_in_one_world_of_twenty() -> None:
    """Ten views of one net in worlds where they change nothing: 2.5% wrong each way, the rest undecided."""
    target = find_target("ten-views-gain-top1")
    counts = np.random.default_rng(4).multinomial(3000, [0.06, 0.06, 0.88], WORLDS)
    words = []
    for a, b, _ in counts:
        measured = Measurement((a - b) / 30, paired_interval(int(a), int(b), 3000), 3000, "images")
        words.append(compare(target, measured).direction)
    for side in ("agrees", "disagrees"):
        assert words.count(side) / WORLDS == pytest.approx(0.025, abs=MARGIN)


def test_directions_with_an_effect_are_hardly_ever_called_the_wrong_way() -> None:
    target = find_target("ten-views-gain-top1")
    counts = np.random.default_rng(5).multinomial(3000, [0.065, 0.05, 0.885], WORLDS)
    words = [
        compare(target, Measurement((a - b) / 30, paired_interval(int(a), int(b), 3000), 3000, "images")).direction
        for a, b, _ in counts
    ]
    assert words.count("disagrees") / WORLDS < 0.002
    # Power of a test at 5% with the standard error √(0.115/3000): Φ(0.015/se − 1.96).
    assert words.count("agrees") / WORLDS == pytest.approx(0.68, abs=0.05)


def test_a_ratio_over_seeds_covers_the_true_one() -> None:
    rng = np.random.default_rng(6)
    slow, quick = rng.normal(math.log(24), 0.05, (WORLDS, 3)), rng.normal(math.log(4), 0.05, (WORLDS, 3))
    found = [interval for a, b in zip(slow.tolist(), quick.tolist(), strict=True) if (interval := welch_interval(a, b))]
    assert covered(found, math.log(6)) >= 0.95 - MARGIN


def test_a_recipe_like_the_papers_matches_nearly_always_and_another_one_rarely() -> None:
    """The paper's run and ours, each with the variation over seeds and images that the tolerance assumes."""
    target = find_target("table1-cnn-top1")
    assert target.scope
    rng = np.random.default_rng(7)
    deviation = math.hypot(0.0816, 0.2)  # 0.2 of 150,000 images, over two nets

    def matches(shift: float) -> float:
        own = rng.normal(37.5 + shift, math.sqrt(2) * deviation, WORLDS)
        return float(
            np.mean([compare(target, Measurement(each, scope=target.scope)).verdict == "match" for each in own])
        )

    assert matches(0.0) >= 0.95 - MARGIN
    assert matches(1.7) < 0.05  # the one-GPU net's loss
