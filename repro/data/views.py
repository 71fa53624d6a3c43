"""From stored bytes to what the net sees: training views (Sec. 4.1) and the ten test views, on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from repro.data import patches
from repro.data.sampling import Draws
from repro.paper.recipes import Augmentation, Colour


class Views:
    """Cuts `crop`×`crop` views out of stored images and subtracts the training set's mean.

    `mean` float32 [S, S, 3] and `covariance` float64 [3, 3] are the store's, of values 0–255. The mean is taken
    off before the patch is cut and mirrored (the text), or its centre patch is taken off last (the program), as
    `augmentation.mean_of_patch` says. All results are float32 [N, 3, crop, crop] on `device`, in channels-last
    memory, which the bytes already have.
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
        self.centre_mean = self.patch(self.mean, self.margin // 2, self.margin // 2)
        self.colour = augmentation.colour
        if self.colour:
            self.colour_basis = colour_basis(covariance, self.colour).numpy()

    def augment(self, images: np.ndarray, draws: Draws, colour: bool = True) -> Tensor:
        """One training view of each image, uint8 [N, S, S, 3], by its draws; `colour` False leaves out the noise."""
        shift, divide_by = np.zeros((len(draws), 3), np.float32), self.inputs_divided_by
        if self.colour and colour:
            shift, divide_by = draws.alpha @ self.colour_basis.T, divide_by * self.colour.divide_by
        cut = patches.cut if self.device.type == "cpu" else patches.cut_by_operators
        return cut(images, draws, self.crop, self.mean, self.mean_of_patch, shift, divide_by).permute(0, 3, 1, 2)

    def test_views(self, images: np.ndarray, views: int) -> Iterator[Tensor]:
        """The centre view, or with `views` 10 the corners and the centre and their mirror images, one by one."""
        batch = torch.from_numpy(images).to(self.device)
        for place in self.places(views):
            patch = self.patch(batch, *place).float() - self.mean_at(*place)
            yield (patch / self.inputs_divided_by).permute(0, 3, 1, 2)

    def places(self, views: int) -> list[tuple[int, int, bool]]:
        """The test views: top, left, and whether the patch there is mirrored."""
        middle, end = self.margin // 2, self.margin
        if views == 1:
            return [(middle, middle, False)]
        corners = [(0, 0), (0, end), (end, 0), (end, end)]
        return [(*corner, mirrored) for corner in ((middle, middle), *corners) for mirrored in (False, True)]

    def patch(self, image: Tensor, top: int, left: int, mirrored: bool = False) -> Tensor:
        """The patch of [..., S, S, 3] at a place, [..., crop, crop, 3]."""
        patch = image[..., top : top + self.crop, left : left + self.crop, :]
        return patch.flip(-2) if mirrored else patch

    def mean_at(self, top: int, left: int, mirrored: bool) -> Tensor:
        """What is taken off the patch at a place, [crop, crop, 3]."""
        return self.patch(self.mean, top, left, mirrored) if self.mean_of_patch else self.centre_mean


def colour_basis(covariance: np.ndarray, colour: Colour) -> Tensor:
    """The matrix B, float32 [3, 3], for which B·α with α ~ N(0, 1)³ is the noise on values 0–255 (Sec. 4.1)."""
    variances, directions = np.linalg.eigh(covariance)
    # "eigenvalue" takes the text at its word on values from 0 to 1: λ/255² there, and 255 times that here.
    spread = variances / 255 if colour.spread == "eigenvalue" else np.sqrt(np.maximum(variances, 0))
    return torch.from_numpy((directions * spread * colour.std).astype(np.float32))
