"""What can be said of conv1's kernels in numbers (Sec. 6.1, Figure 3)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def towers(kernels: Floats) -> tuple[Floats, Floats]:
    """The kernels of tower 1 (the first half) and of tower 2."""
    half = len(kernels) // 2
    return kernels[:half], kernels[half:]


def colourfulness(kernels: Floats) -> Floats:
    """Of each kernel [N, 3, h, w], the share of its energy that is not grey: 0 (all channels alike) to 1."""
    grey = 3 * (kernels.mean(axis=1) ** 2).sum(axis=(1, 2))
    energy = (kernels**2).sum(axis=(1, 2, 3))
    share: Floats = 1 - grey / np.maximum(energy, np.finfo(np.float32).tiny)
    return share.clip(0, 1)


def orientedness(kernels: Floats) -> Floats:
    """Of each kernel [N, 3, h, w], how far its spectrum lies in one direction: 0 (all directions) to 1."""
    power = (np.abs(np.fft.fft2(kernels)) ** 2).sum(axis=1)
    rows, columns = np.fft.fftfreq(kernels.shape[2])[:, None], np.fft.fftfreq(kernels.shape[3])[None]
    power[:, 0, 0] = 0
    # Opposite frequencies are one direction, so angles count twice.
    twice = np.exp(2j * np.arctan2(rows, columns))
    total = np.maximum(power.sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    concentration: Floats = np.abs((power * twice).sum(axis=(1, 2))) / total
    return concentration


def oriented(kernels: Floats) -> NDArray[np.bool_]:
    """Which kernels are more oriented than 95% of white-noise kernels of the same size; [N] bool."""
    beyond: NDArray[np.bool_] = orientedness(kernels) > _orientedness_of_noise(kernels.shape[2], kernels.shape[3])
    return beyond


@cache
def _orientedness_of_noise(height: int, width: int) -> float:
    noise = np.random.default_rng(0).standard_normal((2000, 3, height, width))
    return float(np.quantile(orientedness(noise), 0.95))
