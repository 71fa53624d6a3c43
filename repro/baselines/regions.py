"""The spatial layout of an image: which descriptors lie in which region."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.paper.baselines import Grid

Sums = tuple[NDArray[np.floating[Any]], ...]


class Regions:
    """The cells of several grids over an image, each a region, grid by grid and row by row.

    Args:
        centres: centres of the descriptors' patches, (y, x) in pixels, [N, 2].
        size: side of the image in pixels.
        grids: rows and columns of each grid.
    """

    def __init__(self, centres: NDArray[np.float32], size: int, grids: Sequence[Grid]) -> None:
        self.grids = tuple(grids)
        self._centres, self._size = centres, size

    @cached_property
    def indices(self) -> list[NDArray[np.int64]]:
        """The region within its grid that each descriptor lies in, int64 [N], for each grid."""
        found = []
        for rows, columns in self.grids:
            cells = np.array([rows, columns])
            row, column = np.minimum(self._centres * cells / self._size, cells - 1).astype(np.int64).T
            found.append(row * columns + column)
        return found

    @property
    def counts(self) -> list[int]:
        """Number of descriptors in each region."""
        return [
            count
            for (rows, columns), index in zip(self.grids, self.indices, strict=True)
            for count in np.bincount(index, minlength=rows * columns).tolist()
        ]

    def sums(self, of: Callable[[NDArray[np.int64]], Sums]) -> Iterator[Sums]:
        """Yield the sums of each region; `of` returns those over descriptors by index.

        The sums of the whole image are those of the regions of the last grid together, so they are not computed twice.
        """
        last = self._of_grid(len(self.grids) - 1, of)
        for number, grid in enumerate(self.grids):
            if number == len(self.grids) - 1:
                yield from last
            elif grid == (1, 1):
                yield tuple(sum(parts[1:], start=parts[0]) for parts in zip(*last, strict=True))
            else:
                yield from self._of_grid(number, of)

    def _of_grid(self, number: int, of: Callable[[NDArray[np.int64]], Sums]) -> list[Sums]:
        rows, columns = self.grids[number]
        return [of(np.flatnonzero(self.indices[number] == region)) for region in range(rows * columns)]
