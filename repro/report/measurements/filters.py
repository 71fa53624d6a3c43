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

    `kernels` are [N, 3, h, w]; the result is [N]. The mean of each channel is removed, and the border is tapered, so
    that it does not appear as horizontal and vertical structure.
    """
    spectra = _spectra(kernels)
    return _concentration((np.abs(spectra) ** 2).sum(axis=1))


def oriented(kernels: Floats) -> NDArray[np.bool_]:
    """Return which kernels are more oriented than noise like them, [N] bool.

    The null hypothesis of each kernel is noise without a direction that has the kernel's radial spectrum and, at each
    radius, the correlation of its channels. Draws of it are white noise, tapered as the kernel is, whose spectrum is
    mixed across channels and scaled ring by ring. A kernel is oriented if it exceeds all but 3% of its draws. Of smooth
    or coloured noise between 1% and 4% are then called oriented: neighbouring frequencies of a small kernel are not
    quite independent, which the margin below 5% allows for.
    """
    spectra = _spectra(kernels)
    concentration = _concentration((np.abs(spectra) ** 2).sum(axis=1))
    noise = _noise_spectra(*kernels.shape[2:])
    thresholds = [np.quantile(_concentration(_like(spectrum, noise)), 1 - LEVEL) for spectrum in spectra]
    beyond: NDArray[np.bool_] = concentration > np.array(thresholds)
    return beyond


LEVEL = 0.03
DRAWS = 500


def _spectra(kernels: Floats) -> NDArray[np.complexfloating]:
    """Return the spectra of tapered kernels without their channels' means, [N, 3, h, w]."""
    height, width = kernels.shape[2:]
    taper = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    spectra: NDArray[np.complexfloating] = np.fft.fft2((kernels - kernels.mean(axis=(2, 3), keepdims=True)) * taper)
    return spectra


def _frequencies(height: int, width: int) -> tuple[Floats, Floats]:
    """Return the frequency of each element of a spectrum along rows and columns, in cycles per pixel."""
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    return rows, columns


def _concentration(power: Floats) -> Floats:
    """Return how far power spectra [N, h, w] are concentrated in one direction, [N] from 0 to 1."""
    rows, columns = _frequencies(*power.shape[1:])
    # Opposite frequencies are one direction, so angles are doubled. The mean has no direction.
    doubled = np.where(np.hypot(rows, columns) > 0, np.exp(2j * np.arctan2(rows, columns)), 0)
    total = np.maximum((power * (doubled != 0)).sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    concentration: Floats = np.abs((power * doubled).sum(axis=(1, 2))) / total
    return concentration


@cache
def _noise_spectra(height: int, width: int) -> NDArray[np.complexfloating]:
    return _spectra(np.random.default_rng(0).standard_normal((DRAWS, 3, height, width)))


def _like(spectrum: NDArray[np.complexfloating], noise: NDArray[np.complexfloating]) -> Floats:
    """Return power spectra [draws, h, w] of noise [draws, 3, h, w] with the radial spectrum of a kernel [3, h, w]."""
    height, width = spectrum.shape[1:]
    rings = np.rint(np.hypot(*_frequencies(height, width)) * max(height, width)).astype(int)
    power = np.zeros((len(noise), height, width))
    for radius in range(1, rings.max() + 1):
        ring = rings == radius
        covariance = (spectrum[:, ring] @ spectrum[:, ring].conj().T).real
        variances, channels = np.linalg.eigh(covariance)
        mixed = np.abs(channels.T @ noise[:, :, ring]) ** 2
        drawn = (mixed * np.maximum(variances, 0)[:, None]).sum(axis=1)
        scale = variances.sum() / np.maximum(drawn.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        power[:, ring] = scale * drawn
    return power
