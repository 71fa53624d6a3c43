"""The normalisations' loops on a processor, compiled by Numba: each tensor is read once and written once.

As torch operators the same formulas go over memory a dozen times. What that gains is in benchmarks/README.md. Values
are added and multiplied in float32, whether they are kept as float32 or as bfloat16 (here: its bits, as uint16). A
result does not depend on the number of threads, because each of its places is computed whole by one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import prange, types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

PARTS = 64  # of the work, handed out to the threads: each has scratch space of its own

Array = NDArray[Any]
Loop = TypeVar("Loop", bound=Callable[..., None])


def compiled(loop: Loop) -> Loop:
    """`loop` compiled at its first call, and kept on disk for the next process."""
    fast: Loop = numba.njit(parallel=True, fastmath=True, error_model="numpy", cache=True)(loop)
    return fast


def inlined(loop: Loop) -> Loop:
    """`loop` as a part of the compiled loops that call it."""
    fast: Loop = numba.njit(inline="always", fastmath=True)(loop)
    return fast


def across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """x · s^-0.75 with s = k + alpha · Σ x² over `n` adjacent maps of a tower; [N, C, H, W], channels last."""
    out = torch.empty_like(x)
    _run(_across_maps(n)[0], _rows(x), _rows(out), towers, np.float32(k), np.float32(alpha))
    return out


def across_maps_backward(x: Tensor, grad: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
    """The gradient with respect to `x`, from that with respect to the result."""
    out = torch.empty_like(x)
    _run(_across_maps(n)[1], _rows(x), _rows(grad), _rows(out), towers, np.float32(k), np.float32(alpha))
    return out


def within_maps(x: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """x · s^-0.75 with s = k + alpha · Σ x² over a `size`×`size` window of a map; [N, C, H, W], channels last."""
    out = torch.empty_like(x)
    _run(_within_maps, _rows(x), _rows(out), *x.shape[2:], size, np.float32(k), np.float32(alpha))
    return out


def within_maps_backward(x: Tensor, grad: Tensor, size: int, k: float, alpha: float) -> Tensor:
    """The gradient with respect to `x`, from that with respect to the result."""
    out = torch.empty_like(x)
    _run(_within_maps_backward, _rows(x), _rows(grad), _rows(out), *x.shape[2:], size, np.float32(k), np.float32(alpha))
    return out


def _run(loop: Callable[..., None], *arguments: Any) -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    loop(*arguments)


def _rows(x: Tensor) -> Array:
    """[N, C, H, W] as it lies in memory: [N·H·W, C], the maps at each place, bfloat16 as its bits."""
    rows = x.detach().permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return (rows.view(torch.uint16) if x.dtype == torch.bfloat16 else rows).numpy()


def _read(kept: Array, row: int, values: Array) -> None:
    """Copy row `row` of `kept`, float32 or bfloat16's bits, to the float32 `values`."""


@overload(_read, inline="always")  # type: ignore[untyped-decorator]
def _read_by_type(kept: Array, row: int, values: Array) -> Callable[[Array, int, Array], None]:
    def read(kept: Array, row: int, values: Array) -> None:
        for i in range(len(values)):
            values[i] = kept[row, i]

    def read_bfloat16(kept: Array, row: int, values: Array) -> None:
        for i in range(len(values)):
            values[i] = np.uint32(np.uint32(kept[row, i]) << np.uint32(16)).view(np.float32)

    return read_bfloat16 if kept.dtype == types.uint16 else read


def _write(values: Array, kept: Array, row: int) -> None:
    """Copy the float32 `values` to row `row` of `kept`; to bfloat16's bits the nearest, of two the even one."""


@overload(_write, inline="always")  # type: ignore[untyped-decorator]
def _write_by_type(values: Array, kept: Array, row: int) -> Callable[[Array, Array, int], None]:
    def write(values: Array, kept: Array, row: int) -> None:
        for i in range(len(values)):
            kept[row, i] = values[i]

    def write_bfloat16(values: Array, kept: Array, row: int) -> None:
        for i in range(len(values)):
            bits = np.float32(values[i]).view(np.uint32)
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            kept[row, i] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return write_bfloat16 if kept.dtype == types.uint16 else write


@inlined
def _add_neighbours(padded: Array, sums: Array, towers: int, n: int) -> None:
    """sums[i] = Σ of the n values around padded[half + i] in the same tower; `padded` has zeros at both ends."""
    maps, tower, half = len(sums), len(sums) // towers, n // 2
    for i in range(maps):
        total = padded[i]
        for j in range(1, n):
            total += padded[i + j]
        sums[i] = total
    for edge in range(tower, maps, tower):  # the few sums that reached into the other tower, once more
        for i in range(max(edge - half, edge - tower), edge):
            sums[i] = 0
            for j in range(max(i - half, edge - tower), edge):
                sums[i] += padded[j + half]
        for i in range(edge, min(edge + half, edge + tower)):
            sums[i] = 0
            for j in range(edge, min(i + half + 1, edge + tower)):
                sums[i] += padded[j + half]


@cache
def _across_maps(n: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """The loops of `across_maps` and `across_maps_backward`, in which `n` is a constant: the sums are unrolled."""
    half = n // 2

    @compiled
    def forward(x: Array, out: Array, towers: int, k: float, alpha: float) -> None:
        rows, maps = x.shape
        for part in prange(PARTS):
            values, sums = np.empty(maps, np.float32), np.empty(maps, np.float32)
            padded = np.zeros(maps + 2 * half, np.float32)
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                _read(x, row, values)
                for i in range(maps):
                    padded[half + i] = values[i] * values[i]
                _add_neighbours(padded, sums, towers, n)
                for i in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[i])
                    values[i] *= root * math.sqrt(root)
                _write(values, out, row)

    @compiled
    def backward(x: Array, grad: Array, out: Array, towers: int, k: float, alpha: float) -> None:
        # With s as above: ∂L/∂x_i = g_i s_i^-β − 2αβ x_i Σ_j g_j x_j s_j^-(β+1), j over the maps whose s has x_i in it.
        rows, maps = x.shape
        factor = np.float32(1.5) * alpha
        for part in prange(PARTS):
            values, direct, sums = np.empty(maps, np.float32), np.empty(maps, np.float32), np.empty(maps, np.float32)
            padded = np.zeros(maps + 2 * half, np.float32)
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
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
    """sums[w, c] = Σ of image[h·width + w', c] over the window of `size`×`size` around (row, w), zero outside."""
    width, maps = sums.shape
    height, half = len(image) // width, size // 2
    line[:] = 0
    for h in range(max(row - half, 0), min(row + half + 1, height)):
        for w in range(width):
            for c in range(maps):
                line[w, c] += image[h * width + w, c]
    sums[:] = 0
    for w in range(width):
        for near in range(max(w - half, 0), min(w + half + 1, width)):
            for c in range(maps):
                sums[w, c] += line[near, c]


@compiled
def _within_maps(x: Array, out: Array, height: int, width: int, size: int, k: float, alpha: float) -> None:
    rows, maps = x.shape
    for image in prange(rows // (height * width)):
        values, squares = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        sums, line = np.empty((width, maps), np.float32), np.empty((width, maps), np.float32)
        first = image * height * width
        for place in range(height * width):
            _read(x, first + place, values[place])
            for c in range(maps):
                squares[place, c] = values[place, c] * values[place, c]
        for h in range(height):
            _add_window(squares, sums, line, h, size)
            for w in range(width):
                for c in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[w, c])
                    values[h * width + w, c] *= root * math.sqrt(root)
        for place in range(height * width):
            _write(values[place], out, first + place)


@compiled
def _within_maps_backward(
    x: Array, grad: Array, out: Array, height: int, width: int, size: int, k: float, alpha: float
) -> None:
    rows, maps = x.shape
    factor = np.float32(1.5) * alpha
    for image in prange(rows // (height * width)):
        values, direct = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        squares, through = np.empty((height * width, maps), np.float32), np.empty((height * width, maps), np.float32)
        sums, line = np.empty((width, maps), np.float32), np.empty((width, maps), np.float32)
        first = image * height * width
        for place in range(height * width):
            _read(x, first + place, values[place])
            _read(grad, first + place, direct[place])
            for c in range(maps):
                squares[place, c] = values[place, c] * values[place, c]
        for h in range(height):
            _add_window(squares, sums, line, h, size)
            for w in range(width):
                place = h * width + w
                for c in range(maps):
                    root = np.float32(1) / math.sqrt(k + alpha * sums[w, c])
                    direct[place, c] *= root * math.sqrt(root)
                    through[place, c] = direct[place, c] * values[place, c] * root * root
        for h in range(height):
            _add_window(through, sums, line, h, size)
            for w in range(width):
                place = h * width + w
                for c in range(maps):
                    direct[place, c] -= factor * values[place, c] * sums[w, c]
        for place in range(height * width):
            _write(direct[place], out, first + place)
