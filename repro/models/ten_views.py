"""The ten test views of the large nets (Sec. 4.1), with what they have in common computed once.

The views lie whole strides of the first layers apart, so their maps are parts of the maps of the whole image or of its
mirror image, except near a view's edges, beyond which it sees zeros. What is shared is computed for these two wholes,
and again near the edges.

How far that goes depends on the recipe. The program takes the same mean off every view, whatever part of the image it
is, so that views and wholes differ from the start. In conv1's maps that difference is the same for all images and can
be added; after the first nonlinearity nothing is common. By the text the mean is taken off the image, and views share
all that follows up to conv2 and its normalisation; beyond, most of a map is too near an edge.

The fully-connected layers, which are limited by reading their weights, see all ten views at once. At the paper's size
in float32 all this saves an eighth of the time by the program's recipe and a fifth by the text's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.data.views import Views
from repro.models.layers import LocalResponseNorm, RoundedUpConv2d
from repro.models.network import AlexNet, apply_layers

PLACE_BY_PLACE = (nn.ReLU, nn.Tanh, LocalResponseNorm)  # what they make of a place depends on nothing beside it


def shares_conv1(model: nn.Module, views: Views) -> TypeGuard[AlexNet]:
    """Is this a net on one device whose first layer has no padding but its overhang, and fits `views`' places?"""
    first = next(model.children(), None)
    return (
        isinstance(model, AlexNet)
        and isinstance(first, RoundedUpConv2d)
        and first.padding == (0, 0)
        and _fits(first.stride[0], views)
    )


@dataclass(frozen=True)
class SharedPrefix:
    """A net's layers up to conv2 and its normalisation, and what of them tells where things are in a view's maps."""

    to_conv2: nn.Sequential
    conv2: nn.Conv2d
    after: nn.Sequential
    stride: int  # from place to place in pool1's maps, in pixels
    positions: int  # pool1's output size for a view, and conv2's
    pad: int  # conv2's zeros on each side

    def __len__(self) -> int:
        return len(self.to_conv2) + 1 + len(self.after)

    def past_conv2(self, padded: Tensor) -> Tensor:
        """conv2 and what follows, on maps that bring their zeros along."""
        maps: Tensor = self.after(F.conv2d(padded, self.conv2.weight, self.conv2.bias, groups=self.conv2.groups))
        return maps


def beginning(model: AlexNet, views: Views) -> SharedPrefix | None:
    """What the views of a net that shares conv1 share up to conv2; None where they share conv1 alone.

    They share more if each has its own part of the mean taken off, if pool1 fits `views`' places and has no window
    over an edge, and if conv2's zeros keep the size of the maps.
    """
    layers = list(model.children())
    (_, conv1), (at, conv2), *_ = ((at, layer) for at, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    pools = [layer for layer in layers[1:at] if not isinstance(layer, PLACE_BY_PLACE)]
    if not views.mean_of_patch or len(pools) != 1 or not isinstance(pools[0], nn.MaxPool2d):
        return None
    size, every, pad = pools[0].kernel_size, pools[0].stride, int(conv2.padding[0])
    assert isinstance(size, int)
    assert isinstance(every, int)
    stride, ragged = conv1.stride[0] * every, (_positions(conv1, views) - size) % every
    if ragged or not _fits(stride, views) or conv2.stride != (1, 1) or conv2.kernel_size != (2 * pad + 1,) * 2:
        return None
    after = takewhile(lambda layer: isinstance(layer, PLACE_BY_PLACE), layers[at + 1 :])
    positions = (_positions(conv1, views) - size) // every + 1
    return SharedPrefix(nn.Sequential(*layers[:at]), conv2, nn.Sequential(*after), stride, positions, pad)


def ten_view_logits(model: AlexNet, views: Views, images: np.ndarray) -> Tensor:
    """The logits, [10, N, classes], of the ten views of uint8 [N, S, S, 3], in the order of `Views.testing`.

    They are those of the views one by one to within the rounding of float32.
    """
    layers = list(model.children())
    top = next(place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    first, shared = layers[0], beginning(model, views)
    assert isinstance(first, RoundedUpConv2d)
    maps = share_conv2(shared, views, images) if shared else share_conv1(first, views, images)
    below = [apply_layers(layers[len(shared) if shared else 1 : top], view) for view in maps]
    return apply_layers(layers[top:], torch.cat(below)).view(10, len(images), -1)


def share_conv1(conv1: RoundedUpConv2d, views: Views, images: np.ndarray) -> Iterator[Tensor]:
    """conv1's maps of the ten views, each [N, kernels, H, W]."""
    stride, positions = conv1.stride[0], _positions(conv1, views)
    last = (positions - 1) * stride  # where a view's last windows begin
    pictures = _pictures(views, images)
    wholes = [conv1(picture) for picture in pictures]
    for place, (mirrored, top, left) in zip(views.positions(10), _places(views), strict=True):
        more = views.patch(views.mean, *place) - views.mean_at(*place)
        added = _without_bias(conv1, (more / views.inputs_divided_by).permute(2, 0, 1)[None])
        view = _cut(pictures[mirrored], top, left, views.crop)
        maps = _cut(wholes[mirrored], top // stride, left // stride, positions) + added
        maps[:, :, -1:] = conv1(view[:, :, last:]) + added[:, :, -1:]
        maps[:, :, :, -1:] = conv1(view[:, :, :, last:]) + added[:, :, :, -1:]
        yield maps


def share_conv2(shared: SharedPrefix, views: Views, images: np.ndarray) -> Iterator[Tensor]:
    """The maps after the shared layers of the ten views, each [N, kernels, H, W]."""
    stride, positions, pad = shared.stride, shared.positions, shared.pad
    last = (positions - 1) * stride  # where in a view pool1's last windows begin, which see conv1's overhang
    pictures = _pictures(views, images)
    pooled = [shared.to_conv2(picture) for picture in pictures]
    wholes = [shared.past_conv2(F.pad(maps, (pad,) * 4)) for maps in pooled]
    # conv2's first `pad` places see zeros beyond the edge, the last ones such zeros or pool1's last place.
    first, final = 3 * pad, -3 * pad - 1
    for mirrored, top, left in _places(views):
        view = _cut(pictures[mirrored], top, left, views.crop)
        below = F.pad(_cut(pooled[mirrored], top // stride, left // stride, positions), (pad,) * 4)
        below[:, :, -pad - 1 : -pad, pad:-pad] = shared.to_conv2(view[:, :, last:])
        below[:, :, pad:-pad, -pad - 1 : -pad] = shared.to_conv2(view[:, :, :, last:])
        maps = _cut(wholes[mirrored], top // stride, left // stride, positions).clone()
        maps[:, :, :pad] = shared.past_conv2(below[:, :, :first])
        maps[:, :, -pad - 1 :] = shared.past_conv2(below[:, :, final:])
        maps[:, :, :, :pad] = shared.past_conv2(below[:, :, :, :first])
        maps[:, :, :, -pad - 1 :] = shared.past_conv2(below[:, :, :, final:])
        yield maps


def _pictures(views: Views, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """What the net sees of whole images and of their mirror images, [N, 3, S, S]."""
    batch = torch.from_numpy(images).to(views.device)
    pictures = ((batch.float() - views.mean) / views.inputs_divided_by).permute(0, 3, 1, 2)
    return pictures, pictures.flip(3)


def _places(views: Views) -> Iterator[tuple[bool, int, int]]:
    """Of each of the ten views whether it lies in the mirror image, and where there: top and left."""
    for top, left, mirrored in views.positions(10):
        yield mirrored, top, views.margin - left if mirrored else left


def _fits(stride: int, views: Views) -> bool:
    return bool((views.margin // 2) % stride == 0 == views.margin % stride)


def _positions(conv1: nn.Conv2d, views: Views) -> int:
    """conv1's output size for a view."""
    assert isinstance(conv1, RoundedUpConv2d)
    return (views.crop + conv1.overhang - conv1.kernel_size[0]) // conv1.stride[0] + 1


def _cut(maps: Tensor, top: int, left: int, size: int) -> Tensor:
    return maps[:, :, top : top + size, left : left + size]


def _without_bias(conv1: RoundedUpConv2d, image: Tensor) -> Tensor:
    padded = F.pad(image, (0, conv1.overhang, 0, conv1.overhang))
    return F.conv2d(padded, conv1.weight, stride=conv1.stride, groups=conv1.groups)
