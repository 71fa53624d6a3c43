"""Order of the training images and their random draws, as a function of (seed, epoch, position).

No state is carried from one epoch to the next, so a resumed run draws the same values as an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.paper.recipes import Augmentation

# Each use of randomness has a separate stream, so that switching one off does not change the others.
ORDER, PATCH, COLOUR, DROPOUT, WEIGHTS = range(5)


def generator(*key: int) -> np.random.Generator:
    """Return a NumPy generator that is a function of the integers `key`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def torch_seed(*key: int) -> int:
    """Return a seed for a `torch.Generator` that is a function of the integers `key`."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Draws:
    """Random draws of an epoch or of a batch; row i belongs to the i-th image in training order.

    Attributes:
        index: int64 [N], positions in the training split.
        top, left: int64 [N], offset of the patch in pixels.
        mirror: bool [N], whether the patch is flipped horizontally.
        alpha: float32 [N, 3] ~ N(0, 1), the colour noise before the recipe scales it (Sec. 4.1).
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
    """Return a random order of `images` images and the draws of each one (Sec. 4.1).

    Offsets are uniform on 0 … `margin`, both included. Consecutive runs of `augmentation.draws_shared_by` images
    share one offset and one flip.
    """
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
