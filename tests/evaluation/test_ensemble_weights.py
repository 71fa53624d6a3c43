"""The search for ensemble weights, against sums over all softmax outputs and all weights on the grid."""

from itertools import product

import numpy as np
import pytest
import torch

from repro.evaluation.ensemble_weights import UNITS, Competitors, concatenate, find_competitors, search


def made(members: int, images: int, classes: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [N] and softmax outputs [M, N, classes] of nets that make different mistakes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (members, images, classes))
    logits[:, np.arange(images), labels] += rng.uniform(0, 1.5, (members, 1))
    softmaxes = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    return labels, softmaxes.astype(np.float32)


def wrong_by_hand(labels: np.ndarray, softmaxes: np.ndarray, weights: np.ndarray) -> int:
    average = np.tensordot(weights, softmaxes.astype(np.float64), 1)
    return sum(label not in np.argsort(-row)[:5] for label, row in zip(labels, average, strict=True))


def competitors_of(labels: np.ndarray, softmaxes: np.ndarray, batch: int = 64) -> Competitors:
    """Find them batch by batch, as in an evaluation."""
    starts = range(0, len(labels), batch)
    return concatenate([
        find_competitors(torch.from_numpy(labels[at : at + batch]), torch.from_numpy(softmaxes[:, at : at + batch]))
        for at in starts
    ])  # fmt: skip


def weights_on_the_grid(members: int, step: int = 1) -> list[np.ndarray]:
    total = members * UNITS
    counts = product(range(0, total + 1, step), repeat=members - 1)
    return [np.array([*each, total - sum(each)]) / total for each in counts if sum(each) <= total]


@pytest.mark.parametrize(("members", "step"), [(2, 1), (3, 5)])
def test_competitors_give_the_error_for_any_weights(members: int, step: int) -> None:
    labels, softmaxes = made(members, 300)
    competitors = competitors_of(labels, softmaxes)
    assert len(competitors.starts) < 300  # no weights change the result of the others
    assert competitors.always_wrong > 0
    for weights in weights_on_the_grid(members, step):
        assert competitors.count_wrong(weights) == wrong_by_hand(labels, softmaxes, weights)


@pytest.mark.parametrize("seed", range(5))
def test_two_nets_get_the_best_weights_of_the_grid_nearest_to_equal(seed: int) -> None:
    labels, softmaxes = made(2, 200, seed=seed)
    found = search(competitors_of(labels, softmaxes))
    grid = weights_on_the_grid(2)
    best = min(grid, key=lambda each: (wrong_by_hand(labels, softmaxes, each), abs(each[0] - 0.5).round(6)))
    assert wrong_by_hand(labels, softmaxes, found) == wrong_by_hand(labels, softmaxes, best)
    assert abs(found[0] - 0.5) == pytest.approx(abs(best[0] - 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_three_nets_get_nearly_the_best_weights(seed: int) -> None:
    labels, softmaxes = made(3, 200, seed=seed)
    competitors = competitors_of(labels, softmaxes)
    found = search(competitors)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    best = min(competitors.count_wrong(each) for each in weights_on_the_grid(3))
    assert best <= competitors.count_wrong(found) <= best + 1
    assert competitors.count_wrong(found) < competitors.count_wrong(np.full(3, 1 / 3))
    assert np.array_equal(found, search(competitors))


@pytest.mark.parametrize("classes", [3, 12])
def test_weights_stay_equal_where_nothing_is_gained(classes: int) -> None:
    labels, softmaxes = made(1, 50, classes)
    assert search(competitors_of(labels, np.repeat(softmaxes, 4, axis=0))).tolist() == [0.25] * 4
