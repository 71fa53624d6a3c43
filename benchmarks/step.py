"""A training step of the whole net at the paper's scale, batch 128: images a second against plain PyTorch.

python benchmarks/step.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import HEAD, Row, seconds, take_turns
from torch import Tensor, nn
from torchvision.models import alexnet

from repro.models.allocator import keep_freed_memory
from repro.models.layers import LocalResponseNorm
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.training.optim import optimiser

BATCH = 128
OPERATIONS = 4.3e9  # floating-point operations of a training step, for each image


class PlainLRN(nn.Module):
    """The same normalisation as PyTorch has it."""

    def __init__(self, lrn: LocalResponseNorm) -> None:
        super().__init__()
        self.constants = (lrn.n, lrn.alpha * lrn.n, lrn.beta, lrn.k)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
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
    """The paper's net as one would write it: `F.local_response_norm`, float32, torch's own SGD."""
    model = _paper_net()
    for name, module in list(model.named_children()):
        if isinstance(module, LocalResponseNorm):
            setattr(model, name, PlainLRN(module))
    return _speed(model, _sgd(model), _images(False), times=2)


def torchvision() -> float:
    """torchvision's alexnet: one tower, fewer kernels, no normalisation."""
    model = alexnet()
    return _speed(model, _sgd(model), _images(False))


def ours(bf16: bool, recipe: str = "paper") -> Callable[[], float]:
    """The step that `repro train` takes."""

    def speed() -> float:
        keep_freed_memory()
        model = _paper_net(recipe).to(memory_format=torch.channels_last)
        return _speed(model, optimiser(model, configure("alexnet", recipe).recipe), _images(True), bf16)

    return speed


def ceiling() -> float:
    """Images a second if every operation ran as fast as in a large bf16 matrix product."""
    a, b = (torch.randn(4096, 4096).bfloat16() for _ in range(2))
    return 2 * 4096**3 / seconds(lambda: a @ b) / OPERATIONS


CANDIDATES = {
    "plain": plain,
    "torchvision": torchvision,
    "fp32": ours(bf16=False),
    "bf16": ours(bf16=True),
    "authors-bf16": ours(bf16=True, recipe="authors"),
    "ceiling": ceiling,
}

if __name__ == "__main__":
    speed = take_turns(CANDIDATES)
    print("images/s:", ", ".join(f"{name} {value:.1f}" for name, value in speed.items()))
    print(HEAD)
    print(Row("training step, bf16", "plain PyTorch, fp32", speed["bf16"] / speed["plain"], "≥ 5"))
    print(Row("training step, bf16", "torchvision's alexnet, fp32", speed["bf16"] / speed["torchvision"], "≥ 2"))
    print(Row("training step, bf16", "bf16 matrix product", speed["bf16"] / speed["ceiling"], "≥ 0.8"))
    print(Row("training step, fp32", "plain PyTorch, fp32", speed["fp32"] / speed["plain"], "≥ 2.2"))
    print(Row("training step of the authors' net, bf16", "bf16 matrix product",
              speed["authors-bf16"] / speed["ceiling"], "–"))  # fmt: skip
