import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.data.statistics import PixelStatistics


@given(st.integers(0, 2**32), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=3))
def test_equal_numpy_on_all_pixels_however_the_images_are_cut(seed: int, count: int, cuts: list[int]) -> None:
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


def test_covariance_does_not_cancel_in_bright_images_that_hardly_vary() -> None:
    images = np.full((200, 64, 64, 3), 255, np.uint8)
    images[0, 0, 0] = 254
    statistics = PixelStatistics(64)
    statistics.add(images)
    share = 1 / (200 * 64 * 64)
    assert statistics.covariance()[0, 1] == pytest.approx(share * (1 - share), rel=1e-12)
