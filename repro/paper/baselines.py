"""The methods that preceded the paper that Tables 1 and 2 quote, as data, and the floor under them all.

The paper cites SIFT with Fisher vectors after Sánchez and Perronnin, "High-dimensional signature compression for
large-scale image classification", CVPR 2011, and sparse coding after Lin et al., "Large-scale image classification:
fast feature extraction and SVM training", CVPR 2011, which won ILSVRC-2010. What these papers fix, what they leave
open and what is chosen here is in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repro.errors import ReproError, unknown

RECIPE = "cited"  # of every baseline: they have neither of the net's recipes

Grid = tuple[int, int]  # rows and columns of a spatial layout


@dataclass(frozen=True)
class Method:
    """How a baseline describes and classifies images, at one scale.

    Attributes:
        encoding: "fisher" (Fisher vectors), "coordinates" (local coordinate coding), or "pixels" (none).
        channels: kinds of descriptors: "sift" and "colour", "hog" and "lbp", or "pixels". Each has its own vocabulary
            and classifiers, whose scores are averaged.
        patches: sides of the square patches that are described, in pixels.
        step: distance of neighbouring patches in pixels.
        components: dimensions that PCA reduces a descriptor to; 0 for no PCA.
        words: number of Gaussians of the mixture, or of words of the dictionary.
        neighbours: words that code a descriptor; 0 where all do.
        regions: spatial layout, a grid of rows × columns per level.
        sample: largest number of descriptors that the vocabulary is learned from.
        epochs: passes of SGD over the training images.
        batch_size: images per update.
        lr: initial learning rate of SGD.
        regularisation: factor of half the squared norm of a classifier's weights.
    """

    encoding: str
    channels: tuple[str, ...]
    patches: tuple[int, ...] = ()
    step: int = 0
    components: int = 0
    words: int = 0
    neighbours: int = 0
    regions: tuple[Grid, ...] = ((1, 1),)
    sample: int = 0
    epochs: int = 10
    batch_size: int = 32
    lr: float = 4.0
    regularisation: float = 1e-5

    @property
    def region_count(self) -> int:
        """Number of regions of all levels."""
        return sum(rows * columns for rows, columns in self.regions)


@dataclass(frozen=True)
class Baseline:
    """A method that the net is compared with.

    Attributes:
        name: the name to give to `--variant`.
        section: section of the paper.
        summary: what it does.
        expected: the paper's quotation of its result.
        scales: the method by name of the scale.
    """

    name: str
    section: str
    summary: str
    expected: str
    scales: Mapping[str, Method]


THUMBNAIL = 32  # side of the images whose pixels the floor classifies

_STRIPES = ((1, 1), (3, 1))
_PYRAMID = ((1, 1), (2, 2), (3, 1))


def _fisher(patches: tuple[int, ...], step: int, words: int, sample: int, epochs: int, components: int = 64) -> Method:
    return Method("fisher", ("sift", "colour"), patches, step, components, words, 0, _STRIPES, sample, epochs)


def _coordinates(patches: tuple[int, ...], step: int, words: int, sample: int, epochs: int) -> Method:
    return Method("coordinates", ("hog", "lbp"), patches, step, 0, words, 5, _PYRAMID, sample, epochs)


_PIXELS = Method("pixels", ("pixels",))

BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            name="sift-fv",
            section="6",
            summary="no net: dense SIFT and colour statistics, Fisher vectors, linear classifiers",
            expected="45.7/25.7 (2010 test), top-5 26.2 (2012 test)",
            scales={
                "paper": _fisher((16, 24, 32, 48, 64), 4, 256, 1_000_000, 10),
                "small": _fisher((16, 24, 32), 4, 64, 100_000, 10),
                "smoke": _fisher((16, 24), 8, 8, 10_000, 10, components=16),
            },
        ),
        Baseline(
            name="sparse-coding",
            section="6",
            summary="no net: dense HOG and LBP, local coordinate coding, max-pooled pyramid, linear SVMs",
            expected="47.1/28.2 (2010 test)",
            scales={
                "paper": _coordinates((16, 24, 32), 8, 8192, 1_000_000, 5),
                "small": _coordinates((16, 24, 32), 8, 1024, 100_000, 10),
                "smoke": _coordinates((16, 24), 8, 32, 10_000, 10),
            },
        ),
        Baseline(
            name="pixels",
            section="",
            summary=f"no net: linear classifiers on the pixels of {THUMBNAIL}×{THUMBNAIL} images, a floor",
            expected="not in the paper",
            scales=dict.fromkeys(("paper", "small", "smoke"), _PIXELS),
        ),
    )
}


def find_method(name: str, scale: str) -> Method:
    """Return the method of a baseline at a scale. Raises ReproError with the nearest names for an unknown one."""
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    scales = BASELINES[name].scales
    if scale not in scales:
        raise unknown("scale", scale, scales)
    return scales[scale]


def check_recipe(name: str, recipe: str) -> None:
    """Raise ReproError for a recipe that a baseline does not have; the default of the nets stands for its own."""
    if recipe not in (RECIPE, "authors"):
        raise ReproError(f"'{name}' has no recipe '{recipe}': it is no net; leave --recipe out")
