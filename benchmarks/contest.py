"""Describing images by the methods that preceded the paper, against plain loops of libraries and the net's inference.

    python benchmarks/contest.py

Images have 128 pixels, as at scale small. Dense SIFT runs against OpenCV's at the same patches (if
opencv-python-headless is installed), HOG against scikit-image's patch by patch, Fisher vectors against scikit-image's
region by region, on the same descriptors, mixture and layout; whole methods against the net. All figures are processor
time of one core: `repro evaluate` divides the images of a method, and the net its operators, among all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from skimage import feature
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from timing import HEAD, Row, print_machine, take_turns

from repro.baselines.coordinate_coding import code, pool
from repro.baselines.descriptors import corners, describe
from repro.baselines.encoders import encoder_from_arrays, encoder_shapes, vector_size
from repro.baselines.fisher_vectors import GaussianVocabulary
from repro.baselines.model import BaselineModel
from repro.baselines.regions import Regions
from repro.data.views import Views
from repro.evaluation.predictions import mean_softmax
from repro.models.network import AlexNet
from repro.paper.baselines import find_method
from repro.paper.variants import configure

SIZE, IMAGES, CLASSES = 128, 64, 10
FISHER, CODING = find_method("sift-fv", "small"), find_method("sparse-coding", "small")


def _images() -> np.ndarray:
    """Generate smooth colour noise, uint8 [N, S, S, 3]."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 16, 1).repeat(SIZE // 16, 2)


def _seconds(action: Callable[[np.ndarray], object], images: int) -> float:
    """Return the seconds per image of `action`, after one image to warm up."""
    pictures = _images()
    with threadpool_limits(1):
        action(pictures[0])
        began = time.process_time()
        for picture in pictures[:images]:
            action(picture)
        return (time.process_time() - began) / images


def sift() -> float:
    """Return the seconds per image of dense SIFT."""
    return _seconds(lambda image: describe(image, "sift", FISHER.patches, FISHER.step), IMAGES)


def opencv_sift() -> float:
    """Return the seconds per image of OpenCV's SIFT at the same patches."""
    import cv2

    cv2.setNumThreads(1)
    keypoints = [
        cv2.KeyPoint(float(x), float(y), patch / 4.0)
        for patch in FISHER.patches
        for y in corners(SIZE, patch, FISHER.step) + patch / 2
        for x in corners(SIZE, patch, FISHER.step) + patch / 2
    ]
    extractor = cv2.SIFT_create()
    return _seconds(lambda image: extractor.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), keypoints), 8)


def hog() -> float:
    """Return the seconds per image of dense HOG."""
    return _seconds(lambda image: describe(image, "hog", CODING.patches, CODING.step), IMAGES)


def scikit_image_hog() -> float:
    """Return the seconds per image of scikit-image's HOG, patch by patch."""

    def describe_patches(image: np.ndarray) -> None:
        for patch in CODING.patches:
            starts = corners(SIZE, patch, CODING.step).tolist()
            for top in starts:
                for left in starts:
                    square = image[top : top + patch, left : left + patch]
                    feature.hog(square, 9, (patch // 4, patch // 4), (4, 4), "L2-Hys", channel_axis=-1)

    return _seconds(describe_patches, 2)


def _mixture() -> tuple[GaussianVocabulary, GaussianMixture]:
    """Return the same random mixture for both."""
    draw = np.random.default_rng(0)
    words, components = FISHER.words, FISHER.components
    mixture = GaussianMixture(words, covariance_type="diag")
    mixture.weights_ = np.full(words, 1 / words)
    mixture.means_ = draw.standard_normal((words, components))
    mixture.covariances_ = draw.random((words, components)) + 0.5
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    parts = (np.zeros(components), np.eye(components), mixture.weights_, mixture.means_, mixture.covariances_)
    return GaussianVocabulary(*(part.astype(np.float32) for part in parts)), mixture


def _projected() -> tuple[np.ndarray, np.ndarray]:
    centres = describe(_images()[0], "sift", FISHER.patches, FISHER.step).centres
    draw = np.random.default_rng(1)
    return draw.standard_normal((len(centres), FISHER.components)).astype(np.float32), centres


def fisher() -> float:
    """Return the seconds per image of a Fisher vector with its spatial layout."""
    (values, centres), (vocabulary, _) = _projected(), _mixture()
    return _seconds(lambda _: vocabulary.encode(values, Regions(centres, SIZE, FISHER.regions)), IMAGES)


def scikit_image_fisher() -> float:
    """Return the seconds per image of scikit-image's Fisher vectors of the same regions."""
    (values, centres), (_, mixture) = _projected(), _mixture()
    stripe = np.minimum(centres[:, 0] * 3 / SIZE, 2).astype(int)
    regions = [values, *(values[stripe == row] for row in range(3))]
    return _seconds(lambda _: [feature.fisher_vector(part, mixture) for part in regions], 8)


def coding() -> float:
    """Return the seconds per image of the coordinates of HOG, with pooling; the most expensive step."""
    found = describe(_images()[0], "hog", CODING.patches, CODING.step)
    dictionary = np.random.default_rng(0).random((CODING.words, found.values.shape[1]), np.float32)

    def encode(_: np.ndarray) -> None:
        words, codes = code(found.values, dictionary, CODING.neighbours)
        pool(words, codes, Regions(found.centres, SIZE, CODING.regions), CODING.words)

    return _seconds(encode, IMAGES)


def _whole(name: str) -> float:
    """Return the seconds per image of a method with a random vocabulary."""
    method, draw = find_method(name, "small"), np.random.default_rng(0)
    encoders, classifiers = [], []
    for kind in method.channels:
        arrays = {key: draw.random(shape, np.float32) + 0.1 for key, shape in encoder_shapes(kind, method).items()}
        encoders.append(encoder_from_arrays(kind, method, {k: v.astype(np.float32) for k, v in arrays.items()}))
        size = vector_size(kind, method)
        classifiers.append((np.zeros((CLASSES, size), np.float32), np.zeros(CLASSES, np.float32)))
    model, images = BaselineModel(method, tuple(encoders), tuple(classifiers), 1.0), _images()
    model.probabilities(images[:4], threads=1)
    began = time.process_time()
    model.probabilities(images, threads=1)
    return (time.process_time() - began) / IMAGES


def _net(views: int) -> float:
    """Return the seconds per image of the net at scale small."""
    torch.set_num_threads(1)
    configuration = configure("alexnet", "authors", "small", CLASSES)
    net = AlexNet(configuration.network).eval()
    mean = np.zeros((SIZE, SIZE, 3), np.float32)
    crop = configuration.scale.crop_size
    maker = Views(mean, np.eye(3), crop, configuration.recipe.augmentation, torch.device("cpu"))
    images = torch.from_numpy(_images())
    with torch.inference_mode():
        mean_softmax(net, maker, images, views, "fp32")
        began = time.process_time()
        mean_softmax(net, maker, images, views, "fp32")
    return (time.process_time() - began) / IMAGES


CANDIDATES: dict[str, Callable[[], float]] = {
    "sift": sift,
    **({"opencv-sift": opencv_sift} if find_spec("cv2") else {}),
    "hog": hog,
    "scikit-image-hog": scikit_image_hog,
    "fisher": fisher,
    "scikit-image-fisher": scikit_image_fisher,
    "coding": coding,
    "sift-fv": lambda: _whole("sift-fv"),
    "sparse-coding": lambda: _whole("sparse-coding"),
    "net-1": lambda: _net(1),
    "net-10": lambda: _net(10),
}

if __name__ == "__main__":
    taken = take_turns(CANDIDATES)
    print_machine()
    print("ms per image:", ", ".join(f"{name} {1000 * value:.1f}" for name, value in taken.items()))
    print(HEAD)
    if "opencv-sift" in taken:
        print(Row("dense SIFT", "OpenCV's", taken["opencv-sift"] / taken["sift"], "≥ 2"))
    print(Row("dense HOG", "scikit-image's, by patch", taken["scikit-image-hog"] / taken["hog"], "≥ 2"))
    print(Row("Fisher vectors", "scikit-image's", taken["scikit-image-fisher"] / taken["fisher"], "≥ 2"))
    for name in ("sift-fv", "sparse-coding"):
        for views in (1, 10):
            print(Row(f"time of {name}", f"the net, {views} views", taken[name] / taken[f"net-{views}"], "–"))
