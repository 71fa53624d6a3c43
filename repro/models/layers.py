"""The paper's layers that torch lacks or has too slow: LRN, spatial normalisation, its dropout, rounded-up conv."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoundedUpConv2d(nn.Conv2d):
    """A convolution whose last window runs `overhang` pixels over the right and bottom edge, into zeros."""

    def __init__(self, *args: Any, overhang: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overhang = overhang

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, kernels, H', W']."""
        return super().forward(F.pad(input, (0, self.overhang, 0, self.overhang)))


class LocallyConnected2d(nn.Module):
    """Like a convolution of stride 1, but each of the `positions`² places has kernels and biases of its own.

    `weight` is [positions², kernels, maps·size²], `bias` [kernels, positions²].
    """

    def __init__(self, maps: int, kernels: int, size: int, padding: int, positions: int) -> None:
        super().__init__()
        self.kernels, self.size, self.padding, self.positions = kernels, size, padding, positions
        self.weight = nn.Parameter(torch.empty(positions**2, kernels, maps * size**2))
        self.bias = nn.Parameter(torch.empty(kernels, positions**2))

    def forward(self, input: Tensor) -> Tensor:
        """[N, maps, H, H] to [N, kernels, positions, positions]."""
        windows = F.unfold(input, self.size, padding=self.padding).permute(2, 1, 0)  # [places, maps·size², N]
        out = torch.bmm(self.weight, windows).permute(2, 1, 0) + self.bias
        return out.reshape(*out.shape[:2], self.positions, self.positions)


class _NormaliseAcrossMaps(torch.autograd.Function):
    """x · s^-beta with s = k + Σ_j band_ij x_j², and its derivative by hand.

    The sum over neighbouring maps is a 1×1 convolution with a banded matrix, which runs as a matrix product in
    channels-last memory. Autograd would keep every intermediate; the formula needs x, s and s^-beta.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, k: float, beta: float, towers: int) -> Tensor:
        band = band.to(x.dtype)
        s = F.conv2d(x * x, band, bias=band.new_full((x.shape[1],), k), groups=towers)
        if beta == 0.75:  # two roots are several times as fast as a power
            root = s.rsqrt()
            scale = root * root.sqrt()
        else:
            scale = s.pow(-beta)
        ctx.save_for_backward(x, s, scale, band)
        ctx.beta, ctx.towers = beta, towers
        return x * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grads
        x, s, scale, band = ctx.saved_tensors
        # The band is symmetric, so it is its own transpose.
        through_sum = F.conv2d(grad * x * scale / s, band, groups=ctx.towers)
        return grad * scale - 2 * ctx.beta * x * through_sum, None, None, None, None


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha · Σ_j a_j²)^beta over `n` adjacent maps (Sec. 3.3); n is odd.

    `alpha` multiplies the plain sum: `torch.nn.LocalResponseNorm` divides its own by n. With `towers=2` the
    neighbourhood stays within each half of the maps.
    """

    band: Tensor

    def __init__(self, maps: int, n: int, k: float, alpha: float, beta: float, towers: int = 1) -> None:
        super().__init__()
        self.k, self.beta, self.towers = k, beta, towers
        index = torch.arange(maps // towers)
        near = (index[:, None] - index[None, :]).abs() <= n // 2
        band = (alpha * near.to(torch.get_default_dtype()))[:, :, None, None].repeat(towers, 1, 1, 1)
        self.register_buffer("band", band, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, maps, H, W] to the same shape and dtype; float32, bfloat16 or float64."""
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = _NormaliseAcrossMaps.apply(x, self.band, self.k, self.beta, self.towers)
        return out


class SpatialNorm(nn.Module):
    """b = a / (k + alpha · Σ a²)^beta over a `size`×`size` window of each map; the authors' program, conv2."""

    def __init__(self, size: int, k: float, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape and dtype."""
        window_sum = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2, divisor_override=1)
        return x * (self.k + self.alpha * window_sum).pow(-self.beta)


class DropoutMasks:
    """Draws the masks of an update for its whole batch, so that neither ranks nor towers change them."""

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self.images, self.rows = 0, slice(0)

    def begin(self, seed: int, images: int, rows: slice) -> None:
        """An update by `images`, of which `rows` are at hand; its masks depend on `seed` alone."""
        self.generator.manual_seed(seed)
        self.images, self.rows = images, rows

    def draw(self, neurons: int, rate: float) -> Tensor:
        """The next mask, bool [rows, neurons]: False with probability `rate`."""
        chances = torch.rand(self.images, neurons, device=self.generator.device, generator=self.generator)
        return chances[self.rows] >= rate


class PaperDropout(nn.Module):
    """Zeroes with probability `rate` in training, multiplies by 1 − rate in testing (Sec. 4.2).

    `torch.nn.Dropout` rescales in training instead. The trainer draws its masks from `masks`; None means
    torch's global generator.
    """

    masks: DropoutMasks | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, images: int, neurons: int, device: torch.device) -> Tensor:
        """What a training step keeps, bool [images, neurons]."""
        if self.masks:
            return self.masks.draw(neurons, self.rate)
        return torch.rand(images, neurons, device=device) >= self.rate

    def forward(self, x: Tensor) -> Tensor:
        """[N, neurons] to the same shape."""
        if not self.training:
            return x * (1 - self.rate)
        return x * self.mask(x.shape[0], x.shape[1], x.device)


def use_dropout_masks(model: nn.Module, masks: DropoutMasks) -> None:
    """Have every dropout layer of `model` draw from `masks`."""
    for module in model.modules():
        if isinstance(module, PaperDropout):
            module.masks = masks
