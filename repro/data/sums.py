"""Inner loop of `statistics.py`, compiled by Numba; it takes a quarter of the time of the same sums in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.compiled_loops import LoopsUnavailable, compiled_loop

BLOCK = 768  # values processed together: a multiple of 3 whose sums fit into the first-level cache
MAX_BLOCKS = 2**16  # × 255² < 2**32: the number of products that a 32-bit sum can hold


def add_sums(images: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> None:
    """Add uint8 images [N, 3·pixels] to `sums` [3·pixels] and to `products` [3, 3], both int64, in place.

    products[d, c] is increased by the products of each value of colour c with the value d positions after it. R, G
    and B alternate, so these include all six pairs of colours; the other three entries combine two pixels and are
    not used.
    """
    step = MAX_BLOCKS // -(-images.shape[1] // BLOCK)
    for start in range(0, len(images), step):
        try:
            _add_sums(images[start : start + step], sums, products)
        except LoopsUnavailable:
            add_sums_by_operators(images[start : start + step], sums, products)


def add_sums_by_operators(images: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> None:
    """Do what `add_sums` does with NumPy's operators."""
    sums += images.sum(axis=0, dtype=np.int64)
    for image in images.astype(np.int64):
        for distance in range(3):
            pairs = image[: len(image) - distance] * image[distance:]
            products[distance] += [pairs[colour::3].sum() for colour in range(3)]


@compiled_loop()
def _add_sums(images: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> None:
    block_products: Any = np.zeros((3, BLOCK), np.uint32)
    for start in range(0, images.shape[1], BLOCK):
        totals: Any = np.zeros(min(BLOCK, images.shape[1] - start), np.uint32)
        for image in images:
            values = image[start : start + BLOCK]
            for i in range(len(values)):
                totals[i] += values[i]
            for distance in range(3):
                others, target = image[start + distance : start + distance + BLOCK], block_products[distance]
                for i in range(len(others)):
                    # 16 bits hold 255²; multiplying before widening lets the compiler process 32 values at once.
                    target[i] += np.uint16(np.uint16(values[i]) * np.uint16(others[i]))
        for i in range(len(totals)):
            sums[start + i] += totals[i]
    for distance in range(3):
        for i in range(BLOCK):
            products[distance, i % 3] += block_products[distance, i]
