"""Fisher vectors and local coordinate coding against loops over descriptors in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repro.baselines import coordinate_coding, fisher_vectors
from repro.baselines.encoders import learn_encoder, thumbnail
from repro.baselines.fisher_vectors import GaussianVocabulary, learn_vocabulary
from repro.baselines.regions import Regions
from repro.errors import ReproError
from repro.paper.baselines import find_method

K, P, D = 3, 4, 6
GRIDS = ((1, 1), (3, 1))


def vocabulary(seed: int = 0) -> GaussianVocabulary:
    draw = np.random.default_rng(seed)
    weights = draw.random(K) + 0.2
    parts = (draw.random(D), np.linalg.qr(draw.standard_normal((D, P)))[0].T, weights / weights.sum(),
             draw.standard_normal((K, P)), draw.random((K, P)) + 0.3)  # fmt: skip
    return GaussianVocabulary(*(part.astype(np.float32) for part in parts))


def descriptors(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((count, D)).astype(np.float32), (draw.random((count, 2)) * 30).astype(np.float32)


def slow_fisher_vector(v: GaussianVocabulary, values: np.ndarray) -> np.ndarray:
    """The normalised gradient of one region, descriptor by descriptor (Sánchez and Perronnin, CVPR 2011)."""
    gradient_means, gradient_deviations = np.zeros((K, P)), np.zeros((K, P))
    for value in values.astype(np.float64):
        x = v.components.astype(np.float64) @ (value - v.mean)
        densities = []
        for k in range(K):
            density = float(v.weights[k])
            for p in range(P):
                variance = float(v.variances[k, p])
                density *= math.exp(-0.5 * (x[p] - v.means[k, p]) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
            densities.append(density)
        for k in range(K):
            posterior = densities[k] / sum(densities)
            z = (x - v.means[k]) / np.sqrt(v.variances[k].astype(np.float64))
            gradient_means[k] += posterior * z / math.sqrt(v.weights[k])
            gradient_deviations[k] += posterior * (z**2 - 1) / math.sqrt(2 * v.weights[k])
    vector = np.concatenate([gradient_means, gradient_deviations]).ravel() / max(len(values), 1)
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


@pytest.mark.parametrize("count", [1, 2, 40])
def test_fisher_vectors_against_a_loop(count: int) -> None:
    """One descriptor leaves two of the three stripes empty."""
    values, centres = descriptors(count)
    found = vocabulary().encode(values, Regions(centres, 30, GRIDS))
    stripes = [centres[:, 0] < 10, (centres[:, 0] >= 10) & (centres[:, 0] < 20), centres[:, 0] >= 20]
    parts = [slow_fisher_vector(vocabulary(), values[rows]) for rows in (slice(None), *stripes)]
    expected = np.concatenate(parts)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=3e-4)
    assert found.dtype == np.float32


def test_fisher_vectors_of_scikit_image_agree() -> None:
    """Without PCA and without the gradients of the weights; scikit-image turns those of the deviations round."""
    feature = pytest.importorskip("skimage.feature")
    mixture = pytest.importorskip("sklearn.mixture")
    values = np.random.default_rng(2).standard_normal((300, P))
    model = mixture.GaussianMixture(K, covariance_type="diag", random_state=0).fit(values)
    v = GaussianVocabulary(np.zeros(P), np.eye(P), model.weights_, model.means_, model.covariances_)
    theirs = feature.fisher_vector(values[:50], model, improved=False)[K:]
    ours = v.encode(values[:50], Regions(np.zeros((50, 2), np.float32), 30, ((1, 1),)))
    theirs[K * P :] *= -1
    expected = np.sign(theirs) * np.sqrt(np.abs(theirs))
    np.testing.assert_allclose(ours, expected / np.linalg.norm(expected), atol=1e-4)


def test_the_vocabulary_is_a_pca_and_a_mixture() -> None:
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(3)
    centres = np.array([[4, 0, 0, 0, 0, 0], [-4, 0, 0, 0, 0, 0]])
    spread = np.array([0.5, 2.0, 0.3, 0.1, 0.1, 0.1])
    values = (centres[draw.integers(0, 2, 2000)] + spread * draw.standard_normal((2000, D)) + 7).astype(np.float32)
    v = learn_vocabulary(values, 2, 2, seed=0)
    np.testing.assert_allclose(v.components @ v.components.T, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(np.abs(v.components[:, :2]), np.eye(2), atol=0.05)  # the two widest directions
    projected = v.project(values)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(projected.T)[0, 1], 0, atol=1e-2)
    np.testing.assert_allclose(np.ptp(v.means[:, 0]), 8, atol=0.1)
    np.testing.assert_allclose(v.weights, 0.5, atol=0.05)
    np.testing.assert_allclose(v.variances, [[0.25, 4], [0.25, 4]], rtol=0.15)
    again = learn_vocabulary(values, 2, 2, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(vars(v).values(), vars(again).values(), strict=True))


def slow_codes(value: np.ndarray, dictionary: np.ndarray, neighbours: int) -> np.ndarray:
    """Codes of one descriptor by Lagrange's conditions of the constrained problem, solved as one linear system."""
    order = sorted(range(len(dictionary)), key=lambda word: float(((dictionary[word] - value) ** 2).sum()))[:neighbours]
    shifted = dictionary[order].astype(np.float64) - value
    covariance = shifted @ shifted.T
    penalty = coordinate_coding.RIDGE * np.trace(covariance) + 1e-8
    system = np.zeros((neighbours + 1, neighbours + 1))
    system[:-1, :-1] = 2 * (covariance + penalty * np.eye(neighbours))
    system[-1, :-1] = system[:-1, -1] = 1
    codes = np.zeros(len(dictionary))
    codes[order] = np.linalg.solve(system, np.eye(neighbours + 1)[-1])[:-1]
    return codes


def test_local_coordinates_against_a_loop() -> None:
    draw = np.random.default_rng(4)
    dictionary, (values, centres) = draw.standard_normal((12, D)).astype(np.float32), descriptors(25)
    found = coordinate_coding.encode(values, dictionary, 3, Regions(centres, 30, ((1, 1), (2, 2))))
    codes = np.stack([slow_codes(value, dictionary, 3) for value in values])
    np.testing.assert_allclose(codes.sum(1), 1)
    expected = [np.maximum(codes.max(0), 0)]
    for bottom in (False, True):
        for right in (False, True):
            inside = ((centres >= 15) == [bottom, right]).all(1)
            expected.append(codes[inside].max(0, initial=0))
    vector = np.concatenate(expected)
    np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-4)


def test_a_descriptor_that_is_a_word_has_one_code() -> None:
    dictionary = np.eye(D, dtype=np.float32)
    words, codes = coordinate_coding.code(dictionary[2:3], dictionary, 3)
    assert words[0, 0] == 2
    np.testing.assert_allclose(codes, [[1, 0, 0]], atol=1e-3)


@pytest.mark.parametrize("name", ["sift-fv", "sparse-coding"])
def test_encoders_of_images(name: str) -> None:
    """Deterministic by seed; finite for a constant image; nearer to the image shifted by a step than to others."""
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    draw, (y, x) = np.random.default_rng(5), np.mgrid[:72, :72]
    waves = [np.sin((y * np.sin(angle) + x * np.cos(angle)) * draw.uniform(0.3, 1)) for angle in np.linspace(0, 3, 40)]
    gratings = [(127 + 100 * wave[..., None] * draw.random(3)).astype(np.uint8) for wave in waves]
    images = [grating[:64, :64] for grating in gratings]
    method = find_method(name, "smoke")
    for kind in method.channels:
        encoder, again = (learn_encoder(kind, method, images, seed=1) for _ in range(2))
        vector = encoder.encode(images[0])
        assert np.array_equal(vector, again.encode(images[0]))
        assert not np.array_equal(vector, learn_encoder(kind, method, images, seed=2).encode(images[0]))
        np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-4)
        assert np.isfinite(encoder.encode(np.full((64, 64, 3), 9, np.uint8))).all()
        shifted = encoder.encode(gratings[0][method.step :, method.step :])
        assert vector @ shifted > max(vector @ encoder.encode(image) for image in images[1:6])


def test_fewer_images_than_words_are_an_error() -> None:
    pytest.importorskip("sklearn")
    images = [np.zeros((64, 64, 3), np.uint8)] * 5
    with pytest.raises(ReproError, match="5 training images are fewer than the 8 Gaussians of the mixture"):
        learn_encoder("sift", find_method("sift-fv", "smoke"), images, 0)
    with pytest.raises(ReproError, match="5 training images are fewer than the 32 words of the dictionary"):
        learn_encoder("hog", find_method("sparse-coding", "smoke"), images, 0)


@pytest.mark.parametrize("size", [64, 50, 20])
def test_thumbnails_average(size: int) -> None:
    image = np.random.default_rng(6).integers(0, 256, (size, size, 3), dtype=np.uint8)
    small = thumbnail(image)
    assert small.shape == (32, 32, 3)
    np.testing.assert_allclose(small.mean((0, 1)), image.mean((0, 1)), rtol=1e-4)
    if size == 64:
        np.testing.assert_allclose(small, image.reshape(32, 2, 32, 2, 3).mean((1, 3)), rtol=1e-5)


def test_a_region_without_descriptors_is_zero() -> None:
    values, _ = descriptors(5)
    centres = np.full((5, 2), 1.0, np.float32)
    vector = vocabulary().encode(values, Regions(centres, 30, GRIDS)).reshape(4, -1)
    assert vector[:2].any(1).all()
    assert not vector[2:].any()
    np.testing.assert_allclose(vector[0], vector[1], atol=1e-6)
    assert fisher_vectors.normalise(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
