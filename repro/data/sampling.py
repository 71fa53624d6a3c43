"""The order of the training images and their random draws, as a function of (seed, epoch, position) alone.

Nothing is carried from one epoch to the next, so a resumed run draws what an uninterrupted one draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.paper.recipes import Augmentation

# Each use of randomness has a stream of its own, so that switching one off leaves the others as they were.
ORDER, PATCH, COLOUR, DROPOUT, WEIGHTS = range(5)


def generator(*key: int) -> np.random.Generator:
    """A NumPy generator that depends on the whole numbers of `key` alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def torch_seed(*key: int) -> int:
    """A seed for a `torch.Generator` that depends on the whole numbers of `key` alone."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Draws:
    """One epoch's draws, or a batch's; row i belongs to the i-th image in training order.

    `index` [N] int64 into the training split; `top`, `left` [N] int64, the patch's offset in pixels; `mirror`
    [N] bool; `alpha` [N, 3] float32 ~ N(0, 1), to be scaled by the recipe.
    """

    index: np.ndarray
    top: np.ndarray
    left: np.ndarray
    mirror: np.ndarray
    alpha: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(self.index[rows], self.top[rows], self.left[rows], self.mirror[rows], self.alpha[rows])


def draw_epoch(seed: int, epoch: int, images: int, margin: int, augmentation: Augmentation) -> Draws:
    """A new order of all `images` and the draws of each; offsets run from 0 to `margin` inclusive (Sec. 4.1)."""
    patch = generator(seed, epoch, PATCH)
    run = np.arange(images) // augmentation.draws_shared_by
    runs = int(run[-1]) + 1
    top, left = patch.integers(0, margin + 1, size=(2, runs))
    mirror = patch.random(runs) < 0.5
    if not augmentation.crops:
        top = left = np.full(runs, margin // 2)
    if not augmentation.mirror:
        mirror = np.zeros(runs, dtype=bool)
    return Draws(
        index=generator(seed, epoch, ORDER).permutation(images),
        top=top[run],
        left=left[run],
        mirror=mirror[run],
        alpha=generator(seed, epoch, COLOUR).standard_normal((images, 3), dtype=np.float32),
    )
