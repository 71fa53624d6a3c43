"""Network inputs from stored images: random training views and the ten test views (Sec. 4.1), on the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from repro.data import patches
from repro.data.patches import Crops
from repro.data.sampling import Draws
from repro.paper.recipes import Augmentation, Colour


class Views:
    """Cut `crop`×`crop` views out of stored images and subtract the mean of the training set.

    All views are float32 [N, 3, crop, crop] on `device`, in channels-last memory format, which the stored bytes
    already have.

    Args:
        mean: mean image of the store, float32 [S, S, 3], 0–255.
        covariance: RGB covariance of the store, float64 [3, 3], of values 0–255.
        crop: side of the views in pixels.
        augmentation: with `mean_of_patch` the mean is subtracted before cropping and flipping (the text), otherwise
            its centre crop is subtracted last (the released program).
        device: where the views are computed.
    """

    def __init__(
        self,
        mean: np.ndarray,
        covariance: np.ndarray,
        crop: int,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        self.crop, self.device = crop, device
        self.margin = mean.shape[0] - crop
        self.mean_of_patch = augmentation.mean_of_patch
        self.inputs_divided_by = augmentation.inputs_divided_by
        self.mean = torch.from_numpy(mean).to(device)
        self.centre_mean = self.centre(self.mean)
        self.colour = augmentation.colour
        if self.colour:
            self.colour_basis = colour_basis(covariance, self.colour).numpy()

    def to(self, device: torch.device) -> Views:
        """Return the same views, made on another device."""
        moved = copy.copy(self)
        moved.device, moved.mean, moved.centre_mean = device, self.mean.to(device), self.centre_mean.to(device)
        return moved

    def augment(self, images: np.ndarray, draws: Draws, colour: bool = True) -> Tensor:
        """Return one random view of each image, float32 [N, 3, crop, crop].

        `images` is uint8 [N, S, S, 3], and row i of `draws` belongs to image i. Without `colour` the colour noise is
        left out.
        """
        device = self.mean.device
        crops = {name: torch.from_numpy(column).to(device) for name, column in self.crops(draws).items()}
        return self.cut(torch.from_numpy(images).to(device), crops, colour)

    def crops(self, draws: Draws) -> dict[str, np.ndarray]:
        """Return the random part of the views of `draws`, [N] each, and [N, 3] for the colour shift: see `cut`."""
        shift = draws.alpha @ self.colour_basis.T if self.colour else np.zeros((len(draws), 3), np.float32)
        return {"top": draws.top, "left": draws.left, "mirror": draws.mirror, "shift": shift}

    def cut(self, images: Tensor, crops: Crops, colour: bool = True) -> Tensor:
        """Return the view of each image that `crops` describes, as `augment` does; all on the device."""
        divide_by = self.inputs_divided_by
        if self.colour and colour:
            divide_by *= self.colour.divide_by
        else:
            crops = {**crops, "shift": torch.zeros_like(crops["shift"])}
        cut = patches.cut if self.device.type == "cpu" else patches.cut_by_operators
        return cut(images, crops, self.crop, self.mean, self.mean_of_patch, divide_by).permute(0, 3, 1, 2)

    def test_views(self, images: np.ndarray | Tensor, views: int) -> Iterator[Tensor]:
        """Yield each test view of `images`, uint8 [N, S, S, 3], as float32 [N, 3, crop, crop].

        With `views` 1 that is the centre crop; with 10 the centre, the four corners and their horizontal flips.
        """
        batch = torch.as_tensor(images).to(self.device)
        for position in self.positions(views):
            patch = self.patch(batch, *position).float() - self.mean_at(*position)
            yield (patch / self.inputs_divided_by).permute(0, 3, 1, 2)

    def positions(self, views: int) -> list[tuple[int, int, bool]]:
        """Return top, left and whether the crop is flipped, for each of the 1 or 10 test views."""
        middle, end = self.margin // 2, self.margin
        if views == 1:
            return [(middle, middle, False)]
        corners = [(0, 0), (0, end), (end, 0), (end, end)]
        return [(*corner, mirrored) for corner in ((middle, middle), *corners) for mirrored in (False, True)]

    def patch(self, image: Tensor, top: int, left: int, mirrored: bool = False) -> Tensor:
        """Return the crop of [..., S, S, 3] at a position, [..., crop, crop, 3]."""
        patch = image[..., top : top + self.crop, left : left + self.crop, :]
        return patch.flip(-2) if mirrored else patch

    def centre(self, images: Tensor) -> Tensor:
        """Return the centre crop of [..., S, S, 3], [..., crop, crop, 3]."""
        return self.patch(images, self.margin // 2, self.margin // 2)

    def mean_at(self, top: int, left: int, mirrored: bool) -> Tensor:
        """Return what is subtracted from the crop at a position, float32 [crop, crop, 3]."""
        return self.patch(self.mean, top, left, mirrored) if self.mean_of_patch else self.centre_mean


def colour_basis(covariance: np.ndarray, colour: Colour) -> Tensor:
    """Return B, float32 [3, 3], such that B·α with α ~ N(0, 1)³ is the colour noise on values 0–255 (Sec. 4.1)."""
    variances, directions = np.linalg.eigh(covariance)
    # "eigenvalue" is the text taken literally, on values from 0 to 1: λ/255² there, 255 times that on 0–255.
    spread = variances / 255 if colour.spread == "eigenvalue" else np.sqrt(np.maximum(variances, 0))
    return torch.from_numpy((directions * spread * colour.std).astype(np.float32))
