"""The paper's update rule and the rate of each parameter in each epoch (Sec. 5)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from repro.models.towers import named_shards
from repro.paper.recipes import Recipe


class PaperSGD(torch.optim.Optimizer):
    """v ← momentum·v − weight_decay·lr·w − lr·∂L/∂w; w ← w + v (Sec. 5).

    The rate stands inside v: after a drop of the rate the old velocity keeps its length. In `torch.optim.SGD`
    the rate multiplies v, so that a drop shrinks the old velocity at once.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter from its gradient; every parameter must have one."""
        for group in self.param_groups:
            weights, lr = group["params"], group["lr"]
            velocities = [self.state[weight]["velocity"] for weight in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * lr)
            torch._foreach_add_(velocities, [weight.grad for weight in weights], alpha=-lr)
            torch._foreach_add_(weights, velocities)


def optimiser(model: nn.Module, recipe: Recipe) -> PaperSGD:
    """The paper's rule over `model`, a group for each weight and each bias, named as the parameter."""
    groups = [
        {
            "params": pieces,
            "name": name,
            "weight_decay": recipe.weight_decay if recipe.bias_decay or not name.endswith("bias") else 0.0,
        }
        for name, pieces in named_shards(model).items()
    ]
    return PaperSGD(groups, recipe.lr, recipe.momentum, recipe.weight_decay)


def learning_rate(recipe: Recipe, parameter: str, drops: int, epoch: int) -> float:
    """The rate of `parameter` (such as "conv1.bias") in `epoch`, after `drops` divisions by 10."""
    dropped = 0.1**drops
    rate = recipe.lr * dropped
    if parameter.endswith(".bias"):
        rate = recipe.lr * recipe.bias_lr_ratio * (dropped if recipe.bias_lr_follows_schedule else 1.0)
    for change in recipe.lr_changes:
        if epoch >= change.epoch and fnmatch(parameter, change.pattern):
            rate *= change.factor
    return rate
