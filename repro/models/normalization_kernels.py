"""Forward and backward loops of the two normalization layers on a CPU, compiled by Numba.

A loop reads each tensor once and writes it once; written as torch operators the same formulas pass over memory a dozen
times (benchmarks/README.md has the timings). Arithmetic is in float32 for both float32 and bfloat16 tensors; Numba has
no bfloat16, so such a tensor is passed as its bits, uint16. Results do not depend on the number of threads, because one
thread computes each output value from start to end.

Where compiled loops cannot run, every function raises `LoopsUnavailable` (see `repro.compiled_loops`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from repro.compiled_loops import CompiledLoop, compiled_loop, prange

CHUNKS = 64  # of an LRN's rows; the threads share them, and each chunk has its own scratch arrays

Array: TypeAlias = NDArray[Any]


def inlined(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile `loop` as part of the loops that call it."""
    fast: Callable[..., None] = numba.njit(inline="always", fastmath=True)(loop)
    return fast


def across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """Return x · s^-0.75 with s = k + alpha · Σ x² over `n` adjacent maps of one tower.

    `x` is float32 or bfloat16 [N, C, H, W] in channels-last memory; so is the result.
    """
    out = _like(x)
    _across_maps(n)[0](_rows(x), _rows(out), towers, np.float32(k), np.float32(alpha))
    return out


def across_maps_backward(x: Tensor, grad: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """Return the gradient with respect to `x`, given `grad`, the gradient with respect to `across_maps(x, …)`."""
    out = _like(x)
    _across_maps(n)[1](_rows(x), _rows(grad), _rows(out), towers, np.float32(k), np.float32(alpha))
    return out


def within_maps(x: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """Return x · s^-0.75 with s = k + alpha · Σ x² over a `size`×`size` window of the same map.

    `x` is float32 or bfloat16 [N, C, H, W] in channels-last memory; so is the result.
    """
    out = _like(x)
    _within_maps(_rows(x), _rows(out), *x.shape[2:], size, np.float32(k), np.float32(alpha))
    return out


def within_maps_backward(x: Tensor, grad: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """Return the gradient with respect to `x`, given `grad`, the gradient with respect to `within_maps(x, …)`."""
    out = _like(x)
    _within_maps_backward(_rows(x), _rows(grad), _rows(out), *x.shape[2:], size, np.float32(k), np.float32(alpha))
    return out


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _rows(x: Tensor) -> Array:
    """View channels-last [N, C, H, W] as an array [N·H·W, C], one row per position; bfloat16 as its bits."""
    rows = x.detach().permute(0, 2, 3, 1).view(-1, x.shape[1])
    return (rows.view(torch.uint16) if x.dtype == torch.bfloat16 else rows).numpy()


def _read(stored: Array, row: int, values: Array) -> None:
    """Copy row `row` of `stored`, float32 or the bits of bfloat16, into `values`, float32 [C]."""


@overload(_read, inline="always")  # type: ignore[untyped-decorator]
def _read_by_type(stored: Array, row: int, values: Array) -> Callable[[Array, int, Array], None]:
    def read(stored: Array, row: int, values: Array) -> None:
        for i in range(len(values)):
            values[i] = stored[row, i]

    def read_bfloat16(stored: Array, row: int, values: Array) -> None:
        for i in range(len(values)):
            values[i] = np.uint32(np.uint32(stored[row, i]) << np.uint32(16)).view(np.float32)

    return read_bfloat16 if stored.dtype == types.uint16 else read


def _write(values: Array, stored: Array, row: int) -> None:
    """Copy `values`, float32 [C], into row `row` of `stored`; to bfloat16 they are rounded, ties to even."""


@overload(_write, inline="always")  # type: ignore[untyped-decorator]
def _write_by_type(values: Array, stored: Array, row: int) -> Callable[[Array, Array, int], None]:
    def write(values: Array, stored: Array, row: int) -> None:
        for i in range(len(values)):
            stored[row, i] = values[i]

    def write_bfloat16(values: Array, stored: Array, row: int) -> None:
        for i in range(len(values)):
            bits = np.float32(values[i]).view(np.uint32)
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            stored[row, i] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return write_bfloat16 if stored.dtype == types.uint16 else write


@inlined
def _add_neighbours(padded: Array, sums: Array, towers: int, n: int) -> None:
    """Set sums[i] to the sum of the n values around padded[half + i] that belong to the same tower.

    `sums` is [C]; `padded` is [C + 2 · half] with `half` zeros at each end.
    """
    maps, tower, half = len(sums), len(sums) // towers, n // 2
    for i in range(maps):
        total = padded[i]
        for j in range(1, n):
            total += padded[i + j]
        sums[i] = total
    for edge in range(tower, maps, tower):  # recompute the few sums that reached into the other tower
        for i in range(max(edge - half, edge - tower), edge):
            sums[i] = 0
            for j in range(max(i - half, edge - tower), edge):
                sums[i] += padded[j + half]
        for i in range(edge, min(edge + half, edge + tower)):
            sums[i] = 0
            for j in range(edge, min(i + half + 1, edge + tower)):
                sums[i] += padded[j + half]


@cache
def _across_maps(n: int) -> tuple[CompiledLoop, CompiledLoop]:
    """Return the loops of `across_maps` and `across_maps_backward` for a constant `n`, so that sums are unrolled."""
    half = n // 2

    @compiled_loop(parallel=True, fastmath=True)
    def forward(x: Array, out: Array, towers: int, k: float, alpha: float) -> None:
        rows, maps = x.shape
        for chunk in prange(CHUNKS):
            values, sums = np.empty(maps, np.float32), np.empty(maps, np.float32)
            padded = np.zeros(maps + 2 * half, np.float32)
            for row in range(chunk * rows // CHUNKS, (chunk + 1) * rows // CHUNKS):
                _read(x, row, values)
                for i in range(maps):
                    padded[half + i] = values[i] * values[i]
                _add_neighbours(padded, sums, towers, n)
                for i in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[i])
                    values[i] *= root * math.sqrt(root)
                _write(values, out, row)

    @compiled_loop(parallel=True, fastmath=True)
    def backward(x: Array, grad: Array, out: Array, towers: int, k: float, alpha: float) -> None:
        # ∂L/∂x_i = g_i s_i^-β − 2αβ x_i Σ_j g_j x_j s_j^-(β+1), the sum over the maps j whose s_j contains x_i.
        rows, maps = x.shape
        factor = np.float32(1.5) * alpha  # 2αβ
        for chunk in prange(CHUNKS):
            values, direct, sums = np.empty(maps, np.float32), np.empty(maps, np.float32), np.empty(maps, np.float32)
            padded = np.zeros(maps + 2 * half, np.float32)
            for row in range(chunk * rows // CHUNKS, (chunk + 1) * rows // CHUNKS):
                _read(x, row, values)
                _read(grad, row, direct)
                for i in range(maps):
                    padded[half + i] = values[i] * values[i]
                _add_neighbours(padded, sums, towers, n)
                for i in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[i])
                    direct[i] *= root * math.sqrt(root)
                    padded[half + i] = direct[i] * values[i] * root * root
                _add_neighbours(padded, sums, towers, n)
                for i in range(maps):
                    direct[i] -= factor * values[i] * sums[i]
                _write(direct, out, row)

    return forward, backward


@inlined
def _add_window(image: Array, sums: Array, line: Array, row: int, size: int) -> None:
    """Set sums[w, c] to the sum over the `size`×`size` window of map c around (row, w), zero outside the map.

    `image` is [H·W, C], `sums` and the scratch array `line` are [W, C].
    """
    width, maps = sums.shape
    height, half = len(image) // width, size // 2
    line[:] = 0
    for h in range(max(row - half, 0), min(row + half + 1, height)):
        for w in range(width):
            for c in range(maps):
                line[w, c] += image[h * width + w, c]
    sums[:] = 0
    for w in range(width):
        for neighbour in range(max(w - half, 0), min(w + half + 1, width)):
            for c in range(maps):
                sums[w, c] += line[neighbour, c]


@compiled_loop(parallel=True, fastmath=True)
def _within_maps(x: Array, out: Array, height: int, width: int, size: int, k: float, alpha: float) -> None:
    rows, maps = x.shape
    for image in prange(rows // (height * width)):
        values, squares = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        sums, line = np.empty((width, maps), np.float32), np.empty((width, maps), np.float32)
        first = image * height * width
        for position in range(height * width):
            _read(x, first + position, values[position])
            for c in range(maps):
                squares[position, c] = values[position, c] * values[position, c]
        for h in range(height):
            _add_window(squares, sums, line, h, size)
            for w in range(width):
                for c in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[w, c])
                    values[h * width + w, c] *= root * math.sqrt(root)
        for position in range(height * width):
            _write(values[position], out, first + position)


@compiled_loop(parallel=True, fastmath=True)
def _within_maps_backward(
    x: Array, grad: Array, out: Array, height: int, width: int, size: int, k: float, alpha: float
) -> None:
    rows, maps = x.shape
    factor = np.float32(1.5) * alpha  # 2αβ
    for image in prange(rows // (height * width)):
        values, direct = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        squares, weighted = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        sums, line = np.empty((width, maps), np.float32), np.empty((width, maps), np.float32)
        first = image * height * width
        for position in range(height * width):
            _read(x, first + position, values[position])
            _read(grad, first + position, direct[position])
            for c in range(maps):
                squares[position, c] = values[position, c] * values[position, c]
        for h in range(height):
            _add_window(squares, sums, line, h, size)
            for w in range(width):
                position = h * width + w
                for c in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[w, c])
                    direct[position, c] *= root * math.sqrt(root)
                    weighted[position, c] = direct[position, c] * values[position, c] * root * root
        for h in range(height):
            _add_window(weighted, sums, line, h, size)
            for w in range(width):
                position = h * width + w
                for c in range(maps):
                    direct[position, c] -= factor * values[position, c] * sums[w, c]
        for position in range(height * width):
            _write(direct[position], out, first + position)
