"""Exact nearest neighbours of many queries among very many vectors, in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 2**28  # of vectors or distances in float32 that are computed at a time
PIXEL_BYTES = 2**32  # of the training images that are compared with all queries before the next ones are read


def nearest(queries: Tensor, stored: np.ndarray, count: int, devices: Sequence[torch.device]) -> NearestNeighbours:
    """Return the `count` rows of `stored` [N, D] that are nearest to each of the queries, float32 [Q, D].

    `stored` may be a memory map of float16. It is read block by block, once for each block of queries; distances are
    computed in float32, on `devices` in turn.
    """
    found, width = NearestNeighbours(len(queries), count), queries.shape[1]
    for low, high in blocks(len(queries), 16 * width):
        of_queries = {device: queries[low:high].to(device) for device in devices}
        ranges = zip(cycle(devices), blocks(len(stored), 4 * max(width, high - low)), strict=False)
        distances = (
            (
                squared_distances(of_queries[device], torch.from_numpy(np.array(stored[start:end])).to(device).float()),
                start,
            )
            for device, (start, end) in ranges
        )
        found.update_all(low, distances, len(devices))
    return found


@dataclass
class NearestNeighbours:
    """The `count` nearest vectors so far of each of `queries` queries, nearest first; of equal ones the earlier first.

    Attributes:
        queries: number of queries.
        count: number of neighbours of each.
        distances: [queries, count] float32, squared Euclidean or Hamming; infinite where there are no neighbours yet.
        indices: [queries, count] int64, rows of the vectors; −1 where there are no neighbours yet.
    """

    queries: int
    count: int
    distances: Tensor = field(init=False)
    indices: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.distances = torch.full((self.queries, self.count), math.inf)
        self.indices = torch.full((self.queries, self.count), -1)

    def update(self, first_query: int, distances: Tensor, first_vector: int) -> None:
        """Include the `distances` [B, T] of consecutive queries to consecutive vectors, given the first of each."""
        rows = slice(first_query, first_query + len(distances))
        best, indices = distances.topk(min(self.count, distances.shape[1]), dim=1, largest=False)
        merged = torch.cat([self.distances[rows], best.cpu().float()], dim=1)
        merged_indices = torch.cat([self.indices[rows], indices.cpu() + first_vector], dim=1)
        # A stable sort keeps the earlier of two equally distant vectors first.
        self.distances[rows], order = (each[:, : self.count] for each in merged.sort(dim=1, stable=True))
        self.indices[rows] = merged_indices.gather(1, order)

    def update_all(self, first_query: int, blocks: Iterable[tuple[Tensor, int]], devices: int) -> None:
        """Include blocks of distances and first vectors, in their order, computed by a number of `devices` in turn.

        A result is waited for when each device has work.
        """
        running: deque[tuple[Tensor, int]] = deque()
        for block in blocks:
            running.append(block)
            if len(running) == devices:
                self.update(first_query, *running.popleft())
        for block in running:
            self.update(first_query, *block)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared Euclidean distances [A, B] of vectors [A, D] and [B, D].

    The vectors should be centred around 0: a common offset costs precision.
    """
    return (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T


def blocks(count: int, row_bytes: int, block_bytes: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the bounds of consecutive blocks of `count` rows, of `block_bytes` each or else of `BLOCK_BYTES`."""
    rows = max(1, (block_bytes or BLOCK_BYTES) // row_bytes)
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def hamming(first: np.ndarray, second: np.ndarray) -> Tensor:
    """Return the number of differing bits of codes, uint64 [A] and [B], as uint8 [A, B]."""
    return torch.from_numpy(np.bitwise_count(first[:, None] ^ second[None]))
