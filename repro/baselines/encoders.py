"""From images to the vectors that the linear classifiers see: a learned encoder for each channel of a method."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.baselines import coordinate_coding, fisher_vectors
from repro.baselines.descriptors import DIMENSIONS, describe
from repro.baselines.fisher_vectors import GaussianVocabulary
from repro.baselines.regions import Regions
from repro.errors import ReproError, how_to_install
from repro.paper.baselines import THUMBNAIL, Method

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout
MEASURED = 3  # images that the speed is measured on

Arrays = Mapping[str, NDArray[Any]]


class Images(Protocol):
    """Images, uint8 [S, S, 3], of a known number."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.uint8]]: ...


class Encoder(Protocol):
    """Encodes one channel of a method."""

    def encode(self, image: NDArray[np.uint8]) -> Floats:
        """Return the vector of an image, uint8 [S, S, 3], as float32 [D]."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the learned arrays by name."""
        ...


@dataclass(frozen=True)
class FisherEncoder:
    """Fisher vectors of one kind of descriptors."""

    kind: str
    method: Method
    vocabulary: GaussianVocabulary

    def encode(self, image: NDArray[np.uint8]) -> Floats:
        """Return the Fisher vector of an image."""
        found = describe(image, self.kind, self.method.patches, self.method.step)
        return self.vocabulary.encode(found.values, Regions(found.centres, len(image), self.method.regions))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return PCA and mixture."""
        return asdict(self.vocabulary)


@dataclass(frozen=True)
class CoordinateEncoder:
    """Pooled local coordinates of one kind of descriptors."""

    kind: str
    method: Method
    dictionary: Floats

    def encode(self, image: NDArray[np.uint8]) -> Floats:
        """Return the pooled codes of an image."""
        found = describe(image, self.kind, self.method.patches, self.method.step)
        regions = Regions(found.centres, len(image), self.method.regions)
        return coordinate_coding.encode(found.values, self.dictionary, self.method.neighbours, regions)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the dictionary."""
        return {"dictionary": self.dictionary}


@dataclass(frozen=True)
class PixelEncoder:
    """Pixels of a thumbnail less their mean, divided by `scale`, the root mean square norm of the training images."""

    mean: Floats
    scale: Floats

    def encode(self, image: NDArray[np.uint8]) -> Floats:
        """Return the scaled pixels of an image."""
        encoded: Floats = (thumbnail(image).ravel() - self.mean) / self.scale
        return encoded

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return mean and scale."""
        return {"mean": self.mean, "scale": self.scale}


def thumbnail(image: NDArray[np.uint8]) -> Floats:
    """Return an image [S, S, 3] reduced to 32×32 pixels by averaging, float32 of values 0–255."""
    edges = np.linspace(0, len(image), THUMBNAIL + 1)
    low, high = np.arange(len(image)), np.arange(len(image)) + 1
    overlap = np.minimum(high, edges[1:, None]) - np.maximum(low, edges[:-1, None])
    weights = (np.maximum(overlap, 0) * THUMBNAIL / len(image)).astype(np.float32)  # [32, S]
    reduced: Floats = np.einsum("is,stc,jt->ijc", weights, image.astype(np.float32), weights, optimize=True)
    return reduced


def learn_encoder(kind: str, method: Method, images: Images, seed: int) -> Encoder:
    """Learn the encoder of the channel `kind` from training images, uint8 [S, S, 3], deterministic by `seed`.

    Raises ReproError if there are fewer images, or descriptors, than words in the vocabulary.
    """
    if method.encoding == "pixels":
        pixels = np.stack([thumbnail(image).ravel() for image in images])
        mean = pixels.mean(0)
        norm = np.sqrt(((pixels - mean) ** 2).sum(1).mean())
        return PixelEncoder(mean, np.array([max(float(norm), 1.0)], np.float32))
    words = "Gaussians of the mixture" if method.encoding == "fisher" else "words of the dictionary"
    if len(images) < method.words:
        raise ReproError(
            f"{len(images):,} training images are fewer than the {method.words:,} {words}: prepare more images, or "
            "choose a smaller --scale"
        )
    sample = np.concatenate(list(_sample(kind, method, images, seed)))
    if len(sample) < method.words:
        raise ReproError(
            f"{len(sample):,} descriptors are fewer than the {method.words:,} {words}: prepare more or larger images"
        )
    if method.encoding == "fisher":
        components = min(method.components, DIMENSIONS[kind])
        return FisherEncoder(kind, method, fisher_vectors.learn_vocabulary(sample, components, method.words, seed))
    return CoordinateEncoder(kind, method, coordinate_coding.learn_dictionary(sample, method.words, seed))


def _sample(kind: str, method: Method, images: Images, seed: int) -> Iterator[Floats]:
    """Yield some descriptors of each image, as many of each, drawn at random."""
    draw = np.random.default_rng([seed, len(images)])
    per_image = max(1, method.sample // len(images))
    for image in images:
        values = describe(image, kind, method.patches, method.step).values
        yield values[draw.permutation(len(values))[:per_image]]


def encoder_from_arrays(kind: str, method: Method, arrays: Arrays) -> Encoder:
    """Return the encoder that `Encoder.arrays` describes. Raises KeyError if an array is missing."""
    if method.encoding == "fisher":
        names = ("mean", "components", "weights", "means", "variances")
        return FisherEncoder(kind, method, GaussianVocabulary(*(arrays[name] for name in names)))
    if method.encoding == "coordinates":
        return CoordinateEncoder(kind, method, arrays["dictionary"])
    return PixelEncoder(arrays["mean"], arrays["scale"])


def encoder_shapes(kind: str, method: Method) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an encoder's arrays by name."""
    if method.encoding == "fisher":
        dimensions, components = DIMENSIONS[kind], min(method.components, DIMENSIONS[kind])
        mixture = (method.words, components)
        return {
            "mean": (dimensions,),
            "components": (components, dimensions),
            "weights": (method.words,),
            "means": mixture,
            "variances": mixture,
        }
    if method.encoding == "coordinates":
        return {"dictionary": (method.words, DIMENSIONS[kind])}
    return {"mean": (3 * THUMBNAIL**2,), "scale": (1,)}


def vector_size(kind: str, method: Method) -> int:
    """Return the dimensions of the vectors of a channel."""
    if method.encoding == "fisher":
        return method.region_count * 2 * method.words * min(method.components, DIMENSIONS[kind])
    return method.region_count * method.words if method.encoding == "coordinates" else 3 * THUMBNAIL**2


def seconds_per_image(method: Method, size: int) -> float:
    """Return the time that one processor takes to describe an image of `size` pixels, measured on random pixels.

    The vocabulary is random too: the time does not depend on its values. Raises ReproError if a package is missing.
    """
    require_packages(method)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (MEASURED + 1, size, size, 3), dtype=np.uint8)
    encoders = []
    for kind in method.channels:
        shapes = encoder_shapes(kind, method)
        arrays = {name: draw.random(shape, np.float32) + np.float32(0.1) for name, shape in shapes.items()}
        encoders.append(encoder_from_arrays(kind, method, arrays))
    with one_thread(method):
        for number, image in enumerate(images):
            if number == 1:  # the first image warms up
                started = time.perf_counter()
            for encoder in encoders:
                encoder.encode(image)
    return (time.perf_counter() - started) / MEASURED


def require_packages(method: Method) -> None:
    """Raise ReproError that names the extra if a package that `method` needs is not installed."""
    if method.encoding == "pixels":
        return
    try:
        import skimage
        import sklearn
        import threadpoolctl
    except ImportError as error:
        raise ReproError(f"this method needs {error.name}: {how_to_install('contest')}") from error
    del skimage, sklearn, threadpoolctl


def one_thread(method: Method) -> AbstractContextManager[object]:
    """Limit matrix products to one thread within the context: images are spread over processes or threads instead.

    The results are then the same whatever the number of processors.
    """
    if method.encoding == "pixels":
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
