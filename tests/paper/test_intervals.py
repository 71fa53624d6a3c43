import math

import numpy as np
import pytest
from scipy.stats import binom

from repro.paper.intervals import error_interval, paired_interval, rate_interval, seed_interval, welch_interval


def test_exact_interval_has_the_tails_it_claims() -> None:
    """Clopper–Pearson by its definition: at each end the observation has a tail of 2.5%."""
    low, high = error_interval(37, 200)
    assert binom.sf(36, 200, low / 100) == pytest.approx(0.025)
    assert binom.cdf(37, 200, high / 100) == pytest.approx(0.025)


def test_exact_interval_by_hand() -> None:
    """With nothing wrong of n the upper end is 1 − 0.025^(1/n)."""
    assert error_interval(0, 10) == pytest.approx((0, 100 * (1 - 0.025**0.1)))
    assert error_interval(10, 10) == pytest.approx((100 * 0.025**0.1, 100))


def test_rates_lie_between_0_and_100() -> None:
    low, high = seed_interval([90.0, 90.0, 21.3]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((-31.5, 165.7), abs=0.1)
    assert rate_interval([90.0, 90.0, 21.3]) == (0, 100)
    assert rate_interval([20.0, 21.0, 22.0]) == seed_interval([20.0, 21.0, 22.0])
    assert rate_interval([20.0]) is None


@pytest.mark.parametrize(("wrong", "images"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(wrong: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"{wrong} wrong of {images}"):
        error_interval(wrong, images)


@pytest.mark.parametrize("images", [130, 1000, 50_000])
@pytest.mark.parametrize(("first", "second"), [(59, 39), (58, 40), (40, 60), (41, 59), (6, 0), (3, 0)])
def test_paired_interval_leaves_out_zero_exactly_when_mcnemar_rejects(first: int, second: int, images: int) -> None:
    rejects = abs(first - second) / math.sqrt(first + second) > 1.959964
    low, high = paired_interval(first, second, images)
    assert (low > 0 or high < 0) == rejects
    assert low < 100 * (first - second) / images < high


def test_paired_interval_matches_inverting_the_score_test_numerically() -> None:
    """Tango's score with the nuisance share found by maximising the likelihood on a grid, not in closed form."""
    b, c, n = 12, 2, 50
    low, high = paired_interval(b, c, n)

    def score(difference: float) -> float:
        q = np.linspace(max(0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9, 200_001)
        likelihood = b * np.log(q + difference) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - difference)
        share = q[np.argmax(likelihood)]
        return float((b - c - n * difference) / math.sqrt(n * (2 * share + difference - difference**2)))

    assert score(low / 100) == pytest.approx(1.96, abs=0.002)
    assert score(high / 100) == pytest.approx(-1.96, abs=0.002)


def test_paired_interval_is_antisymmetric_and_stays_in_range() -> None:
    assert paired_interval(5, 0, 100) == pytest.approx(tuple(-end for end in reversed(paired_interval(0, 5, 100))))
    assert paired_interval(0, 0, 100) == pytest.approx((-3.6994, 3.6994), abs=1e-3)  # ± z²/(n + z²)
    assert paired_interval(100, 0, 100)[1] == 100
    with pytest.raises(ValueError, match="of 10 images"):
        paired_interval(8, 8, 10)


def test_paired_interval_keeps_its_level_on_simulated_models() -> None:
    draws = np.random.default_rng(0).multinomial(300, [0.12, 0.08, 0.80], size=1500)
    covered = [low <= 4 <= high for b, c, _ in draws.tolist() for low, high in [paired_interval(b, c, 300)]]
    assert 0.935 < np.mean(covered) < 0.965


def test_seed_interval_by_hand() -> None:
    """Three seeds: mean 2, standard deviation 1, t(2) = 4.3027."""
    assert seed_interval([1, 2, 3]) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert seed_interval([1.0]) is None


def test_welch_interval_is_the_t_interval_for_equal_samples() -> None:
    """Equal sizes and variances: t with 2n − 2 = 4 degrees of freedom, 2.7764."""
    half = 2.77645 * math.sqrt(2 / 3)
    assert welch_interval([1, 2, 3], [11, 12, 13]) == pytest.approx((-10 - half, -10 + half), rel=1e-5)
    assert welch_interval([1.0], [1.0, 2.0]) is None
