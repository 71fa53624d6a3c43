"""Draws are a function of seed, epoch and position, with the distribution of the paper."""

import numpy as np
import pytest

from repro.data.sampling import draw_epoch, torch_seed
from repro.paper.recipes import AUTHORS, PAPER, Augmentation


def test_each_epoch_has_every_image_once_in_a_different_order() -> None:
    first, second = (draw_epoch(0, epoch, 1000, 32, PAPER.augmentation) for epoch in (1, 2))
    assert sorted(first.index) == sorted(second.index) == list(range(1000))
    assert not np.array_equal(first.index, second.index)


def test_draws_depend_on_the_seed_only() -> None:
    a, b, other = (draw_epoch(seed, 5, 500, 32, PAPER.augmentation) for seed in (7, 7, 8))
    for name in ("index", "top", "left", "mirror", "alpha"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
        assert not np.array_equal(getattr(a, name), getattr(other, name))


def test_offsets_are_uniform_and_half_of_the_images_are_mirrored() -> None:
    draws = draw_epoch(0, 1, 50_000, 32, PAPER.augmentation)
    for offsets in (draws.top, draws.left):
        counts = np.bincount(offsets, minlength=33)
        assert len(counts) == 33
        assert counts.min() > 1300  # 1515 expected, one standard deviation 38
    assert abs(draws.mirror.mean() - 0.5) < 0.01
    np.testing.assert_allclose(draws.alpha.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(draws.alpha.std(0), 1, atol=0.02)


def test_the_released_program_shares_a_patch_among_32_images() -> None:
    draws = draw_epoch(0, 1, 100, 32, AUTHORS.augmentation)
    for values in (draws.top, draws.left, draws.mirror):
        for start in range(0, 100, 32):
            assert len(set(values[start : start + 32].tolist())) == 1
    assert len(set(zip(draws.top.tolist(), draws.left.tolist(), strict=True))) > 1
    assert len(np.unique(draws.alpha, axis=0)) == 100  # the colour noise is drawn for each image


def test_without_crops_the_patch_is_the_centre_and_the_order_is_the_same() -> None:
    plain = draw_epoch(0, 1, 100, 32, Augmentation(crops=False, mirror=False))
    assert set(plain.top) == set(plain.left) == {16}
    assert not plain.mirror.any()
    assert np.array_equal(plain.index, draw_epoch(0, 1, 100, 32, Augmentation()).index)


@pytest.mark.parametrize("start", [0, 32, 96])
def test_a_slice_is_a_batch(start: int) -> None:
    draws = draw_epoch(0, 1, 100, 8, PAPER.augmentation)
    batch = draws[start : start + 32]
    assert len(batch) == min(32, 100 - start)
    assert np.array_equal(batch.top, draws.top[start : start + 32])


def test_torch_seeds_are_distinct_and_in_range() -> None:
    seeds = {torch_seed(seed, 3, step) for seed in range(10) for step in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
