"""Statistics of conv1's kernels: colour and orientation (Sec. 6.1, Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating]


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
    thresholds = np.quantile(_noise_concentration(spectra), 1 - LEVEL, axis=1)
    beyond: NDArray[np.bool_] = concentration > thresholds
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


@cache
def _directions(height: int, width: int) -> NDArray[np.complexfloating]:
    """Return the direction of each element of a spectrum as a unit number, [height · width]; 0 for the mean.

    Opposite frequencies are one direction, so angles are doubled.
    """
    rows, columns = _frequencies(height, width)
    return np.where(np.hypot(rows, columns) > 0, np.exp(2j * np.arctan2(rows, columns)), 0).ravel()


def _concentration(power: Floats) -> Floats:
    """Return how far power spectra [N, h, w] are concentrated in one direction, [N] from 0 to 1."""
    directions = _directions(*power.shape[1:])
    flat = power.reshape(len(power), -1)
    total = np.maximum(flat @ (directions != 0).astype(flat.dtype), np.finfo(np.float32).tiny)
    concentration: Floats = np.hypot(flat @ directions.real, flat @ directions.imag) / total
    return concentration


@dataclass(frozen=True)
class _Ring:
    """The elements of a spectrum at one radius, and draws of white noise there.

    Attributes:
        elements: which elements of a spectrum [h, w] they are, bool.
        power: of each draw, the sum over the elements of the products of two channels' values, real [9, draws].
        directed: the same with each element weighted by its direction, complex [9, draws].
    """

    elements: NDArray[np.bool_]
    power: Floats
    directed: NDArray[np.complexfloating]


@cache
def _noise_rings(height: int, width: int) -> tuple[_Ring, ...]:
    """Return the draws of noise for kernels of this size, by radius from 1."""
    noise = _spectra(np.random.default_rng(0).standard_normal((DRAWS, 3, height, width)))
    radii = np.rint(np.hypot(*_frequencies(height, width)) * max(height, width)).astype(int)
    directions = _directions(height, width).reshape(height, width)
    rings = []
    for radius in range(1, radii.max() + 1):
        ring = radii == radius
        values = noise[:, :, ring].transpose(1, 0, 2)
        products = (values[:, None] * values[None].conj()).real.reshape(9, DRAWS, -1)
        rings.append(_Ring(ring, products.sum(axis=2), products @ directions[ring]))
    return tuple(rings)


def _noise_concentration(spectra: NDArray[np.complexfloating]) -> Floats:
    """Return the concentration of draws of noise like each kernel, from their spectra [N, 3, h, w] to [N, draws].

    White noise n whose channels are mixed to have the covariance C of the kernel's at a radius has, summed over
    channels, the power n* C n, which is linear in the products of n's channels. Its sum is scaled to the kernel's.
    """
    total = np.zeros((len(spectra), DRAWS))
    directed = np.zeros((len(spectra), DRAWS), complex)
    for ring in _noise_rings(*spectra.shape[2:]):
        values = spectra[:, :, ring.elements]
        covariance = (values @ values.conj().transpose(0, 2, 1)).real
        power = covariance.reshape(-1, 9) @ ring.power
        scale = np.trace(covariance, axis1=1, axis2=2)[:, None] / np.maximum(power, np.finfo(np.float32).tiny)
        total += scale * power
        directed += scale * (covariance.reshape(-1, 9) @ ring.directed)
    concentration: Floats = np.abs(directed) / np.maximum(total, np.finfo(np.float32).tiny)
    return concentration
