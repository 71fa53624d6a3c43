"""The two normalization layers and the update rule on a GPU, in kernels that Triton compiles.

Each kernel reads and writes a tensor once; what it reads again, the values of a neighbourhood, comes from the cache.
Arithmetic is in float32 for every dtype, and in a fixed order: results are the same bits every time. Triton comes with
torch's packages for Linux.

A neighbourhood is a box around a value: `across` values to each side within the maps of a tower, and `within` values to
each side within its map. LRN has across = n // 2 and within = 0, spatial normalization the reverse.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512  # values that an instance of a kernel computes: with more, the window of 5×5 needs too many registers


@triton.jit
def _sum_neighbours(
    values,
    i,
    squared: tl.constexpr,
    across: tl.constexpr,
    within: tl.constexpr,
    tower: tl.constexpr,
    maps: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
):
    """Sum the values, or their squares, around positions `i` of an image [height, width, maps], zero outside."""
    number, column, row = i % maps % tower, i // maps % width, i // maps // width
    total = tl.full(i.shape, 0.0, tl.float32)
    for dy in tl.static_range(-within, within + 1):
        for dx in tl.static_range(-within, within + 1):
            for d in tl.static_range(-across, across + 1):
                inside = (number + d >= 0) & (number + d < tower) & (column + dx >= 0) & (column + dx < width)
                inside = inside & (row + dy >= 0) & (row + dy < height)
                value = tl.load(values + i + (dy * width + dx) * maps + d, mask=inside, other=0.0).to(tl.float32)
                total += value * value if squared else value
    return total


@triton.jit
def _root(
    x,
    i,
    k,
    alpha,
    across: tl.constexpr,
    within: tl.constexpr,
    tower: tl.constexpr,
    maps: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
):
    """Return s^-1/2 at positions `i` of an image, with s = k + α Σ x²; s^-β is its power of 1.5."""
    return tl.rsqrt(k + alpha * _sum_neighbours(x, i, True, across, within, tower, maps, height, width))


@triton.jit
def _forward(
    x,
    out,
    k,
    alpha,
    across: tl.constexpr,
    within: tl.constexpr,
    tower: tl.constexpr,
    maps: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """b = x · s^-β with s = k + α Σ x²."""
    image = tl.program_id(1).to(tl.int64) * (maps * height * width)
    i = tl.program_id(0) * block + tl.arange(0, block)
    mask = i < maps * height * width
    root = _root(x + image, i, k, alpha, across, within, tower, maps, height, width)
    value = tl.load(x + image + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + image + i, value * root * tl.sqrt(root), mask=mask)


@triton.jit
def _weighted(
    x,
    grad,
    out,
    k,
    alpha,
    across: tl.constexpr,
    within: tl.constexpr,
    tower: tl.constexpr,
    maps: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Compute g x s^-(β+1), which the gradient sums over a neighbourhood."""
    image = tl.program_id(1).to(tl.int64) * (maps * height * width)
    i = tl.program_id(0) * block + tl.arange(0, block)
    mask = i < maps * height * width
    root = _root(x + image, i, k, alpha, across, within, tower, maps, height, width)
    value = tl.load(x + image + i, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(grad + image + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + image + i, gradient * value * root * tl.sqrt(root) * root * root, mask=mask)


@triton.jit
def _backward(
    x,
    grad,
    weighted,
    out,
    k,
    alpha,
    across: tl.constexpr,
    within: tl.constexpr,
    tower: tl.constexpr,
    maps: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Compute the gradient, g s^-β − 2αβ x Σ weighted."""
    image = tl.program_id(1).to(tl.int64) * (maps * height * width)
    i = tl.program_id(0) * block + tl.arange(0, block)
    mask = i < maps * height * width
    root = _root(x + image, i, k, alpha, across, within, tower, maps, height, width)
    total = _sum_neighbours(weighted + image, i, False, across, within, tower, maps, height, width)
    value = tl.load(x + image + i, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(grad + image + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + image + i, gradient * root * tl.sqrt(root) - 1.5 * alpha * value * total, mask=mask)


@triton.jit
def _update(weight, gradient, velocity, momentum, decay, lr, count, block: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = i < count
    w = tl.load(weight + i, mask=mask)
    v = momentum * tl.load(velocity + i, mask=mask) - decay * w - lr * tl.load(gradient + i, mask=mask)
    tl.store(velocity + i, v, mask=mask)
    tl.store(weight + i, w + v, mask=mask)


def across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """Return x · s^-0.75 with s = k + alpha · Σ x² over `n` adjacent maps of one tower.

    `x` is of any floating-point dtype, [N, C, H, W] in channels-last memory; so is the result.
    """
    return _normalized(x, n // 2, 0, towers, k, alpha)


def across_maps_backward(x: Tensor, grad: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """Return the gradient with respect to `x`, given `grad`, the gradient with respect to `across_maps(x, …)`."""
    return _gradient(x, grad, n // 2, 0, towers, k, alpha)


def within_maps(x: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """Return x · s^-0.75 with s = k + alpha · Σ x² over a `size`×`size` window of the same map.

    `x` is of any floating-point dtype, [N, C, H, W] in channels-last memory; so is the result.
    """
    return _normalized(x, 0, size // 2, 1, k, alpha)


def within_maps_backward(x: Tensor, grad: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """Return the gradient with respect to `x`, given `grad`, the gradient with respect to `within_maps(x, …)`."""
    return _gradient(x, grad, 0, size // 2, 1, k, alpha)


def _normalized(x: Tensor, across: int, within: int, towers: int, k: float, alpha: float) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.channels_last)
    _launch(_forward, (x, out), across, within, towers, k, alpha)
    return out


def _gradient(x: Tensor, grad: Tensor, across: int, within: int, towers: int, k: float, alpha: float) -> Tensor:
    weighted = torch.empty_like(x, dtype=torch.float32, memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    _launch(_weighted, (x, grad, weighted), across, within, towers, k, alpha)
    _launch(_backward, (x, grad, weighted, out), across, within, towers, k, alpha)
    return out


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], across: int, within: int, towers: int, k: float, alpha: float
) -> None:
    """Run a kernel of the normalizations on tensors [N, C, H, W] in channels-last memory."""
    images, maps, height, width = tensors[0].shape
    if not tensors[0].numel():
        return
    grid = (triton.cdiv(maps * height * width, BLOCK), images)
    with torch.cuda.device_of(tensors[0]):
        kernel[grid](*tensors, float(k), float(alpha), across, within, maps // towers, maps, height, width, BLOCK)


def update(weight: Tensor, gradient: Tensor, velocity: Tensor, momentum: float, decay: float, lr: float) -> None:
    """Compute v ← momentum·v − decay·w − lr·∂L/∂w and w ← w + v in place, for float32 tensors of any shape."""
    if gradient.stride() != weight.stride():
        gradient = torch.empty_like(weight).copy_(gradient)
    with torch.cuda.device_of(weight):
        grid = (triton.cdiv(weight.numel(), BLOCK),)
        _update[grid](weight, gradient, velocity, float(momentum), float(decay), float(lr), weight.numel(), BLOCK)
