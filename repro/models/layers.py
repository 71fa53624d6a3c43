"""The paper's layers that torch lacks or computes slowly: LRN, spatial normalization, dropout, convolution, local."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
import torch.utils._python_dispatch
from torch import Tensor, nn
from torch.autograd import forward_ad

from repro.compiled_loops import LoopsUnavailable, check_loops
from repro.models.devices import compiles_kernels

# Of the input of a convolution in float32. For larger ones oneDNN computes the gradient of the weights in another way,
# which takes twice as long: that of conv1 for 128 images of 224 pixels, 75 MiB.
MAX_INPUT_BYTES = 2**26
BETA = 0.75  # Sec. 3.3; the exponent that the compiled loops and kernels are written for
# Dtypes that they compute.
COMPILED_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


class RoundedUpConv2d(nn.Conv2d):
    """A convolution whose last window reaches `overhang` pixels beyond the right and bottom edges, into zeros."""

    def __init__(self, *args: Any, overhang: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overhang = overhang

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, kernels, H', W']."""
        padded = F.pad(input, (0, self.overhang, 0, self.overhang))
        return convolve(padded, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class TowerConv2d(nn.Conv2d):
    """A convolution whose `groups` are the towers (Sec. 3.2); on a GPU, a convolution for each.

    For the gradient of grouped weights in bfloat16, cuDNN has no fast kernel.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, kernels, H', W']."""
        constants = (self.stride, self.padding, self.dilation)
        return convolve_towers(input, self.weight, self.bias, *constants, self.groups)


def convolve_towers(x: Tensor, weight: Tensor, bias: Tensor | None, *constants: Any) -> Tensor:
    """Compute `F.conv2d(x, weight, bias, *constants)`, of which the last is the number of groups."""
    if x.device.type == "cuda" and bias is not None and _runs_eagerly(x):
        return convolve_separately(x, weight, bias, *constants)
    return F.conv2d(x, weight, bias, *constants)


def convolve_separately(x: Tensor, weight: Tensor, bias: Tensor, *constants: Any) -> Tensor:
    """Compute `F.conv2d(x, weight, bias, *constants)` by a convolution for each group."""
    *others, groups = constants
    parts = zip(x.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
    return torch.cat([F.conv2d(*part, *others) for part in parts], dim=1)


def convolve(x: Tensor, *arguments: Any) -> Tensor:
    """Compute `F.conv2d(x, *arguments)`, for training in float32 on a CPU in parts of at most `MAX_INPUT_BYTES`."""
    in_parts = _runs_eagerly(x) and x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled()
    if not in_parts or x.nbytes <= MAX_INPUT_BYTES or torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, *arguments)
    return torch.cat([F.conv2d(part, *arguments) for part in x.chunk(-(-x.nbytes // MAX_INPUT_BYTES))])


# torch.fx cannot follow a choice that depends on a tensor: it records the call instead.
torch.fx.wrap("convolve")
torch.fx.wrap("convolve_towers")


class TowerLinear(nn.Linear):
    """Two fully-connected layers side by side: each half of the outputs sees its own half of the inputs.

    `in_features` is the number of inputs of one output, half of those of the layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, 2 · in_features] to [N, out_features]."""
        halves = zip(input.chunk(2, 1), self.weight.chunk(2), self.bias.chunk(2), strict=True)
        return torch.cat([F.linear(*half) for half in halves], dim=1)


class LocallyConnected2d(nn.Module):
    """Like a convolution of stride 1, with separate kernels and biases at each of the `positions`² positions.

    `weight` is [positions², kernels, maps·size²], `bias` [kernels, positions²].
    """

    def __init__(self, maps: int, kernels: int, size: int, padding: int, positions: int) -> None:
        super().__init__()
        self.kernels, self.size, self.padding, self.positions = kernels, size, padding, positions
        self.weight = nn.Parameter(torch.empty(positions**2, kernels, maps * size**2))
        self.bias = nn.Parameter(torch.empty(kernels, positions**2))

    def forward(self, input: Tensor) -> Tensor:
        """[N, maps, H, H] to [N, kernels, positions, positions]."""
        windows = F.unfold(input, self.size, padding=self.padding).permute(2, 1, 0)  # [positions², maps·size², N]
        out = torch.bmm(self.weight, windows).permute(2, 1, 0) + self.bias
        return out.reshape(*out.shape[:2], self.positions, self.positions)


def across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float, beta: float) -> Tensor:
    """Compute the formula of `LocalResponseNorm` with torch operators, for any device, in float32 at least."""
    a = _at_least_float32(x)
    return (a * (k + alpha * _sum_across_maps(a * a, towers, n)).pow(-beta)).to(x.dtype)


def within_maps(x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """Compute the formula of `SpatialNormalization` with torch operators, for any device, in float32 at least."""
    a = _at_least_float32(x)
    return (a * (k + alpha * _sum_within_maps(a * a, size)).pow(-beta)).to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _sum_across_maps(x: Tensor, towers: int, n: int) -> Tensor:
    """Sum `x` [N, C, H, W] over `n` adjacent maps of one tower, centred on each map; same shape."""
    half, (images, maps, height, width) = n // 2, x.shape
    padded = F.pad(x.reshape(images, towers, maps // towers, height, width), (0, 0, 0, 0, half, half))
    sums = padded[:, :, : maps // towers]
    for neighbour in range(1, n):
        sums = sums + padded[:, :, neighbour : neighbour + maps // towers]
    return sums.reshape(images, maps, height, width)


def _sum_within_maps(x: Tensor, size: int) -> Tensor:
    """Sum `x` [N, C, H, W] over the `size`×`size` window around each position, zero outside; same shape."""
    # Not by divisor_override=1: torch.onnx leaves it out.
    return F.avg_pool2d(x, size, stride=1, padding=size // 2) * size**2


class _AcrossMaps(torch.autograd.Function):
    """LRN by compiled loops or kernels, differentiable any number of times.

    `x` is in channels-last memory already: a copy made in here would not be connected to the graph, and second
    derivatives would miss its part.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, towers: int, n: int, k: float, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = (towers, n, k, alpha)
        out: Tensor = _compiled(x).across_maps(x, *ctx.constants)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        towers, n, _, _ = ctx.constants
        gradient = _gradient("across_maps", x, grad, ctx.constants, lambda each: _sum_across_maps(each, towers, n))
        return gradient, None, None, None, None


class _WithinMaps(torch.autograd.Function):
    """Spatial normalization by compiled loops or kernels, like `_AcrossMaps`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, k: float, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = (size, k, alpha)
        out: Tensor = _compiled(x).within_maps(x, *ctx.constants)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        size = ctx.constants[0]
        gradient = _gradient("within_maps", x, grad, ctx.constants, lambda each: _sum_within_maps(each, size))
        return gradient, None, None, None


def _gradient(
    name: str, x: Tensor, grad: Tensor, constants: tuple[Any, ...], neighbourhood: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the gradient of a normalization, in the shape and dtype of `x`.

    Compiled code computes it, unless the gradient itself is to be differentiated (create_graph), for which autograd
    must record the formula's operators, or `grad` is a batch of gradients under vmap. Each neighbourhood is symmetric,
    so with s = k + α Σ x² the gradient is g s^-β − 2αβ x Σ g x s^-(β+1).
    """
    if not torch.is_grad_enabled() and _runs_eagerly(grad):
        with suppress(LoopsUnavailable):
            channels_last = grad.contiguous(memory_format=torch.channels_last)
            gradient: Tensor = getattr(_compiled(x), f"{name}_backward")(x, channels_last, *constants)
            return gradient
    *_, k, alpha = constants
    with torch.autocast(x.device.type, enabled=False):
        a, g = x.float(), grad.float()
        s = k + alpha * neighbourhood(a * a)
        direct = g * s.pow(-BETA)
        formula: Tensor = direct - 2 * alpha * BETA * a * neighbourhood(direct * a / s)
        return formula.to(x.dtype)


def normalize_across_maps(x: Tensor, towers: int, n: int, k: float, alpha: float, beta: float) -> Tensor:
    """Compute `across_maps` in the fastest way there is for `x`, in float32 at least; same dtype as `x`."""
    return _fastest(_AcrossMaps, across_maps, x, (towers, n, k, alpha), beta)


def normalize_within_maps(x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """Compute `within_maps` in the fastest way there is for `x`, in float32 at least; same dtype as `x`."""
    return _fastest(_WithinMaps, within_maps, x, (size, k, alpha), beta)


torch.fx.wrap("normalize_across_maps")  # as `convolve`
torch.fx.wrap("normalize_within_maps")


def _fastest(
    compiled: type[_AcrossMaps | _WithinMaps],
    formula: Callable[..., Tensor],
    x: Tensor,
    constants: tuple[Any, ...],
    beta: float,
) -> Tensor:
    if beta == BETA and x.dtype in COMPILED_DTYPES.get(x.device.type, ()) and _runs_eagerly(x):
        with suppress(LoopsUnavailable):
            out: Tensor = compiled.apply(x.contiguous(memory_format=torch.channels_last), *constants)
            return out
    with torch.autocast(x.device.type, enabled=False):
        normalized: Tensor = formula(x, *constants, beta)
    return normalized


def _compiled(x: Tensor) -> Any:
    """Import the module that computes on the device of `x`, which is slow. Raises LoopsUnavailable if none can."""
    if x.device.type == "cpu":
        check_loops()
        from repro.models import normalization_kernels

        return normalization_kernels
    if not compiles_kernels(x.device):
        raise LoopsUnavailable
    from repro.models import triton_kernels

    return triton_kernels


def _runs_eagerly(x: Tensor) -> bool:
    """Whether `x` is an ordinary tensor that is computed now.

    It is not while torch traces, compiles or exports, with fake tensors and other subclasses, under the transforms of
    torch.func, and in forward-mode differentiation: these must see the formula's operators.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or type(x) not in (Tensor, nn.Parameter)
        or not torch._C._has_storage(x)  # a batch under the vmap of torch.autograd
        or torch._C._are_functorch_transforms_active()
        or forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
        or torch.utils._python_dispatch._get_current_dispatch_mode() is not None
    )


class LocalResponseNorm(nn.Module):
    """Local response normalization, b_i = a_i / (k + alpha · Σ_j a_j²)^beta over `n` adjacent maps (Sec. 3.3).

    `n` is odd. `alpha` multiplies the plain sum, whereas `torch.nn.LocalResponseNorm` divides its alpha by n. With
    `towers=2` the sum stays within each half of the maps.
    """

    def __init__(self, n: int, k: float, alpha: float, beta: float, towers: int = 1) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.beta, self.towers = n, k, alpha, beta, towers

    def forward(self, x: Tensor) -> Tensor:
        """[N, maps, H, W] to the same shape and dtype; computed in float32 at least."""
        return normalize_across_maps(x, self.towers, self.n, self.k, self.alpha, self.beta)


class SpatialNormalization(nn.Module):
    """b = a / (k + alpha · Σ a²)^beta over a `size`×`size` window of each map; conv2 of the authors' program."""

    def __init__(self, size: int, k: float, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape and dtype; computed in float32 at least."""
        return normalize_within_maps(x, self.size, self.k, self.alpha, self.beta)


class DropoutMasks:
    """Dropout masks of an update, drawn for its whole batch so that they depend neither on ranks nor on towers.

    On a CPU they come from torch's generator. Elsewhere they come from integers that count the neurons of the batch:
    the numbers of torch's generator for GPUs depend on the number of multiprocessors, that is on the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.counted = device, device.type != "cpu"
        self.generator = torch.Generator()
        self.seed, self.drawn, self.images, self.rows = 0, 0, 0, slice(0)

    def begin(self, seed: int, images: int, rows: slice) -> None:
        """Start an update on a batch of `images`, of which this rank has `rows`; the masks depend on `seed` alone."""
        self.generator.manual_seed(seed)
        self.seed, self.drawn, self.images, self.rows = seed, 0, images, rows

    def draw(self, neurons: int, rate: float) -> Tensor:
        """Return the next mask, bool [rows, neurons], False with probability `rate`."""
        if not self.counted:
            return torch.rand(self.images, neurons, generator=self.generator)[self.rows] >= rate
        first, end, _ = (neurons * row for row in self.rows.indices(self.images))
        bits = splitmix64(self.seed, self.drawn + first, self.drawn + end, self.device)
        self.drawn += neurons * self.images
        return (bits >= round(rate * 2**63)).view(-1, neurons)


def splitmix64(seed: int, start: int, end: int, device: torch.device) -> Tensor:
    """Return numbers `start` to `end` − 1 of the generator SplitMix64, without their lowest bit, int64 [end − start].

    They are integers that are uniform on 0 … 2⁶³ − 1, and the same on every device: each is a function of `seed` and
    its number, computed modulo 2⁶⁴ (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    z = torch.arange(start + 1, end + 1, device=device) * _signed(0x9E3779B97F4A7C15) + _signed(seed)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z ^ _shifted(z, 31), 1)


def _signed(bits: int) -> int:
    """Return the signed integer with the same lowest 64 bits."""
    return (bits + 2**63) % 2**64 - 2**63


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift to the right, with zeros from the left."""
    shifted: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def random_mask(x: Tensor, rate: float) -> Tensor:
    """Return a mask in the shape of `x` [N, neurons], False with probability `rate`, by torch's global generator."""
    return torch.rand(*x.shape, device=x.device) >= rate


torch.fx.wrap("random_mask")  # recorded as a call: torch.rand takes no symbolic shape


class PaperDropout(nn.Module):
    """Zero each neuron with probability `rate` in training, multiply by 1 − rate in evaluation (Sec. 4.2).

    `torch.nn.Dropout` rescales in training instead. Masks are drawn from `masks`, which the training loop sets, or
    from torch's global generator if it is None.
    """

    masks: DropoutMasks | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, images: int, neurons: int, device: torch.device) -> Tensor:
        """Return which neurons a training step keeps, bool [images, neurons]."""
        if self.masks:
            return self.masks.draw(neurons, self.rate)
        return random_mask(torch.empty(images, neurons, device=device), self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """[N, neurons] to the same shape."""
        if not self.training:
            return x * (1 - self.rate)
        return x * (random_mask(x, self.rate) if self.masks is None else self.mask(x.shape[0], x.shape[1], x.device))


def use_dropout_masks(model: nn.Module, masks: DropoutMasks) -> None:
    """Make every dropout layer of `model` draw its masks from `masks`."""
    for module in model.modules():
        if isinstance(module, PaperDropout):
            module.masks = masks
