"""Mean image and RGB covariance of a set of images, streamed and exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PixelStatistics:
    """Integer sums over uint8 images [N, S, S, 3], from which mean and covariance follow.

    The sums are integers, so the result depends neither on the order of the images nor on how they are cut
    into pieces: workers sum their shards apart and the sums are merged. int64 holds 2 billion 256×256 images.
    """

    def __init__(self, size: int) -> None:
        self.images = 0
        self.sums: NDArray[np.int64] = np.zeros((size, size, 3), np.int64)
        self.products: NDArray[np.int64] = np.zeros((3, 3), np.int64)

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count in uint8 images [N, S, S, 3]."""
        from repro.data.sums import add_up  # Numba takes half a second to import

        self.images += len(images)
        by_colour = np.zeros((3, 3), np.int64)
        add_up(images.reshape(len(images), self.sums.size), self.sums.reshape(-1), by_colour)
        (rr, gg, bb), (rg, gb, _), (rb, _, _) = by_colour.tolist()
        self.products += np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], np.int64)

    def merge(self, other: PixelStatistics) -> None:
        """Count in all that `other` has seen."""
        self.images += other.images
        self.sums += other.sums
        self.products += other.products

    def mean(self) -> NDArray[np.float32]:
        """The mean image, float32 [S, S, 3] in 0–255 (Sec. 2: subtracted from each pixel)."""
        return (self.sums / self.images).astype(np.float32)

    def mean_rgb(self) -> NDArray[np.float64]:
        """The mean of all pixels, float64 [3] in 0–255."""
        return np.array([int(total) / self._pixels for total in self.sums.sum(axis=(0, 1))])

    def covariance(self) -> NDArray[np.float64]:
        """Covariance of the RGB values of all pixels, float64 [3, 3], of values in 0–255 (Sec. 4.1).

        Divided by the number of pixels n. Computed as (n Σxy − Σx Σy) / n² in Python's unbounded integers:
        in floats the difference would cancel.
        """
        n = self._pixels
        totals = [int(total) for total in self.sums.sum(axis=(0, 1))]
        return np.array(
            [[(n * int(self.products[i, j]) - totals[i] * totals[j]) / n**2 for j in range(3)] for i in range(3)]
        )

    @property
    def _pixels(self) -> int:
        return self.images * int(np.prod(self.sums.shape[:2]))
