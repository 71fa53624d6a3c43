"""Dense descriptors of the patches of an image: SIFT, HOG, LBP and colour statistics.

Every descriptor is a set of histograms or means over the cells of a patch. Their spatial weights are separable, so the
sums over the cells of all patches are two matrix products: rows [G·k, S] × maps [C, S, S] × columns [S, G·k], for G
patches along a side with k cells each. On a grid of overlapping patches this is exact, and some ten times as fast as
the same sums patch by patch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.errors import ReproError

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout

ORIENTATIONS = {"sift": 8, "hog": 9}  # bins over 360° (SIFT), over 180° (HOG: without sign)
CELLS = {"sift": 4, "hog": 4, "colour": 4, "lbp": 2}  # along a side of a patch
LBP_CODES = 59  # 58 uniform patterns of 8 neighbours by rotation, and one for all others
CLIP = 0.2  # largest value of a normalised descriptor, before it is normalised again (SIFT, L2-Hys)
FLAT = 1e-4  # norm below which a patch has no gradients: its descriptor is zero
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
DIMENSIONS = {
    "sift": CELLS["sift"] ** 2 * ORIENTATIONS["sift"],
    "hog": CELLS["hog"] ** 2 * ORIENTATIONS["hog"],
    "lbp": CELLS["lbp"] ** 2 * LBP_CODES,
    "colour": CELLS["colour"] ** 2 * 6,
}


class Descriptors(NamedTuple):
    """Descriptors of an image: `values` float32 [N, D], and `centres` of the patches, (y, x) in pixels, [N, 2]."""

    values: Floats
    centres: Floats


def describe(image: NDArray[np.uint8], kind: str, patches: tuple[int, ...], step: int) -> Descriptors:
    """Return the descriptors of all `patches` sizes of an image, uint8 [S, S, 3], on a grid with distance `step`.

    `kind` is "sift", "hog", "lbp" or "colour". A patch without any gradient has a zero SIFT or HOG descriptor.
    """
    size = len(image)
    maps, finish, window = MAPS[kind](image), FINISH[kind], WINDOWS[kind]
    values, centres = [], []
    for patch in patches:
        weights = cell_weights(size, patch, step, CELLS[kind], window)
        cells = CELLS[kind]
        side = len(weights) // cells
        sums = weights @ maps @ weights.T  # [C, G·k, G·k]
        sums = sums.reshape(len(maps), side, cells, side, cells).transpose(1, 3, 2, 4, 0)
        values.append(finish(sums.reshape(side * side, cells * cells, len(maps))))
        middle = corners(size, patch, step).astype(np.float32) + patch / 2
        centres.append(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2).astype(np.float32))
    return Descriptors(np.concatenate(values), np.concatenate(centres))


def check_size(size: int, patches: tuple[int, ...]) -> None:
    """Raise ReproError if images of `size` pixels have no descriptors."""
    if patches and size < max(patches):
        raise ReproError(
            f"images of {size} pixels are smaller than the patches of {max(patches)} pixels and have no descriptors: "
            "prepare a store with a larger --size, or choose a smaller --scale"
        )


@cache
def corners(size: int, patch: int, step: int) -> NDArray[np.int64]:
    """Return the first pixel of each patch along a side of `size` pixels: a grid in the middle, int64 [G]."""
    return np.arange((size - patch) % step // 2, size - patch + 1, step)


@cache
def cell_weights(size: int, patch: int, step: int, cells: int, window: str) -> Floats:
    """Return the weight of each pixel along a side in each cell of each patch, float32 [G·cells, size].

    With `window` "box" a pixel belongs to one cell. With "triangle" its weight falls linearly to 0 at the centres of
    the neighbouring cells, and with "gaussian" it is also multiplied by a Gaussian around the centre of the patch
    whose standard deviation is half of the patch, as in SIFT.
    """
    width = patch / cells
    pixels = np.arange(size) + 0.5
    starts = corners(size, patch, step)[:, None, None]
    offset = pixels - starts  # [G, 1, S]
    distance = offset / width - (np.arange(cells)[:, None] + 0.5)  # in cells, [G, k, S]
    if window == "box":
        weights = ((distance >= -0.5) & (distance < 0.5)) / width
    else:
        weights = np.maximum(0.0, 1.0 - np.abs(distance))
        if window == "gaussian":
            weights = weights * np.exp(-0.5 * ((offset - patch / 2) / (patch / 2)) ** 2)
    return weights.reshape(-1, size).astype(np.float32)


def orientation_maps(image: NDArray[np.uint8], bins: int, signed: bool) -> Floats:
    """Return the gradients' magnitude by orientation, float32 [bins, S, S], divided linearly among adjacent bins.

    Gradients are central differences of the luma on values from 0 to 1, with the border repeated.
    """
    luma: Floats = image.astype(np.float32) @ (LUMA / 255)
    padded = np.pad(luma, 1, mode="edge")
    dy, dx = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    magnitude = np.hypot(dy, dx)
    position = np.arctan2(dy, dx) * np.float32(bins / ((2 if signed else 1) * np.pi)) % bins
    lower = np.floor(position)
    share = (position - lower) * magnitude
    index = lower.astype(np.int64) % bins
    maps = np.zeros((bins, *luma.shape), np.float32)
    rows, columns = np.ogrid[: luma.shape[0], : luma.shape[1]]
    maps[index, rows, columns] = magnitude - share
    maps[(index + 1) % bins, rows, columns] += share
    return maps


def colour_maps(image: NDArray[np.uint8]) -> Floats:
    """Return the channels on values from 0 to 1 and their squares, float32 [6, S, S]."""
    channels = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / 255
    return np.concatenate([channels, channels**2])


def lbp_maps(image: NDArray[np.uint8]) -> Floats:
    """Return the uniform local binary pattern of each pixel (8 neighbours, radius 1) as one-hot maps [59, S, S]."""
    from skimage.feature import local_binary_pattern

    luma = np.rint(image.astype(np.float32) @ LUMA).astype(np.uint8)
    codes = local_binary_pattern(luma, 8, 1, method="nri_uniform").astype(np.int64)
    maps = np.zeros((LBP_CODES, *luma.shape), np.float32)
    np.put_along_axis(maps, codes[None], 1.0, axis=0)
    return maps


def clipped(sums: Floats) -> Floats:
    """Return histograms [N, cells, bins] as unit vectors [N, D] with values of at most about 0.2 (SIFT, L2-Hys)."""
    vectors = sums.reshape(len(sums), -1)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where(norms > FLAT, vectors / np.maximum(norms, FLAT), 0)
    vectors = np.minimum(vectors, CLIP)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.where(norms > 0, norms, 1)
    return unit


def hellinger(sums: Floats) -> Floats:
    """Return the square roots of histograms [N, cells, bins], as unit vectors [N, D]."""
    vectors = np.sqrt(np.maximum(sums.reshape(len(sums), -1), 0))
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def mean_and_deviation(sums: Floats) -> Floats:
    """Return the mean and standard deviation of each channel and cell [N, D] of the means [N, cells, 6]."""
    mean, square = sums[..., :3], sums[..., 3:]
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return np.concatenate([mean, deviation], -1).reshape(len(sums), -1)


MAPS: dict[str, Callable[[NDArray[np.uint8]], Floats]] = {
    "sift": lambda image: orientation_maps(image, ORIENTATIONS["sift"], signed=True),
    "hog": lambda image: orientation_maps(image, ORIENTATIONS["hog"], signed=False),
    "lbp": lbp_maps,
    "colour": colour_maps,
}
WINDOWS = {"sift": "gaussian", "hog": "triangle", "lbp": "box", "colour": "box"}
FINISH: dict[str, Callable[[Floats], Floats]] = {
    "sift": clipped,
    "hog": clipped,
    "lbp": hellinger,
    "colour": mean_and_deviation,
}
