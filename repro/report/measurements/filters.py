"""Statistics of conv1's kernels: colour and orientation (Sec. 6.1, Figure 3)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def towers(kernels: Floats) -> tuple[Floats, Floats]:
    """Return the kernels of tower 1, the first half, and those of tower 2."""
    half = len(kernels) // 2
    return kernels[:half], kernels[half:]


def colourfulness(kernels: Floats) -> Floats:
    """Return the share of each kernel's energy that is not grey, from 0 (all channels equal) to 1.

    `kernels` are [N, 3, h, w]; the result is [N].
    """
    grey = 3 * (kernels.mean(axis=1) ** 2).sum(axis=(1, 2))
    energy = (kernels**2).sum(axis=(1, 2, 3))
    share: Floats = 1 - grey / np.maximum(energy, np.finfo(np.float32).tiny)
    return share.clip(0, 1)


def orientedness(kernels: Floats) -> Floats:
    """Return how far each kernel's spectrum is concentrated in one direction, from 0 (all directions equal) to 1.

    `kernels` are [N, 3, h, w]; the result is [N].
    """
    power = (np.abs(np.fft.fft2(kernels)) ** 2).sum(axis=1)
    rows, columns = np.fft.fftfreq(kernels.shape[2])[:, None], np.fft.fftfreq(kernels.shape[3])[None]
    power[:, 0, 0] = 0
    # Opposite frequencies are one direction, so angles are doubled.
    doubled = np.exp(2j * np.arctan2(rows, columns))
    total = np.maximum(power.sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    concentration: Floats = np.abs((power * doubled).sum(axis=(1, 2))) / total
    return concentration


def oriented(kernels: Floats) -> NDArray[np.bool_]:
    """Return which kernels are more oriented than 95% of white-noise kernels of the same size, [N] bool."""
    beyond: NDArray[np.bool_] = orientedness(kernels) > _orientedness_of_noise(kernels.shape[2], kernels.shape[3])
    return beyond


@cache
def _orientedness_of_noise(height: int, width: int) -> float:
    noise = np.random.default_rng(0).standard_normal((2000, 3, height, width))
    return float(np.quantile(orientedness(noise), 0.95))
