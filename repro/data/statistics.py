"""Mean image and RGB covariance of a set of images, accumulated exactly over batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PixelStatistics:
    """Integer sums over uint8 images [N, S, S, 3], from which mean and covariance are computed.

    The sums are exact, so the result depends neither on the order of the images nor on how they are divided into
    batches: each worker sums its shards, and the sums are merged. int64 is enough for 2 billion images of 256×256.

    Attributes:
        images: number of images.
        sums: int64 [S, S, 3], sum of each value over the images.
        products: int64 [3, 3], sum of the products of two colours over all pixels.
    """

    def __init__(self, size: int) -> None:
        self.images = 0
        self.sums: NDArray[np.int64] = np.zeros((size, size, 3), np.int64)
        self.products: NDArray[np.int64] = np.zeros((3, 3), np.int64)

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add uint8 images [N, S, S, 3]."""
        from repro.data.sums import add_sums  # Numba takes half a second to import

        self.images += len(images)
        by_colour = np.zeros((3, 3), np.int64)
        add_sums(images.reshape(len(images), self.sums.size), self.sums.reshape(-1), by_colour)
        (rr, gg, bb), (rg, gb, _), (rb, _, _) = by_colour.tolist()
        self.products += np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], np.int64)

    def merge(self, other: PixelStatistics) -> None:
        """Add the sums of `other`."""
        self.images += other.images
        self.sums += other.sums
        self.products += other.products

    def mean(self) -> NDArray[np.float32]:
        """Return the mean image, float32 [S, S, 3], 0–255 (subtracted from each pixel, Sec. 2)."""
        return (self.sums / self.images).astype(np.float32)

    def mean_rgb(self) -> NDArray[np.float64]:
        """Return the mean of all pixels, float64 [3], 0–255."""
        return np.array([int(total) / self._pixels for total in self.sums.sum(axis=(0, 1))])

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of the RGB values 0–255 of all pixels, float64 [3, 3] (Sec. 4.1).

        It is normalised by the number of pixels n and computed as (n Σxy − Σx Σy) / n² in Python's unbounded
        integers; in floating point the difference would cancel.
        """
        n = self._pixels
        totals = [int(total) for total in self.sums.sum(axis=(0, 1))]
        return np.array(
            [[(n * int(self.products[i, j]) - totals[i] * totals[j]) / n**2 for j in range(3)] for i in range(3)]
        )

    @property
    def _pixels(self) -> int:
        return self.images * int(np.prod(self.sums.shape[:2]))
