"""Averaged SGD against a loop over classes in float64, and the temperature against a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repro.baselines.linear_classifiers import LinearClassifiers, fit_temperature, hinge_loss, mean_scores, softmax
from repro.paper.baselines import Method

METHOD = Method("pixels", ("pixels",), lr=0.5, regularisation=0.01)
C, D, B = 3, 5, 4


def test_updates_against_a_loop_over_classes() -> None:
    draw = np.random.default_rng(0)
    classifiers = LinearClassifiers.zeros(C, D)
    weight, bias, weights, biases = np.zeros((C, D)), np.zeros(C), [], []
    for step in range(6):
        vectors, labels = draw.standard_normal((B, D)), draw.integers(0, C, B)
        scores = classifiers.update(vectors.astype(np.float32), labels, step, step > 1, METHOD)
        expected_scores = vectors @ weight.T + bias
        rate, losses = 0.5 / (1 + 0.01 * 0.5 * step) ** 0.75, []
        for c in range(C):
            gradient, slope = 0.01 * weight[c], 0.0
            for i in range(B):
                y = 1 if labels[i] == c else -1
                losses.append(max(0, 1 - y * expected_scores[i, c]))
                if y * expected_scores[i, c] < 1:
                    gradient, slope = gradient - y * vectors[i] / B, slope - y / B
            weight[c] -= rate * gradient
            bias[c] -= rate * slope
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        np.testing.assert_allclose(hinge_loss(scores, labels), np.mean(losses), rtol=1e-5)
        if step > 1:
            weights.append(weight.copy())
            biases.append(bias.copy())
    found = classifiers.result()
    np.testing.assert_allclose(found[0], np.mean(weights, 0), atol=1e-5)
    np.testing.assert_allclose(found[1], np.mean(biases, 0), atol=1e-5)
    again = LinearClassifiers.from_arrays(classifiers.arrays())
    assert all(np.array_equal(a, b) for a, b in zip(vars(again).values(), vars(classifiers).values(), strict=True))


def test_separable_classes_are_learned() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, C, 300)
    vectors = (np.eye(C, D)[labels] + 0.1 * draw.standard_normal((300, D))).astype(np.float32)
    classifiers = LinearClassifiers.zeros(C, D)
    for step in range(150):
        rows = np.arange(2 * step, 2 * step + 2)
        classifiers.update(vectors[rows], labels[rows], step, step > 50, replace(METHOD, regularisation=1e-4))
    scores = mean_scores([classifiers.result()] * 2, [vectors] * 2)
    assert (scores.argmax(1) == labels).mean() > 0.98


def test_the_temperature_has_the_smallest_cross_entropy() -> None:
    """Labels that are drawn with the probabilities of the scores at a temperature of 0.2."""
    draw = np.random.default_rng(2)
    scores = draw.standard_normal((4000, C)).astype(np.float32)
    labels = np.array([draw.choice(C, p=row / row.sum()) for row in softmax(scores, 0.2).astype(np.float64)])
    found = fit_temperature(scores, labels)
    assert 0.17 < found < 0.23

    def cross_entropy(temperature: float) -> float:
        return -float(np.log(softmax(scores, temperature)[np.arange(len(labels)), labels]).mean())

    assert all(cross_entropy(found) <= cross_entropy(found * factor) for factor in (0.9, 0.99, 1.01, 1.1))
    np.testing.assert_allclose(softmax(scores, 0.2).sum(1), 1, atol=1e-5)
