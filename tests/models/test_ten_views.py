"""The ten test views computed together: the same maps and logits as one by one."""

import numpy as np
import pytest
import torch

from repro.data.views import Views
from repro.models.network import AlexNet
from repro.models.ten_views import share_conv1, share_conv2, shared_prefix, shares_conv1, ten_view_logits
from repro.models.towers import to_devices
from repro.paper.variants import VARIANTS, configure


def made(variant: str, recipe: str, scale: str) -> tuple[AlexNet, Views, np.ndarray]:
    configuration = configure(variant, recipe, scale, 10)
    generator = torch.Generator().manual_seed(1)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation, generator)
    size = configuration.scale.image_size
    random = np.random.default_rng(2)
    mean = random.uniform(0, 255, (size, size, 3)).astype(
        np.float32
    )  # different everywhere, so that a wrong crop shows
    augmentation = configuration.recipe.augmentation
    views = Views(mean, np.eye(3), configuration.scale.crop_size, augmentation, torch.device("cpu"))
    return model.eval(), views, random.integers(0, 256, (3, size, size, 3), dtype=np.uint8)


CASES = [
    *(("alexnet", recipe, scale) for recipe in ("authors", "paper") for scale in ("smoke", "small", "paper")),
    *((variant, "paper", "small") for variant in ("one-gpu", "no-lrn", "no-overlap", "tanh", "conv6")),
]


@pytest.mark.parametrize(("variant", "recipe", "scale"), CASES)
@torch.inference_mode()
def test_maps_and_logits_equal_those_of_the_views_one_by_one(variant: str, recipe: str, scale: str) -> None:
    model, views, images = made(variant, recipe, scale)
    assert shares_conv1(model, views)
    apart = list(views.test_views(images, 10))
    assert len(apart) == 10
    layers, shared = list(model.children()), shared_prefix(model, views)
    together = {1: share_conv1(layers[0], views, images)}
    if shared:
        together[len(shared)] = share_conv2(shared, views, images)
    for depth, ten_maps in together.items():
        for maps, view in zip(ten_maps, apart, strict=True):
            expected = torch.nn.Sequential(*layers[:depth])(view)
            torch.testing.assert_close(maps, expected, rtol=0, atol=4e-6 * expected.abs().max().item())
    logits = torch.stack([model(view) for view in apart])
    torch.testing.assert_close(
        ten_view_logits(model, views, images).softmax(2), logits.softmax(2), rtol=1e-4, atol=1e-6
    )


def test_which_nets_share_conv1() -> None:
    for name, variant in VARIANTS.items():
        recipe = next(iter(variant.family.recipes))
        model, views, _ = made(name, recipe, "smoke")
        padded = name.startswith("cifar") or name == "no-conv1"  # zeros at the edges differ from view to view
        assert shares_conv1(model, views) == (not padded), name
    model, views, _ = made("alexnet", "authors", "smoke")
    assert not shares_conv1(to_devices(model, (torch.device("cpu"), torch.device("cpu"))), views)
    views.margin = 10
    assert not shares_conv1(model, views)


def test_which_nets_share_conv2() -> None:
    for scale, fits in {"smoke": False, "small": True, "paper": True}.items():  # smoke's views lie 4 pixels apart
        shared = shared_prefix(*made("alexnet", "paper", scale)[:2])
        assert (len(shared) if shared else 0) == (7 if fits else 0), scale  # up to lrn2
        assert not shared_prefix(*made("alexnet", "authors", scale)[:2]), scale
