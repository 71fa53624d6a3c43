"""Scales of a run: image size, width and length. Only scale "paper" can match the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """The size of images and nets, and the length of training.

    Attributes:
        name: "paper", "small" or "smoke".
        image_size: side of the stored images, in pixels.
        crop_size: side of the crops that the net sees, in pixels.
        width: factor on the number of kernels or units of every hidden layer.
        epochs: number of training epochs; None for the recipe's.
    """

    name: str
    image_size: int
    crop_size: int
    width: float
    epochs: int | None


def _by_name(*scales: Scale) -> dict[str, Scale]:
    return {scale.name: scale for scale in scales}


SCALES = _by_name(
    Scale("paper", 256, 224, 1.0, None),
    Scale("small", 128, 112, 0.5, 30),
    Scale("smoke", 64, 56, 0.5, 10),
)

# The CIFAR-10 nets are small enough to train at full size: only the number of epochs differs.
CIFAR_SCALES = _by_name(
    Scale("paper", 32, 32, 1.0, None),
    Scale("small", 32, 32, 1.0, 10),
    Scale("smoke", 32, 32, 0.5, 2),
)
CIFAR_CROP_SCALES = {name: replace(scale, crop_size=24) for name, scale in CIFAR_SCALES.items()}
