"""Training step of the network at the scale of the paper, batch 128: images/s compared with plain PyTorch.

    python benchmarks/step.py

`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` before it shows what a processor without AVX-512 does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import HEAD, Row, precisions, print_machine, seconds, take_turns
from torch import Tensor, nn
from torchvision.models import alexnet

import repro
from repro.models.allocator import keep_freed_memory
from repro.models.layers import LocalResponseNorm
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.training.optim import build_optimiser

BATCH = 128
BF16 = "bf16" in precisions()
FLOP = 4.3e9  # of a training step, per image


class PlainLRN(nn.Module):
    """The same normalisation by PyTorch."""

    def __init__(self, lrn: LocalResponseNorm) -> None:
        super().__init__()
        self.constants = (lrn.n, lrn.alpha * lrn.n, lrn.beta, lrn.k)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape, [N, C, H, W]."""
        return F.local_response_norm(x, *self.constants)


def _images(channels_last: bool) -> Tensor:
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0)).mul_(60)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def _speed(model: nn.Module, rule: torch.optim.Optimizer, images: Tensor, bf16: bool = False, times: int = 3) -> float:
    labels = torch.arange(BATCH) % 1000

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()

    return BATCH / seconds(step, times, warm_up=1)


def _paper_net(recipe: str = "paper") -> AlexNet:
    configuration = configure("alexnet", recipe)
    return AlexNet(configuration.network).initialise(configuration.recipe.initialisation)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=0.0005)


def plain() -> float:
    """Return the images/s of the network in plain PyTorch: `F.local_response_norm`, float32, torch.optim.SGD."""
    model = _paper_net()
    for name, module in list(model.named_children()):
        if isinstance(module, LocalResponseNorm):
            setattr(model, name, PlainLRN(module))
    return _speed(model, _sgd(model), _images(False), times=2)


def torchvision() -> float:
    """Return the images/s of torchvision's alexnet: one tower, fewer kernels, no normalisation."""
    model = alexnet()
    return _speed(model, _sgd(model), _images(False))


def ours(bf16: bool, recipe: str = "paper") -> Callable[[], float]:
    """Return a function that measures the images/s of the step of `repro train`."""

    def speed() -> float:
        keep_freed_memory()
        model = _paper_net(recipe).to(memory_format=torch.channels_last)
        return _speed(model, build_optimiser(model, configure("alexnet", recipe).recipe), _images(True), bf16)

    return speed


def library() -> float:
    """Return the images/s of a loop outside the trainer, in float32: `repro.build_model` as README.md shows it."""
    keep_freed_memory()
    model = repro.build_model("alexnet", "paper").to(memory_format=torch.channels_last)
    return _speed(model, _sgd(model), _images(False))


def ceiling(dtype: torch.dtype) -> Callable[[], float]:
    """Return a function that measures the images/s if every operation ran as fast as a large matrix product."""

    def speed() -> float:
        a, b = (torch.randn(4096, 4096, dtype=dtype) for _ in range(2))
        return 2 * 4096**3 / seconds(lambda: a @ b) / FLOP

    return speed


CANDIDATES = {
    "plain": plain,
    "torchvision": torchvision,
    "ceiling fp32": ceiling(torch.float32),
    "fp32": ours(bf16=False),
    "library": library,
    "authors": ours(bf16=BF16, recipe="authors"),
} | ({"ceiling bf16": ceiling(torch.bfloat16), "bf16": ours(bf16=True)} if BF16 else {})

if __name__ == "__main__":
    speed = take_turns(CANDIDATES)
    print_machine()
    print("images/s:", ", ".join(f"{name} {value:.1f}" for name, value in speed.items()))
    print(HEAD)
    best = precisions()[-1]
    if BF16:
        print(Row("training step, bf16", "plain PyTorch, fp32", speed["bf16"] / speed["plain"], "≥ 5"))
        print(Row("training step, bf16", "torchvision's alexnet, fp32", speed["bf16"] / speed["torchvision"], "≥ 2"))
    print(Row("training step, fp32", "plain PyTorch, fp32", speed["fp32"] / speed["plain"], "≥ 2.2"))
    print(
        Row(
            "training step outside the trainer, fp32", "training step, fp32", speed["library"] / speed["fp32"], "≥ 0.95"
        )
    )
    for precision in precisions():
        share = speed[precision] / speed[f"ceiling {precision}"]
        print(Row(f"training step, {precision}", f"{precision} matrix product", share, "≥ 0.8"))
    share = speed["authors"] / speed[f"ceiling {best}"]
    print(Row(f"training step of the authors' network, {best}", f"{best} matrix product", share, "–"))
