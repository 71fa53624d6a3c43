"""The paper's update rule (Sec. 5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from repro.models.devices import compiles_kernels
from repro.models.towers import named_shards
from repro.paper.recipes import Recipe


class PaperSGD:
    """Stochastic gradient descent with the paper's momentum and weight decay (Sec. 5).

    v ← momentum·v − weight_decay·lr·w − lr·∂L/∂w; w ← w + v

    The learning rate is a factor within v: after it drops, earlier velocity keeps its size. In `torch.optim.SGD` it
    multiplies v, so that a drop scales earlier velocity as well.

    It is no `torch.optim.Optimizer`, because the first of those imports torch's compiler, which takes a second. It has
    the part of that interface that is used here.

    Args:
        params: parameters, or groups of them as in torch: dicts with "params" and settings of their own.
        lr: learning rate of groups without one.
        momentum: factor of the velocity.
        weight_decay: factor of the weights.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> None:
        given, defaults = [*params], {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [defaults | group for group in groups]
        self.state = {
            parameter: {"velocity": torch.zeros_like(parameter)}
            for group in self.param_groups
            for parameter in group["params"]
        }

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.state:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient, except those whose learning rate is 0.

        A frozen parameter keeps its value and its velocity, as in the authors' program. All others need a gradient.
        Parameters with the same constants are updated together, in a few operators, or each in one kernel.
        """
        together: dict[tuple[torch.device, float, float, float], list[Tensor]] = {}
        for group in self.param_groups:
            if group["lr"] != 0:
                for weight in group["params"]:
                    constants = (weight.device, group["momentum"], group["weight_decay"], group["lr"])
                    together.setdefault(constants, []).append(weight)
        for (device, momentum, decay, lr), weights in together.items():
            velocities = [self.state[weight]["velocity"] for weight in weights]
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            if compiles_kernels(device):
                from repro.models.triton_kernels import update  # slow to import, and not always there

                for each in zip(weights, gradients, velocities, strict=True):
                    update(*each, momentum, decay * lr, lr)
            else:
                torch._foreach_mul_(velocities, momentum)
                torch._foreach_add_(velocities, weights, alpha=-decay * lr)
                torch._foreach_add_(velocities, gradients, alpha=-lr)
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
