"""How large a run is. Only the paper's own scale can match the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """Image and patch size in pixels, width of the hidden layers as a factor, epochs (None: the recipe's)."""

    name: str
    image_size: int
    crop_size: int
    width: float
    epochs: int | None
    purpose: str


def _by_name(*scales: Scale) -> dict[str, Scale]:
    return {scale.name: scale for scale in scales}


SCALES = _by_name(
    Scale("paper", 256, 224, 1.0, None, "the paper's own: ImageNet and GPUs, days"),
    Scale("small", 128, 112, 0.5, 30, "the same pipeline on ten classes: a laptop, an hour"),
    Scale("smoke", 64, 56, 0.5, 10, "the built-in data: minutes"),
)

# The CIFAR-10 nets are small enough to be run as they are: only the number of epochs differs.
CIFAR_SCALES = _by_name(
    Scale("paper", 32, 32, 1.0, None, "the paper's own"),
    Scale("small", 32, 32, 1.0, 10, "the paper's net, fewer epochs"),
    Scale("smoke", 32, 32, 0.5, 2, "half the width: a minute"),
)
CIFAR_CROP_SCALES = {name: replace(scale, crop_size=24) for name, scale in CIFAR_SCALES.items()}
