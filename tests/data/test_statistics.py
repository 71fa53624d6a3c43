import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.data.statistics import PixelStatistics
from repro.data.sums import MAX_BLOCKS, add_sums, add_sums_by_operators


@settings(deadline=None)  # the first call loads the compiled loop
@given(st.integers(0, 2**32), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=3))
def test_equal_numpy_for_any_division_into_batches(seed: int, count: int, cuts: list[int]) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    whole = PixelStatistics(6)
    for piece in np.split(images, sorted(min(cut, count) for cut in cuts)):
        part = PixelStatistics(6)
        part.add(piece)
        whole.merge(part)

    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_array_equal(whole.mean(), images.mean(axis=0, dtype=np.float64).astype(np.float32))
    np.testing.assert_allclose(whole.mean_rgb(), pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(whole.covariance(), np.cov(pixels.T, bias=True), rtol=1e-11, atol=1e-11)

    at_once = PixelStatistics(6)
    at_once.add(images)
    np.testing.assert_array_equal(whole.covariance(), at_once.covariance())


def test_the_covariance_is_accurate_for_bright_images_with_little_variance() -> None:
    images = np.full((200, 64, 64, 3), 255, np.uint8)
    images[0, 0, 0] = 254
    statistics = PixelStatistics(64)
    statistics.add(images)
    share = 1 / (200 * 64 * 64)
    assert statistics.covariance()[0, 1] == pytest.approx(share * (1 - share), rel=1e-12)


def test_sums_do_not_overflow_for_many_bright_images() -> None:
    images = np.full((MAX_BLOCKS + 3, 2, 2, 3), 255, np.uint8)  # one block per image
    images[:, 0, 0, 1] = 0
    statistics = PixelStatistics(2)
    statistics.add(images)
    pixels = images.reshape(-1, 3).astype(np.int64)
    np.testing.assert_array_equal(statistics.products, pixels.T @ pixels)
    np.testing.assert_array_equal(statistics.sums, images.sum(axis=0, dtype=np.int64))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 9))
def test_sums_without_compiled_loops_are_equal(seed: int, count: int, size: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3 * size * size), dtype=np.uint8)
    sums = np.ones((2, 3 * size * size), np.int64)  # added to, not replaced
    products = np.ones((2, 3, 3), np.int64)
    for add, each, product in zip((add_sums, add_sums_by_operators), sums, products, strict=True):
        add(images, each, product)
    np.testing.assert_array_equal(*sums)
    np.testing.assert_array_equal(*products)


def test_images_of_any_size_and_memory_layout() -> None:
    for size in (8, 16, 17, 40, 1024):  # less than a block, exactly one, and several with a remainder
        images = np.random.default_rng(size).integers(0, 256, (5, size, size, 3), dtype=np.uint8)[:, ::-1]
        statistics = PixelStatistics(size)
        statistics.add(images)
        pixels = images.reshape(-1, 3).astype(np.int64)
        np.testing.assert_array_equal(statistics.products, pixels.T @ pixels)
