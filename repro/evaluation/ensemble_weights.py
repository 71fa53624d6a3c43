"""The weights of several nets in their average, searched on validation images as in the authors' program (Sec. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repro.data.store import Split
from repro.data.views import Views
from repro.evaluation.predictions import member_softmaxes

GUESSES = 5  # the error that is searched on is top-5
UNITS = 10  # of weight, which each net has of its own to begin with


@dataclass(frozen=True)
class Competitors:
    """All that decides which labels are among the five most probable classes, whatever the M nets' weights.

    A class can come before the label in a weighted average only if some net holds it for the more probable of the
    two: a rival. `leads` [R, M] float32 says by how much each net prefers each rival to its image's label; an image's
    rivals stand together, from its place in `starts` on. Images that no weights can decide are not among them: with
    fewer than five rivals a label is always found, and `lost` labels have five classes before them in every net.

    That is exact, and of trained nets it is little: some tens of numbers for a net and an image instead of 1000, and
    about 0.1 GB for seven nets on 50,000 images instead of 1.4.
    """

    leads: NDArray[np.float32]
    starts: NDArray[np.int64]
    lost: int

    def wrong(self, weights: NDArray[np.float64]) -> int:
        """The number of images whose label is not among the five most probable of the average by `weights` [M]."""
        if not len(self.starts):
            return self.lost
        ahead = self.leads @ weights.astype(np.float32) > 0
        return self.lost + int((np.add.reduceat(ahead, self.starts, dtype=np.int64) >= GUESSES).sum())


def find_competitors(labels: Tensor, softmaxes: Tensor) -> Competitors:
    """The rivals of `labels` [N] among softmax outputs [M, N, classes]."""
    leads = softmaxes - softmaxes.gather(2, labels.expand(len(softmaxes), -1)[..., None])
    rivals = (leads > 0).any(0)
    lost = (leads > 0).all(0).sum(1) >= GUESSES
    undecided = (rivals.sum(1) >= GUESSES) & ~lost
    counts = rivals[undecided].sum(1).numpy()
    return Competitors(leads[:, undecided][:, rivals[undecided]].T.numpy(), np.cumsum(counts) - counts, int(lost.sum()))


def concatenate(parts: Sequence[Competitors]) -> Competitors:
    """The rivals of all images of `parts`."""
    before = np.cumsum([0, *(len(part.leads) for part in parts)])
    starts = [start + part.starts for start, part in zip(before, parts, strict=False)]
    leads = np.concatenate([part.leads for part in parts])
    return Competitors(leads, np.concatenate(starts), sum(part.lost for part in parts))


def search(rivals: Competitors) -> NDArray[np.float64]:
    """Weights [M], not negative and with the sum one, with few `rivals.wrong`.

    That the weights of an average are searched, and on validation top-5 error, is the authors'; how, is ours. A
    net's weight is a number of units, UNITS to begin with. Of all ways to move units from one net to another the
    one is taken that leaves the fewest images wrong, of equals the one nearest to equal weights; again and again,
    until no move leaves fewer wrong, or as few and the weights nearer to equal. Of two nets that is the best of all
    such weights; of more it is the best that single moves lead to.
    """
    equal = np.full(rivals.leads.shape[1], UNITS)

    def standing(units: NDArray[np.int64]) -> tuple[int, int]:
        return rivals.wrong(units / equal.sum()), int(((units - equal) ** 2).sum())

    best = equal
    while True:
        candidate = min(_moves(best), key=standing)
        if standing(candidate) >= standing(best):
            weights: NDArray[np.float64] = best / equal.sum()
            return weights
        best = candidate


def _moves(units: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Every way to move units from one net to another."""
    one = np.eye(len(units), dtype=units.dtype)
    for giver in range(len(units)):
        for taker in range(len(units)):
            if giver != taker:
                for amount in range(1, units[giver] + 1):
                    yield units + amount * (one[taker] - one[giver])


@torch.inference_mode()
def search_weights(
    models: Sequence[nn.Module],
    views: Views,
    split: Split,
    view_count: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """The weights [models] that `search` finds for the models' average on the images of `split`.

    `on_progress` is told images done and images in all. The models are left in evaluation mode.
    """
    parts, done = [], 0
    for labels, softmaxes in member_softmaxes(models, views, split, view_count):
        parts.append(find_competitors(labels, softmaxes))
        done += len(labels)
        if on_progress:
            on_progress(done, len(split))
    return search(concatenate(parts))
