"""How large a run is. Only the paper's own scale can match the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Image and patch size in pixels, width of the hidden layers as a factor, epochs (None: the recipe's)."""

    name: str
    image_size: int
    crop_size: int
    width: float
    epochs: int | None
    purpose: str


SCALES = {
    scale.name: scale
    for scale in (
        Scale("paper", 256, 224, 1.0, None, "the paper's own: ImageNet and GPUs, days"),
        Scale("small", 128, 112, 0.5, 30, "the same pipeline on ten classes: a laptop, an hour"),
        Scale("smoke", 64, 56, 0.5, 10, "the built-in data: minutes"),
    )
}
