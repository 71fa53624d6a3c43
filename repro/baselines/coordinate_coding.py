"""Local coordinate coding of descriptors, with max pooling over a spatial pyramid (Lin et al., CVPR 2011).

A descriptor is written as an affine combination of the words of a dictionary that are nearest to it. Its codes are the
coefficients of that combination, and zero for all other words: sparse, because the coding is local. The combination is
found by the closed form of Wang et al., "Locality-constrained linear coding", CVPR 2010.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.baselines.regions import Regions

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout

RIDGE = 1e-4  # times the trace of the local covariance, added to its diagonal
BATCH = 4096  # descriptors per update of the dictionary


def code(descriptors: Floats, dictionary: Floats, neighbours: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the words [N, k] that code each descriptor [N, D], and their codes [N, k], which have the sum one.

    The k = `neighbours` nearest words B (k × D) of a descriptor x get the codes c that minimise
    ‖x − cB‖² + ρ‖c‖² with Σc = 1, where ρ is `RIDGE` times the trace of the covariance (B − x)(B − x)ᵀ.
    """
    k = min(neighbours, len(dictionary))
    # Squared distances less ‖x‖², which is the same for all words.
    distances = descriptors @ (-2 * dictionary.T)
    distances += (dictionary**2).sum(1)
    nearest = np.empty((len(descriptors), k), np.int64)
    rows = np.arange(len(descriptors))
    for column in range(k):  # for a few neighbours faster than a partition of each row
        nearest[:, column] = distances.argmin(1)
        distances[rows, nearest[:, column]] = np.inf
    shifted = dictionary[nearest] - descriptors[:, None]  # [N, k, D]
    covariance = shifted @ shifted.transpose(0, 2, 1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    ridge = RIDGE * trace + 1e-8  # a descriptor on identical words has no covariance at all
    covariance += ridge[:, None, None] * np.eye(k, dtype=np.float32)
    codes = np.linalg.solve(covariance, np.ones((len(descriptors), k, 1), np.float32))[..., 0]
    codes /= codes.sum(1, keepdims=True)
    return nearest, codes.astype(np.float32, copy=False)


def pool(words: NDArray[np.int64], codes: Floats, regions: Regions, count: int) -> Floats:
    """Return the largest code of each of `count` words in each region, at least 0, float32 [R · count], with norm one.

    Most words do not code a given descriptor, and have the code 0 there. A region without descriptors is zero.
    """
    levels = []
    for (rows, columns), index in zip(regions.grids, regions.indices, strict=True):
        pooled = np.zeros(rows * columns * count, np.float32)
        np.maximum.at(pooled, (index[:, None] * count + words).ravel(), codes.ravel())
        levels.append(pooled)
    vector: Floats = np.concatenate(levels)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def encode(descriptors: Floats, dictionary: Floats, neighbours: int, regions: Regions) -> Floats:
    """Return the pooled codes of an image, float32 [R · words], with norm one."""
    words, codes = code(descriptors, dictionary, neighbours)
    return pool(words, codes, regions, len(dictionary))


def learn_dictionary(descriptors: Floats, words: int, seed: int) -> Floats:
    """Learn the words [words, D] from descriptors [N, D], N ≥ `words`: centres of k-means, deterministic by `seed`."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(words, batch_size=BATCH, n_init=1, max_iter=20, random_state=seed).fit(descriptors)
    return np.ascontiguousarray(means.cluster_centers_, np.float32)
