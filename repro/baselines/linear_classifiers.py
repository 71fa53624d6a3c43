"""One-against-rest linear classifiers, trained by averaged stochastic gradient descent (Lin et al., CVPR 2011).

For class c, the hinge loss max(0, 1 − y·(w·x + b)) with y = ±1 and the penalty ½λ‖w‖². Several images are an update,
for all classes at once, so that the work is matrix products. The learning rate is η / (1 + ληt)^¾ at update t, and the
result is the average of the weights after every update (Xu, "Towards optimal one pass large scale learning with
averaged stochastic gradient descent", 2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.paper.baselines import Method

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout

AVERAGED_FROM = 1  # epochs before averaging begins


@dataclass
class LinearClassifiers:
    """The classifiers of one channel in training.

    Attributes:
        weight: float32 [classes, D].
        bias: float32 [classes].
        mean_weight: average of the weights, float32 [classes, D].
        mean_bias: average of the biases, float32 [classes].
        averaged: number of updates in the average.
    """

    weight: Floats
    bias: Floats
    mean_weight: Floats
    mean_bias: Floats
    averaged: int = 0

    @classmethod
    def zeros(cls, classes: int, dimensions: int) -> LinearClassifiers:
        """Return classifiers before the first update."""
        weights, biases = (np.zeros((2, *shape), np.float32) for shape in ((classes, dimensions), (classes,)))
        return cls(weights[0], biases[0], weights[1], biases[1])

    def update(self, vectors: Floats, labels: NDArray[np.int64], step: int, average: bool, method: Method) -> Floats:
        """Update with a batch, vectors [B, D] and labels [B]; return its scores [B, classes] from before."""
        scores = vectors @ self.weight.T + self.bias
        signs = _signs(scores, labels)
        slopes = np.where(signs * scores < 1, signs, 0) / len(labels)
        rate = np.float32(learning_rate(method, step))
        self.weight *= 1 - rate * np.float32(method.regularisation)
        self.weight += rate * (slopes.T @ vectors)
        self.bias += rate * slopes.sum(0)
        if average:
            self.averaged += 1
            self.mean_weight += (self.weight - self.mean_weight) / np.float32(self.averaged)
            self.mean_bias += (self.bias - self.mean_bias) / np.float32(self.averaged)
        return scores

    def result(self) -> tuple[Floats, Floats]:
        """Return weight and bias: averages, once averaging has begun."""
        return (self.mean_weight, self.mean_bias) if self.averaged else (self.weight, self.bias)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state by name."""
        return {**vars(self), "averaged": np.array([self.averaged])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LinearClassifiers:
        """Return the classifiers in the state that `arrays` describes. Raises KeyError if an array is missing."""
        weight, bias, mean_weight, mean_bias = (
            np.array(arrays[name]) for name in ("weight", "bias", "mean_weight", "mean_bias")
        )
        return cls(weight, bias, mean_weight, mean_bias, int(arrays["averaged"][0]))


def learning_rate(method: Method, step: int) -> float:
    """Return the learning rate at update `step`, from 0: η / (1 + ληt)^¾."""
    rate: float = method.lr / (1 + method.regularisation * method.lr * step) ** 0.75
    return rate


def hinge_loss(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Return the mean hinge loss over images and classes of scores [B, classes]."""
    return float(np.maximum(0, 1 - _signs(scores, labels) * scores).mean())


def _signs(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return y of scores [B, classes]: 1 for an image's class, −1 for the others."""
    signs = np.full(scores.shape, -1, np.float32)
    signs[np.arange(len(labels)), labels] = 1
    return signs


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Return the T for which softmax(scores / T) has the smallest cross-entropy, from 0.001 to 1000.

    Scores of the hinge loss are no probabilities, and an average with a net's softmax outputs needs some. The order
    of the classes of an image does not depend on T. `scores` [N, classes] must be of images that the classifiers were
    not trained on.
    """
    from scipy.optimize import minimize_scalar

    def cross_entropy(exponent: float) -> float:
        logits = scores.astype(np.float64) / 10**exponent
        logits -= logits.max(1, keepdims=True)
        return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())

    return float(10 ** minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded").x)


def softmax(scores: Floats, temperature: float) -> Floats:
    """Return the probabilities [N, classes] of scores at a temperature."""
    logits = scores / np.float32(temperature)
    logits -= logits.max(1, keepdims=True)
    exponentials = np.exp(logits)
    probabilities: Floats = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


def mean_scores(classifiers: Sequence[tuple[Floats, Floats]], vectors: Sequence[Floats]) -> Floats:
    """Return the scores [N, classes], averaged over the channels, of vectors [N, D] for each channel."""
    scores = [x @ weight.T + bias for (weight, bias), x in zip(classifiers, vectors, strict=True)]
    mean: Floats = np.mean(scores, axis=0, dtype=np.float32)
    return mean
