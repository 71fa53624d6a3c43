"""The exact nearest neighbours of many queries among very many vectors, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 2**28  # of images, vectors or distances in memory at once


def nearest(queries: Tensor, stored: np.ndarray, wanted: int, device: torch.device) -> NearestNeighbours:
    """The `wanted` rows of `stored` [N, D] that are nearest to each of the queries, float32 [Q, D].

    `stored` may be a memory map of float16: it is read once for every so many queries, a block at a time, and all
    distances are computed in float32.
    """
    found = NearestNeighbours(len(queries), wanted)
    for low, high in blocks(len(queries), 4 * queries.shape[1]):
        asked = queries[low:high].to(device)
        for start, end in blocks(len(stored), max(queries.shape[1], high - low)):
            block = torch.from_numpy(np.array(stored[start:end])).to(device).float()
            found.offer(low, squared_distances(asked, block), start)
    return found


@dataclass
class NearestNeighbours:
    """The `wanted` nearest so far of `count` queries: their squared, or codes', distances and places."""

    count: int
    wanted: int
    distances: Tensor = field(init=False)
    places: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.distances = torch.full((self.count, self.wanted), math.inf)
        self.places = torch.full((self.count, self.wanted), -1)

    def offer(self, start: int, distances: Tensor, offset: int) -> None:
        """Take in the distances [B, T] of the queries from `start` on to the images from `offset` on."""
        rows = slice(start, start + len(distances))
        best, places = distances.topk(min(self.wanted, distances.shape[1]), dim=1, largest=False)
        merged = torch.cat([self.distances[rows], best.cpu().float()], dim=1)
        whose = torch.cat([self.places[rows], places.cpu() + offset], dim=1)
        # Of equals the earlier image: those from before stand first.
        self.distances[rows], chosen = (each[:, : self.wanted] for each in merged.sort(dim=1, stable=True))
        self.places[rows] = whose.gather(1, chosen)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances of [A, D] to [B, D], as [A, B].

    Both should lie around 0: what they have in common costs digits.
    """
    return (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T


def blocks(count: int, values: int) -> Iterator[tuple[int, int]]:
    """Bounds of consecutive blocks of `count` rows of `values` float32 numbers, each within `BLOCK_BYTES`."""
    rows = max(1, BLOCK_BYTES // (4 * values))
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def hamming(first: np.ndarray, second: np.ndarray) -> Tensor:
    """The number of bits in which codes differ: uint64 [A] and [B] to uint8 [A, B]."""
    return torch.from_numpy(np.bitwise_count(first[:, None] ^ second[None]))
