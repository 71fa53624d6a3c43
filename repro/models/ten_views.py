"""The ten test views of the large nets (Sec. 4.1), with what they have in common computed once.

conv1 is computed once for an image and once for its mirror image. The views lie whole strides of conv1 apart, so that
their maps are parts of the whole image's; only their last row and column differ, for there the windows run over a
view's edge into zeros. Where a view has another mean taken off than the image's part, that adds the same to all
images. And the fully-connected layers, which are limited by reading their weights, see all ten views at once. At the
paper's size in float32 that saves an eighth of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.data.views import Views
from repro.models.layers import RoundedUpConv2d
from repro.models.network import AlexNet, through


def shares_conv1(model: nn.Module, views: Views) -> TypeGuard[AlexNet]:
    """Is this a net on one device whose first layer has no padding but its overhang, and fits `views`' places?"""
    first = next(model.children(), None)
    return (
        isinstance(model, AlexNet)
        and isinstance(first, RoundedUpConv2d)
        and first.padding == (0, 0)
        and (views.margin // 2) % first.stride[0] == 0 == views.margin % first.stride[0]
    )


def ten_view_logits(model: AlexNet, views: Views, images: np.ndarray) -> Tensor:
    """The logits, [10, N, classes], of the ten views of uint8 [N, S, S, 3], in the order of `Views.testing`.

    They are those of the views one by one to within the rounding of float32.
    """
    layers = list(model.children())
    top = next(place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    below = [through(layers[1:top], maps) for maps in ten_views_of_conv1(model, views, images)]
    return through(layers[top:], torch.cat(below)).view(10, len(images), -1)


def ten_views_of_conv1(model: AlexNet, views: Views, images: np.ndarray) -> Iterator[Tensor]:
    """conv1's maps, [N, kernels, H, W], of the ten views, likewise."""
    conv1 = next(model.children())
    assert isinstance(conv1, RoundedUpConv2d)
    stride, size, crop = conv1.stride[0], conv1.kernel_size[0], views.crop
    last = crop + conv1.overhang - size  # where a view's last windows begin
    positions = last // stride + 1
    batch = torch.from_numpy(images).to(views.device)
    picture = ((batch.float() - views.mean) / views.inputs_divided_by).permute(0, 3, 1, 2)
    pictures = (picture, picture.flip(3))
    wholes = [conv1(picture) for picture in pictures]
    for top, left, mirrored in views.places(10):
        more = views.patch(views.mean, top, left, mirrored) - views.mean_at(top, left, mirrored)
        added = _without_bias(conv1, (more / views.inputs_divided_by).permute(2, 0, 1)[None])
        x = views.margin - left if mirrored else left
        view = pictures[mirrored][:, :, top : top + crop, x : x + crop]
        maps = wholes[mirrored][:, :, top // stride :, x // stride :][:, :, :positions, :positions] + added
        maps[:, :, -1:] = conv1(view[:, :, last:]) + added[:, :, -1:]
        maps[:, :, :, -1:] = conv1(view[:, :, :, last:]) + added[:, :, :, -1:]
        yield maps


def _without_bias(conv1: RoundedUpConv2d, image: Tensor) -> Tensor:
    padded = F.pad(image, (0, conv1.overhang, 0, conv1.overhang))
    return F.conv2d(padded, conv1.weight, stride=conv1.stride, groups=conv1.groups)
