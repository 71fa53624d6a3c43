"""Weights of several nets in their average, searched on validation images as in the authors' program (Sec. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.data.store import Split
from repro.evaluation.predictions import BATCH, member_softmaxes
from repro.evaluation.replicas import MemberViews, Model

GUESSES = 5  # the search minimises the top-5 error
UNITS = 10  # of weight that each net starts with

Weights: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Competitors:
    """All that decides, for any weights of M nets, whether a label is among the five most probable classes.

    A class can come before the label in a weighted average only if at least one net finds it more probable than the
    label: it is then a competitor of that image's label. Images whose result no weights can change are left out: with
    fewer than five competitors the label is always among the five, and with five classes that every net prefers it
    never is.

    The reduction is exact. For trained nets it leaves some tens of numbers per net and image instead of 1000, about
    0.1 GB for seven nets on 50,000 images instead of 1.4.

    Attributes:
        margins: by how much each net prefers each competitor to the label, float32 [R, M]; the R rows are grouped by
            image.
        starts: first row of each image, int64.
        always_wrong: number of images that are wrong for all weights.
    """

    margins: NDArray[np.float32]
    starts: NDArray[np.int64]
    always_wrong: int

    def count_wrong(self, weights: Weights) -> int:
        """Return the number of images whose label is not among the top five of the average with `weights` [M]."""
        if not len(self.starts):
            return self.always_wrong
        ahead = self.margins @ weights.astype(np.float32) > 0
        return self.always_wrong + int((np.add.reduceat(ahead, self.starts, dtype=np.int64) >= GUESSES).sum())


def find_competitors(labels: Tensor, softmaxes: Tensor) -> Competitors:
    """Return the competitors of `labels` [N] among the nets' softmax outputs [M, N, classes]."""
    margins = softmaxes - softmaxes.gather(2, labels.expand(len(softmaxes), -1)[..., None])
    competes = (margins > 0).any(0)
    always_wrong = (margins > 0).all(0).sum(1) >= GUESSES
    undecided = (competes.sum(1) >= GUESSES) & ~always_wrong
    counts = competes[undecided].sum(1).numpy()
    rows = margins[:, undecided][:, competes[undecided]].T.numpy()
    return Competitors(rows, np.cumsum(counts) - counts, int(always_wrong.sum()))


def concatenate(parts: Sequence[Competitors]) -> Competitors:
    """Return the competitors of the images of all `parts` together."""
    offsets = np.cumsum([0, *(len(part.margins) for part in parts)])
    starts = [offset + part.starts for offset, part in zip(offsets, parts, strict=False)]
    margins = np.concatenate([part.margins for part in parts])
    return Competitors(margins, np.concatenate(starts), sum(part.always_wrong for part in parts))


def search(competitors: Competitors) -> Weights:
    """Return weights [M], non-negative with sum one, for which few images are wrong.

    The paper's authors searched weights on the validation top-5 error; the algorithm is ours. A net's weight is a
    whole number of units, UNITS at the start. Of all moves of units from one net to another, the one with the fewest
    wrong images is made, among equals the one nearest to equal weights; this repeats until no move reduces the wrong
    images, or keeps them and comes nearer to equal weights. For two nets the result is the optimum on the grid, for
    more a local optimum with respect to single moves.
    """
    equal = np.full(competitors.margins.shape[1], UNITS)

    def cost(units: NDArray[np.int64]) -> tuple[int, int]:
        return competitors.count_wrong(units / equal.sum()), int(((units - equal) ** 2).sum())

    best = equal
    while True:
        candidate = min(_moves(best), key=cost)
        if cost(candidate) >= cost(best):
            weights: Weights = best / equal.sum()
            return weights
        best = candidate


def _moves(units: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the units after each move of some of them from one net to another."""
    one = np.eye(len(units), dtype=units.dtype)
    for source in range(len(units)):
        for target in range(len(units)):
            if source != target:
                for amount in range(1, units[source] + 1):
                    yield units + amount * (one[target] - one[source])


@torch.inference_mode()
def search_weights(
    nets: Sequence[Model],
    views: MemberViews,
    split: Split,
    view_count: int,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = BATCH,
    devices: Sequence[torch.device] = (),
) -> Weights:
    """Return the weights [nets] that `search` finds for the nets' average on the images of `split`.

    `on_progress` is called with images done and images in all. The nets are left in evaluation mode;
    with `devices` they are on the first, and copies of them on the others share the work.
    """
    parts, done = [], 0
    batches = member_softmaxes(nets, views, split, view_count, batch_size=batch_size, devices=devices)
    for labels, softmaxes in batches:
        parts.append(find_competitors(labels, softmaxes))
        done += len(labels)
        if on_progress:
            on_progress(done, len(split))
    return search(concatenate(parts))
