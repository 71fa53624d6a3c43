"""The ten test views of the large nets (Sec. 4.1), with their common computations done once.

The views' offsets are multiples of the first layers' strides, so a view's maps are crops of the maps of the whole image
or of its mirror image, except near the view's edges, where it sees zeros. The shared part is computed on these two
whole images, and near the edges again for each view.

How much is shared depends on the recipe. The authors' program subtracts the same crop of the mean image from every
view, wherever the view lies, so views and whole images differ from the input on. In conv1's maps that difference is
the same for all images and can be added; after the first nonlinearity nothing is common. By the text the mean is
subtracted from the whole image, and views share everything up to conv2 and its normalization; in later layers most of
a map is too close to an edge.

The fully-connected layers, whose speed is limited by reading their weights, are applied to all ten views at once. At
the paper's size in float32 all this saves an eighth of the time with the program's recipe and a fifth with the text's.
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
from repro.models.network import AlexNet, apply_layers, is_linear

POINTWISE = (nn.ReLU, nn.Tanh, LocalResponseNorm)  # a position of their output depends on that position alone


def shares_conv1(model: nn.Module, views: Views) -> TypeGuard[AlexNet]:
    """Return whether the views of `model` share conv1.

    It must be a net on one device, its first layer without padding but for the overhang, and its stride must divide
    the offsets of the views.
    """
    first = next(model.children(), None)
    return (
        isinstance(model, AlexNet)
        and isinstance(first, RoundedUpConv2d)
        and first.padding == (0, 0)
        and _divides_offsets(first.stride[0], views)
    )


@dataclass(frozen=True)
class SharedPrefix:
    """The first layers of a net whose maps the views share: those up to conv2, and its normalization.

    Attributes:
        to_conv2: the layers before conv2, conv1 to pool1.
        conv2: the second convolution.
        after: the pointwise layers after conv2.
        stride: pixels between neighbouring positions of pool1's maps.
        positions: side of a view's maps after pool1, and after conv2.
        pad: conv2's padding on each side.
    """

    to_conv2: nn.Sequential
    conv2: nn.Conv2d
    after: nn.Sequential
    stride: int
    positions: int
    pad: int

    def __len__(self) -> int:
        return len(self.to_conv2) + 1 + len(self.after)

    @property
    def last_window(self) -> int:
        """Offset in a view, in pixels, of pool1's last window, which depends on conv1's overhang."""
        return (self.positions - 1) * self.stride

    def from_conv2(self, padded: Tensor) -> Tensor:
        """Apply conv2 and the layers after it to maps that are padded already."""
        maps: Tensor = self.after(F.conv2d(padded, self.conv2.weight, self.conv2.bias, groups=self.conv2.groups))
        return maps

    def crop(self, maps: Tensor, top: int, left: int) -> Tensor:
        """Return the part of a whole image's `maps` that belongs to the view at `top`, `left`."""
        return _crop(maps, top // self.stride, left // self.stride, self.positions)


def shared_prefix(model: AlexNet, views: Views) -> SharedPrefix | None:
    """Return the layers up to conv2 that the views of a net share; None if they share conv1 alone.

    They share more if the mean is subtracted from the whole image, if pool1's stride divides the offsets of the views
    and no window of it reaches over an edge, and if conv2 keeps the size of the maps.
    """
    layers = list(model.children())
    (_, conv1), (index, conv2), *_ = ((i, layer) for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    pools = [layer for layer in layers[1:index] if not isinstance(layer, POINTWISE)]
    if not views.mean_of_patch or len(pools) != 1 or not isinstance(pools[0], nn.MaxPool2d):
        return None
    size, pool_stride, pad = pools[0].kernel_size, pools[0].stride, int(conv2.padding[0])
    assert isinstance(size, int)
    assert isinstance(pool_stride, int)
    stride = conv1.stride[0] * pool_stride
    windows, remainder = divmod(_conv1_positions(conv1, views) - size, pool_stride)
    keeps_size = conv2.stride == (1, 1) and conv2.kernel_size == (2 * pad + 1,) * 2
    if remainder or not _divides_offsets(stride, views) or not keeps_size:
        return None
    after = takewhile(lambda layer: isinstance(layer, POINTWISE), layers[index + 1 :])
    return SharedPrefix(nn.Sequential(*layers[:index]), conv2, nn.Sequential(*after), stride, windows + 1, pad)


def ten_view_logits(model: AlexNet, views: Views, images: np.ndarray | Tensor) -> Tensor:
    """Return the logits of the ten views of uint8 [N, S, S, 3] as [10, N, classes], in the order of `Views.test_views`.

    They equal those of the views computed one by one up to float32 rounding.
    """
    layers = list(model.children())
    top = next(index for index, layer in enumerate(layers) if is_linear(layer))
    conv1, prefix = layers[0], shared_prefix(model, views)
    assert isinstance(conv1, RoundedUpConv2d)
    maps = share_conv2(prefix, views, images) if prefix else share_conv1(conv1, views, images)
    below = [apply_layers(layers[len(prefix) if prefix else 1 : top], view) for view in maps]
    return apply_layers(layers[top:], torch.cat(below)).view(10, len(images), -1)


def share_conv1(conv1: RoundedUpConv2d, views: Views, images: np.ndarray | Tensor) -> Iterator[Tensor]:
    """Yield conv1's maps of the ten views of uint8 [N, S, S, 3], each [N, kernels, H, W]."""
    stride, positions = conv1.stride[0], _conv1_positions(conv1, views)
    last = (positions - 1) * stride  # offset in a view of the last windows, which reach over its edge
    wholes = _whole_images(views, images)
    whole_maps = [conv1(whole) for whole in wholes]
    for position, (mirrored, top, left) in zip(views.positions(10), _offsets(views), strict=True):
        difference = (views.patch(views.mean, *position) - views.mean_at(*position)) / views.inputs_divided_by
        added = _without_bias(conv1, difference.permute(2, 0, 1)[None])
        view = _crop(wholes[mirrored], top, left, views.crop)
        maps = _crop(whole_maps[mirrored], top // stride, left // stride, positions) + added
        maps[:, :, -1:] = conv1(view[:, :, last:]) + added[:, :, -1:]
        maps[:, :, :, -1:] = conv1(view[:, :, :, last:]) + added[:, :, :, -1:]
        yield maps


def share_conv2(prefix: SharedPrefix, views: Views, images: np.ndarray | Tensor) -> Iterator[Tensor]:
    """Yield the ten views' maps after the shared layers, each [N, kernels, H, W]; `images` is uint8 [N, S, S, 3]."""
    wholes = _whole_images(views, images)
    pooled = [prefix.to_conv2(whole) for whole in wholes]
    whole_maps = [prefix.from_conv2(F.pad(maps, (prefix.pad,) * 4)) for maps in pooled]
    for mirrored, top, left in _offsets(views):
        view = _crop(wholes[mirrored], top, left, views.crop)
        padded = _padded_pool1(prefix, view, prefix.crop(pooled[mirrored], top, left))
        maps = prefix.crop(whole_maps[mirrored], top, left).clone()
        _replace_edges(prefix, maps, padded)
        yield maps


def _padded_pool1(prefix: SharedPrefix, view: Tensor, cropped: Tensor) -> Tensor:
    """Return a view's padded maps after pool1, from the crop of the whole image's maps.

    The last row and column are computed again from the view, because conv1's overhang lies beyond the view's edge.
    """
    pad, last = prefix.pad, prefix.last_window
    padded = F.pad(cropped, (pad,) * 4)
    padded[:, :, -pad - 1 : -pad, pad:-pad] = prefix.to_conv2(view[:, :, last:])
    padded[:, :, pad:-pad, -pad - 1 : -pad] = prefix.to_conv2(view[:, :, :, last:])
    return padded


def _replace_edges(prefix: SharedPrefix, maps: Tensor, padded: Tensor) -> None:
    """Compute `maps` after conv2 again, in place, where its windows see `padded`'s padding or last row or column."""
    pad = prefix.pad
    first, final = 3 * pad, -3 * pad - 1  # rows of `padded` that the first `pad` and last `pad + 1` positions see
    maps[:, :, :pad] = prefix.from_conv2(padded[:, :, :first])
    maps[:, :, -pad - 1 :] = prefix.from_conv2(padded[:, :, final:])
    maps[:, :, :, :pad] = prefix.from_conv2(padded[:, :, :, :first])
    maps[:, :, :, -pad - 1 :] = prefix.from_conv2(padded[:, :, :, final:])


def _whole_images(views: Views, images: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Return uint8 [N, S, S, 3] as the net's input, whole and mirrored, [N, 3, S, S] each."""
    batch = torch.as_tensor(images).to(views.device)
    whole = ((batch.float() - views.mean) / views.inputs_divided_by).permute(0, 3, 1, 2)
    return whole, whole.flip(3)


def _offsets(views: Views) -> Iterator[tuple[bool, int, int]]:
    """Yield for each of the ten views whether it is mirrored, and its top and left offset in that whole image."""
    for top, left, mirrored in views.positions(10):
        yield mirrored, top, views.margin - left if mirrored else left


def _divides_offsets(stride: int, views: Views) -> bool:
    return bool((views.margin // 2) % stride == 0 == views.margin % stride)


def _conv1_positions(conv1: nn.Conv2d, views: Views) -> int:
    """Return the side of conv1's maps of a view."""
    assert isinstance(conv1, RoundedUpConv2d)
    return (views.crop + conv1.overhang - conv1.kernel_size[0]) // conv1.stride[0] + 1


def _crop(maps: Tensor, top: int, left: int, size: int) -> Tensor:
    return maps[:, :, top : top + size, left : left + size]


def _without_bias(conv1: RoundedUpConv2d, image: Tensor) -> Tensor:
    padded = F.pad(image, (0, conv1.overhang, 0, conv1.overhang))
    return F.conv2d(padded, conv1.weight, stride=conv1.stride, groups=conv1.groups)
