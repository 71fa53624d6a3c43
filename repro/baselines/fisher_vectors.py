"""Fisher vectors of descriptors under a mixture of Gaussians (Sánchez and Perronnin, CVPR 2011)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.baselines.regions import Regions

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout

MAX_ITERATIONS = 30  # of expectation maximisation
SMALLEST_VARIANCE = 1e-5


@dataclass(frozen=True)
class GaussianVocabulary:
    """PCA and a mixture of K Gaussians with diagonal covariance.

    Attributes:
        mean: mean of the descriptors, float32 [D].
        components: principal directions, float32 [P, D].
        weights: weights of the Gaussians, float32 [K], with sum one.
        means: their means, float32 [K, P].
        variances: their variances, float32 [K, P].
    """

    mean: Floats
    components: Floats
    weights: Floats
    means: Floats
    variances: Floats

    def project(self, descriptors: Floats) -> Floats:
        """Return the principal components [N, P] of descriptors [N, D]."""
        projected: Floats = (descriptors - self.mean) @ self.components.T
        return projected

    def posteriors(self, projected: Floats) -> Floats:
        """Return the probability of each Gaussian given each projected descriptor, float32 [N, K]."""
        precisions = 1 / self.variances
        constant = np.log(self.weights) - 0.5 * (
            np.log(2 * np.pi * self.variances).sum(1) + (self.means**2 * precisions).sum(1)
        )
        logs = projected @ (self.means * precisions).T - 0.5 * (projected**2 @ precisions.T) + constant
        logs -= logs.max(1, keepdims=True)
        np.exp(logs, out=logs)
        logs /= logs.sum(1, keepdims=True)
        probabilities: Floats = logs.astype(np.float32, copy=False)
        return probabilities

    def encode(self, descriptors: Floats, regions: Regions) -> Floats:
        """Return the normalised Fisher vector of an image, float32 [R · 2·K·P] for R regions, with norm one.

        A region's vector is the gradient of the descriptors' log-likelihood with respect to means and variances,
        scaled by the inverse square root of the Fisher information. Each value is replaced by its signed square root,
        and the vector divided by its norm. A region without descriptors is zero.
        """
        projected = self.project(descriptors)
        posteriors = self.posteriors(projected)
        sums = regions.sums(
            lambda rows: (
                posteriors[rows].sum(0, dtype=np.float32),
                posteriors[rows].T @ projected[rows],
                posteriors[rows].T @ projected[rows] ** 2,
            )
        )
        vectors = [
            normalise(self._gradients(count, *sums_of_region))
            for count, sums_of_region in zip(regions.counts, sums, strict=True)
        ]
        vector: Floats = np.concatenate(vectors)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def _gradients(self, count: int, zeroth: Floats, first: Floats, second: Floats) -> Floats:
        """Return the Fisher vector [2·K·P] of `count` descriptors from Σγ [K], Σγx and Σγx² [K, P]."""
        weights, zeroth = self.weights[:, None], zeroth[:, None]
        by_means = (first - self.means * zeroth) / np.sqrt(self.variances * weights)
        by_variances = (second - 2 * self.means * first + (self.means**2 - self.variances) * zeroth) / (
            self.variances * np.sqrt(2 * weights)
        )
        gradients: Floats = np.concatenate([by_means, by_variances]).ravel() / max(count, 1)
        return gradients


def normalise(vector: Floats) -> Floats:
    """Return the signed square roots of a vector, divided by their norm; zeros stay zero."""
    powered = np.sign(vector) * np.sqrt(np.abs(vector))
    normalised: Floats = powered / max(float(np.linalg.norm(powered)), 1e-12)
    return normalised


def learn_vocabulary(descriptors: Floats, components: int, words: int, seed: int) -> GaussianVocabulary:
    """Learn PCA and the mixture from descriptors [N, D], N ≥ `words`, with scikit-learn. Deterministic by `seed`."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    pca = PCA(components, svd_solver="covariance_eigh").fit(descriptors)
    projected = pca.transform(descriptors).astype(np.float32)
    mixture = GaussianMixture(
        words, covariance_type="diag", init_params="k-means++", max_iter=MAX_ITERATIONS, reg_covar=SMALLEST_VARIANCE,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():  # the number of iterations is part of the method
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(projected)
    parts: Sequence[NDArray[np.float64]] = (
        pca.mean_, pca.components_, np.maximum(mixture.weights_, 1e-8), mixture.means_, mixture.covariances_,
    )  # fmt: skip
    return GaussianVocabulary(*(np.ascontiguousarray(part, np.float32) for part in parts))
