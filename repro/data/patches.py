"""Cut the patches of training views (Sec. 4.1): on a CPU in one pass over the bytes, compiled by Numba."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.compiled_loops import LoopsUnavailable, compiled_loop, prange

CROP_COLUMNS = ("top", "left", "mirror", "shift")
Crops = Mapping[str, Tensor]  # top, left and mirror [N], and shift [N, 3]: a colour shift per image


def cut(images: Tensor, crops: Crops, crop: int, mean: Tensor, mean_of_patch: bool, divide_by: float) -> Tensor:
    """Return (patch − mean + shift) / divide_by for each image, float32 [N, crop, crop, 3], on the CPU.

    `images` is uint8 [N, S, S, 3] and `mean` float32 [S, S, 3], both on the CPU. With `mean_of_patch` the mean is
    cropped at the position of the patch, otherwise at the centre. Where compiled loops cannot run, `cut_by_operators`
    takes its place.
    """
    out = torch.empty(len(images), crop, crop, 3)
    top, left, mirror, shift = (crops[name].numpy() for name in CROP_COLUMNS)
    # Flattened to [N, S, 3·S], the innermost loop runs over consecutive values and can be vectorised.
    size = len(mean)
    rows, means = images.numpy().reshape(len(images), size, 3 * size), mean.numpy().reshape(size, 3 * size)
    out_rows = out.numpy().reshape(len(images), crop, 3 * crop)
    try:
        _cut(rows, top, left, mirror, means, mean_of_patch, shift, np.float32(divide_by), out_rows)
    except LoopsUnavailable:
        return cut_by_operators(images, crops, crop, mean, mean_of_patch, divide_by)
    return out


def cut_by_operators(
    images: Tensor, crops: Crops, crop: int, mean: Tensor, mean_of_patch: bool, divide_by: float
) -> Tensor:
    """Return what `cut` returns, bit for bit, computed with torch operators on the device of all its arguments.

    On a CPU this takes many times as long as `cut`.
    """
    middle = (len(mean) - crop) // 2
    top, left, mirror, shift = (crops[name] for name in CROP_COLUMNS)
    steps = torch.arange(crop, device=mean.device)
    rows = (top[:, None] + steps)[:, :, None]
    columns = (left[:, None] + torch.where(mirror[:, None], crop - 1 - steps, steps))[:, None, :]
    image = torch.arange(len(images), device=mean.device)[:, None, None]
    patches = images[image, rows, columns].float()
    patches -= mean[rows, columns] if mean_of_patch else mean[middle : middle + crop, middle : middle + crop]
    return (patches + shift[:, None, None]) / divide_by


@compiled_loop(parallel=True)
def _cut(
    rows: Any, top: Any, left: Any, mirror: Any, mean: Any, mean_of_patch: Any, shift: Any, divide_by: Any, out: Any
) -> None:
    images, crop, width = out.shape
    middle = (mean.shape[0] - crop) // 2
    for i in prange(images):
        shifts = np.empty(width, np.float32)
        mirrored, mirrored_mean = np.empty(width, np.uint8), np.empty(width, np.float32)
        for j in range(width):
            shifts[j] = shift[i, j % 3]
        for y in range(crop):
            pixels = rows[i, top[i] + y, 3 * left[i] : 3 * left[i] + width]
            means = mean[middle + y, 3 * middle : 3 * middle + width]
            if mean_of_patch:
                means = mean[top[i] + y, 3 * left[i] : 3 * left[i] + width]
            if mirror[i]:
                for x in range(crop):
                    for c in range(3):
                        mirrored[3 * x + c] = pixels[3 * (crop - 1 - x) + c]
                pixels = mirrored
                if mean_of_patch:
                    for x in range(crop):
                        for c in range(3):
                            mirrored_mean[3 * x + c] = means[3 * (crop - 1 - x) + c]
                    means = mirrored_mean
            for j in range(width):
                out[i, y, j] = (pixels[j] - means[j] + shifts[j]) / divide_by
