"""Dense descriptors against sums over the pixels of a patch, one by one, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repro.baselines.descriptors import CELLS, DIMENSIONS, ORIENTATIONS, check_size, corners, describe, orientation_maps
from repro.errors import ReproError

SIZE, PATCH, STEP = 40, 16, 6


def image(seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def slow_gradient_descriptor(pixels: np.ndarray, kind: str, top: int, left: int) -> np.ndarray:
    """SIFT or HOG of one patch by its definition: every pixel votes for two bins, weighted by its place."""
    bins, cells = ORIENTATIONS[kind], CELLS[kind]
    width, turn = PATCH / cells, 2 * math.pi if kind == "sift" else math.pi
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    histogram = np.zeros((cells, cells, bins))
    for y in range(SIZE):
        for x in range(SIZE):
            dy = luma[min(y + 1, SIZE - 1), x] - luma[max(y - 1, 0), x]
            dx = luma[y, min(x + 1, SIZE - 1)] - luma[y, max(x - 1, 0)]
            position = (math.atan2(dy, dx) % turn) / turn * bins
            for row in range(cells):
                for column in range(cells):
                    by = max(0.0, 1 - abs((y + 0.5 - top) / width - row - 0.5))
                    bx = max(0.0, 1 - abs((x + 0.5 - left) / width - column - 0.5))
                    weight = by * bx * math.hypot(dy, dx)
                    if kind == "sift":
                        squared = (y + 0.5 - top - PATCH / 2) ** 2 + (x + 0.5 - left - PATCH / 2) ** 2
                        weight *= math.exp(-squared / (2 * (PATCH / 2) ** 2))
                    low, share = int(position), position % 1
                    histogram[row, column, low % bins] += weight * (1 - share)
                    histogram[row, column, (low + 1) % bins] += weight * share
    vector = histogram.ravel() / np.linalg.norm(histogram)
    vector = np.minimum(vector, 0.2)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("kind", ["sift", "hog"])
def test_gradient_descriptors_against_a_loop_over_pixels(kind: str) -> None:
    pixels, starts = image(), corners(SIZE, PATCH, STEP)
    found = describe(pixels, kind, (PATCH,), STEP)
    assert found.values.shape == (len(starts) ** 2, DIMENSIONS[kind])
    for row, column in ((2, 3), (len(starts) - 1, 0)):
        expected = slow_gradient_descriptor(pixels, kind, starts[row], starts[column])
        index = row * len(starts) + column
        np.testing.assert_allclose(found.values[index], expected, atol=2e-5)
        np.testing.assert_allclose(found.centres[index], [starts[row] + PATCH / 2, starts[column] + PATCH / 2])


def test_colour_statistics_against_the_cells_of_a_patch() -> None:
    pixels, starts = image(1), corners(SIZE, PATCH, STEP)
    found = describe(pixels, "colour", (PATCH,), STEP).values[len(starts) + 2].reshape(4, 4, 2, 3)
    for row in range(4):
        for column in range(4):
            top, left = starts[1] + 4 * row, starts[2] + 4 * column
            cell = pixels[top : top + 4, left : left + 4].reshape(-1, 3) / 255
            np.testing.assert_allclose(found[row, column], [cell.mean(0), cell.std(0)], atol=1e-4)


def test_lbp_counts_the_codes_of_each_cell() -> None:
    feature = pytest.importorskip("skimage.feature")
    pixels, starts = image(2), corners(SIZE, PATCH, STEP)
    found = describe(pixels, "lbp", (PATCH,), STEP).values[3].reshape(4, -1)
    luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    codes = feature.local_binary_pattern(luma, 8, 1, method="nri_uniform").astype(int)
    cells = [codes[starts[0] + 8 * row :, starts[3] + 8 * column :][:8, :8] for row in range(2) for column in range(2)]
    counts = np.stack([np.bincount(cell.ravel(), minlength=found.shape[1]) for cell in cells])
    np.testing.assert_allclose(found, np.sqrt(counts / counts.sum()), atol=1e-6)


@pytest.mark.parametrize("kind", ["sift", "hog", "lbp", "colour"])
def test_a_shifted_image_has_shifted_descriptors(kind: str) -> None:
    if kind == "lbp":
        pytest.importorskip("skimage")
    large, side = image(3, SIZE + STEP), len(corners(SIZE, PATCH, STEP))
    first, second = (
        describe(large[shift : shift + SIZE, :SIZE], kind, (PATCH,), STEP).values.reshape(side, side, -1)
        for shift in (0, STEP)
    )
    # Of patches that touch the border, SIFT and HOG also see pixels outside the patch, which the other image lacks.
    np.testing.assert_allclose(first[2:-1, 1:-1], second[1:-2, 1:-1], atol=1e-5)
    assert not np.allclose(first[2:-1, 1:-1], second[2:-1, 1:-1], atol=1e-2)


def test_a_constant_image_has_zero_gradients_and_finite_descriptors() -> None:
    empty = np.full((SIZE, SIZE, 3), 77, np.uint8)
    for kind in ("sift", "hog"):
        assert not describe(empty, kind, (PATCH,), STEP).values.any()
    colour = describe(empty, "colour", (PATCH,), STEP).values.reshape(-1, 16, 2, 3)
    np.testing.assert_allclose(colour[:, :, 0], 77 / 255, atol=1e-6)
    np.testing.assert_allclose(colour[:, :, 1], 0, atol=1e-3)


def test_orientation_maps_keep_the_magnitude() -> None:
    maps = orientation_maps(image(4), 8, signed=True)
    assert (maps >= 0).all()
    luma = image(4).astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    padded = np.pad(luma, 1, mode="edge")
    magnitude = np.hypot(padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2])
    np.testing.assert_allclose(maps.sum(0), magnitude, atol=1e-5)


def test_images_smaller_than_a_patch_are_an_error() -> None:
    check_size(24, (16, 24))
    with pytest.raises(ReproError, match="images of 20 pixels are smaller than the patches of 24 pixels"):
        check_size(20, (16, 24))
