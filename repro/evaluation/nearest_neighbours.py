"""Exact nearest neighbours of many queries among very many vectors, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 2**28  # of images, vectors or distances in memory at a time


def nearest(queries: Tensor, stored: np.ndarray, count: int, device: torch.device) -> NearestNeighbours:
    """Return the `count` rows of `stored` [N, D] that are nearest to each of the queries, float32 [Q, D].

    `stored` may be a memory map of float16. It is read block by block, once for each block of queries; distances are
    computed in float32.
    """
    found = NearestNeighbours(len(queries), count)
    for low, high in blocks(len(queries), 4 * queries.shape[1]):
        query_block = queries[low:high].to(device)
        for start, end in blocks(len(stored), max(queries.shape[1], high - low)):
            block = torch.from_numpy(np.array(stored[start:end])).to(device).float()
            found.update(low, squared_distances(query_block, block), start)
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


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared Euclidean distances [A, B] of vectors [A, D] and [B, D].

    The vectors should be centred around 0: a common offset costs precision.
    """
    return (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T


def blocks(count: int, values: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of consecutive blocks of `count` rows of `values` float32 numbers, within `BLOCK_BYTES` each."""
    rows = max(1, BLOCK_BYTES // (4 * values))
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def hamming(first: np.ndarray, second: np.ndarray) -> Tensor:
    """Return the number of differing bits of codes, uint64 [A] and [B], as uint8 [A, B]."""
    return torch.from_numpy(np.bitwise_count(first[:, None] ^ second[None]))
