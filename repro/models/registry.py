"""Registers every variant with timm: import this, then `timm.create_model("repro_no_lrn", recipe="paper")`.

Names are `repro_` and the variant's, with underscores. The models are freshly initialised by the recipe; there are no
weights to download. `num_classes=0` makes fc7's activations the output. `scale` chooses the size of the net, the
paper's by default, so the weights of a run on a laptop are loaded with

    timm.create_model("repro_alexnet", scale="small", num_classes=10, checkpoint_path="RUN/weights.safetensors")

`model.pretrained_cfg` describes the preprocessing, so that timm's own transforms produce what the nets expect: 0–255
values less the mean. timm subtracts one value per channel, by default the mean of ImageNet (of CIFAR-10 for its nets);
`repro evaluate` subtracts the mean image of the training set, which differs slightly from place to place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm.data
from timm.models import load_pretrained, register_model, resolve_pretrained_cfg

from repro.models.network import AlexNet
from repro.paper.networks import Conv
from repro.paper.variants import VARIANTS, Configuration, Variant, configure

__all__: list[str] = []

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # of the training images, per channel, on values of 0–1


def preprocessing(configuration: Configuration) -> dict[str, Any]:
    """Return timm's description of how images are prepared for a net: resized, cropped and scaled."""
    scale, divided_by = configuration.scale, configuration.recipe.augmentation.inputs_divided_by
    cifar = configuration.variant.dataset == "cifar10"
    return {
        "input_size": (3, scale.crop_size, scale.crop_size),
        "fixed_input_size": True,
        "interpolation": "bilinear",  # as in `repro prepare`
        "crop_pct": scale.crop_size / scale.image_size,
        "crop_mode": "center",
        "mean": CIFAR10_MEAN if cifar else timm.data.IMAGENET_DEFAULT_MEAN,
        "std": (divided_by / 255,) * 3,  # timm scales pixels to 0–1 first
    }


def _default_cfg(variant: Variant) -> dict[str, Any]:
    """Return the `pretrained_cfg` of a variant by its first recipe at the paper's scale."""
    configuration = configure(variant.name, next(iter(variant.family.recipes)), "paper", variant.family.classes)
    layers = configuration.network.layers
    first = next(layer.name for layer in layers if isinstance(layer, Conv))
    head = {"num_classes": variant.family.classes, "first_conv": first, "classifier": layers[-1].name}
    return preprocessing(configuration) | head


def _name(variant: Variant) -> str:
    return f"repro_{variant.name.replace('-', '_')}"


default_cfgs = {_name(variant): _default_cfg(variant) for variant in VARIANTS.values()}  # timm looks for this name


def _entry(variant: Variant) -> Callable[..., AlexNet]:
    name, recipes = _name(variant), tuple(variant.family.recipes)
    default_recipe = "authors" if "authors" in recipes else recipes[0]

    def create(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: str | Path | None = None,
        num_classes: int = variant.family.classes,
        recipe: str = default_recipe,
        scale: str = "paper",
    ) -> AlexNet:
        configuration = configure(variant.name, recipe, scale, num_classes or variant.family.classes)
        overlay = preprocessing(configuration) if pretrained_cfg is None else {}
        overlay |= pretrained_cfg_overlay or {}
        config = resolve_pretrained_cfg(name, pretrained_cfg, overlay).to_dict()  # type: ignore[no-untyped-call]
        model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
        model.pretrained_cfg = model.default_cfg = config
        if num_classes == 0:
            model.reset_classifier(0)
        if pretrained:
            load_pretrained(model, config, num_classes=num_classes, cache_dir=cache_dir)
        return model

    create.__name__ = name
    create.__doc__ = f"{variant.summary} (Sec. {variant.section})."
    return create


for _variant in VARIANTS.values():
    register_model(_entry(_variant))
