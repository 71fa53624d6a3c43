"""The paper's layers that torch lacks or has too slow: LRN, spatial normalisation, its dropout, rounded-up conv."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HAS_TRITON = find_spec("triton") is not None  # torch's compiler for GPUs


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


class _AcrossMaps(torch.autograd.Function):
    """LRN on a processor, by loops of our own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
        from repro.models import normalization_kernels as kernels  # Numba is slow to import

        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x)
        ctx.constants = (towers, n, k, alpha)
        return kernels.across_maps(x, *ctx.constants)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        from repro.models import normalization_kernels as kernels

        (x,) = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        return kernels.across_maps_backward(x, grad, *ctx.constants), None, None, None, None


class _WithinMaps(torch.autograd.Function):
    """Spatial normalisation on a processor, likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, k: float, alpha: float) -> Tensor:
        from repro.models import normalization_kernels as kernels

        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x)
        ctx.constants = (size, k, alpha)
        return kernels.within_maps(x, *ctx.constants)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        from repro.models import normalization_kernels as kernels

        (x,) = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        return kernels.within_maps_backward(x, grad, *ctx.constants), None, None, None


def across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float, beta: float) -> Tensor:
    """The formula of `LocalResponseNorm` in torch's own operators, for any device and floating dtype."""
    half, (images, maps, height, width) = n // 2, x.shape
    squares = F.pad((x * x).view(images, towers, maps // towers, height, width), (0, 0, 0, 0, half, half))
    sums = squares[:, :, : maps // towers]
    for near in range(1, n):
        sums = sums + squares[:, :, near : near + maps // towers]
    return x * (k + alpha * sums.view_as(x)).pow(-beta)


def within_maps(x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """The formula of `SpatialNormalization`, likewise."""
    window_sum = F.avg_pool2d(x * x, size, stride=1, padding=size // 2, divisor_override=1)
    return x * (k + alpha * window_sum).pow(-beta)


@cache
def fused(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`formula` compiled to few kernels that go over memory once; its derivative too."""
    return torch.compile(formula, dynamic=True)


def _has_loops(x: Tensor, beta: float) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and beta == 0.75


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha · Σ_j a_j²)^beta over `n` adjacent maps (Sec. 3.3); n is odd.

    `alpha` multiplies the plain sum: `torch.nn.LocalResponseNorm` divides its own by n. With `towers=2` the
    neighbourhood stays within each half of the maps.
    """

    def __init__(self, n: int, k: float, alpha: float, beta: float, towers: int = 1) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.beta, self.towers = n, k, alpha, beta, towers

    def forward(self, x: Tensor) -> Tensor:
        """[N, maps, H, W] to the same shape and dtype; computed in float32 at least."""
        constants = (self.towers, self.n, self.k, self.alpha)
        if _has_loops(x, self.beta):
            out: Tensor = _AcrossMaps.apply(x, *constants)
            return out
        return _in_float32(across_maps, x, *constants, self.beta)


class SpatialNormalization(nn.Module):
    """b = a / (k + alpha · Σ a²)^beta over a `size`×`size` window of each map; the authors' program, conv2."""

    def __init__(self, size: int, k: float, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape and dtype; computed in float32 at least."""
        constants = (self.size, self.k, self.alpha)
        if _has_loops(x, self.beta):
            out: Tensor = _WithinMaps.apply(x, *constants)
            return out
        return _in_float32(within_maps, x, *constants, self.beta)


def _in_float32(formula: Callable[..., Tensor], x: Tensor, *constants: float) -> Tensor:
    """`formula` of `x` in float32, or in float64 if that is what `x` is in; the result in `x`'s dtype."""
    if x.device.type == "cuda" and HAS_TRITON:
        formula = fused(formula)
    with torch.autocast(x.device.type, enabled=False):
        return formula(x if x.dtype == torch.float64 else x.float(), *constants).to(x.dtype)


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
