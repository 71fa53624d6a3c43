"""Registers every variant with timm: import this, then `timm.create_model("repro_no_lrn", recipe="paper")`.

Names are `repro_` and the variant's, with underscores. There are no pretrained weights to download; the models
are freshly initialised by the recipe, at the paper's full size. With `num_classes=0` they give fc7's activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import register_model

from repro.models.network import AlexNet, build_model
from repro.paper.variants import VARIANTS, Variant

__all__: list[str] = []


def _entry(variant: Variant) -> Callable[..., AlexNet]:
    def create(pretrained: bool = False, num_classes: int = 1000, recipe: str = "authors", **_: Any) -> AlexNet:
        if pretrained:
            raise ValueError(f"there are no pretrained weights of '{variant.name}': train it with `repro train`")
        model = build_model(variant.name, recipe, num_classes or 1000)
        if num_classes == 0:
            model.reset_classifier(0)
        return model

    create.__name__ = f"repro_{variant.name.replace('-', '_')}"
    create.__doc__ = f"{variant.summary} (Sec. {variant.section})."
    return create


for _variant in VARIANTS.values():
    register_model(_entry(_variant))
