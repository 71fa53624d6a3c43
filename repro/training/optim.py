"""The paper's update rule (Sec. 5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from repro.models.towers import named_shards
from repro.paper.recipes import Recipe


class PaperSGD(torch.optim.Optimizer):
    """Stochastic gradient descent with the paper's momentum and weight decay (Sec. 5).

    v ← momentum·v − weight_decay·lr·w − lr·∂L/∂w; w ← w + v

    The learning rate is a factor within v: after it drops, earlier velocity keeps its size. In `torch.optim.SGD` it
    multiplies v, so that a drop scales earlier velocity as well.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter from its gradient, except those whose learning rate is 0.

        A frozen parameter keeps its value and its velocity, as in the authors' program. All others need a gradient.
        """
        for group in self.param_groups:
            weights, lr = group["params"], group["lr"]
            if lr == 0:
                continue
            velocities = [self.state[weight]["velocity"] for weight in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * lr)
            torch._foreach_add_(velocities, [weight.grad for weight in weights], alpha=-lr)
            torch._foreach_add_(weights, velocities)


def build_optimiser(model: nn.Module, recipe: Recipe) -> PaperSGD:
    """Return the paper's update rule for `model`, with a parameter group for each weight and each bias.

    A group has the name of its parameter, and holds two tensors where that is split over two devices.
    """
    groups = [
        {"params": shards, "name": name, "weight_decay": recipe.decay_of(name)}
        for name, shards in named_shards(model).items()
    ]
    return PaperSGD(groups, recipe.lr, recipe.momentum, recipe.weight_decay)
