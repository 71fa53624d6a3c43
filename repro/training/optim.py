"""The paper's update rule, and the learning rate of each parameter in each epoch (Sec. 5)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
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
        """Update every parameter; each must have a gradient."""
        for group in self.param_groups:
            weights, lr = group["params"], group["lr"]
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
        {
            "params": shards,
            "name": name,
            "weight_decay": recipe.weight_decay if recipe.bias_decay or not name.endswith("bias") else 0.0,
        }
        for name, shards in named_shards(model).items()
    ]
    return PaperSGD(groups, recipe.lr, recipe.momentum, recipe.weight_decay)


def learning_rate(recipe: Recipe, parameter: str, drops: int, epoch: int) -> float:
    """Return the learning rate of `parameter`, such as "conv1.bias", in `epoch`, after `drops` divisions by 10."""
    dropped = 0.1**drops
    lr = recipe.lr * dropped
    if parameter.endswith(".bias"):
        lr = recipe.lr * recipe.bias_lr_ratio * (dropped if recipe.bias_lr_follows_schedule else 1.0)
    for change in recipe.lr_changes:
        if epoch >= change.epoch and fnmatch(parameter, change.pattern):
            lr *= change.factor
    return lr
