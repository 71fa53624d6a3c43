"""The loop behind `statistics.py`, compiled by Numba: a quarter of the time that the same sums take in NumPy."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 768  # values of an image at a time: a multiple of 3, and the sums over them stay in the processor's first cache
MOST_BLOCKS = 2**16  # × 255² < 2**32: so many products add up in 32 bits


def add_up(images: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> None:
    """Add uint8 images [N, 3·pixels] to `sums` [3·pixels] and to `products` [3, 3], both int64.

    products[d, c] gets the values of colour c, each times the value d places further on. R, G and B lie in turns, so
    all six pairs of colours are among them, besides three products across two pixels, which mean nothing.
    """
    at_once = MOST_BLOCKS // -(-images.shape[1] // BLOCK)
    for start in range(0, len(images), at_once):
        _add_up(images[start : start + at_once], sums, products)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _add_up(images: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> None:
    multiplied: Any = np.zeros((3, BLOCK), np.uint32)
    for start in range(0, images.shape[1], BLOCK):
        totals: Any = np.zeros(min(BLOCK, images.shape[1] - start), np.uint32)
        for image in images:
            values = image[start : start + BLOCK]
            for i in range(len(values)):
                totals[i] += values[i]
            for distance in range(3):
                others, into = image[start + distance : start + distance + BLOCK], multiplied[distance]
                for i in range(len(others)):
                    # Multiplied in 16 bits, which hold 255², and widened then: 32 values go at once.
                    into[i] += np.uint16(np.uint16(values[i]) * np.uint16(others[i]))
        for i in range(len(totals)):
            sums[start + i] += totals[i]
    for distance in range(3):
        for i in range(BLOCK):
            products[distance, i % 3] += multiplied[distance, i]
