"""The paper's split over two devices: a tower on each, which communicate only in certain layers (Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import ReproError
from repro.models.layers import PaperDropout
from repro.models.network import AlexNet, make_layer
from repro.paper.arithmetic import LayerCount, count
from repro.paper.communication import Transfer, has_towers, sees_both_towers
from repro.paper.networks import LRN, Conv, Dropout, Layer, Linear, TowerLinear

Halves = tuple[Tensor, Tensor]


class Towers(nn.Module):
    """A net with a tower on each of two devices, which computes the same function as the one-device net `net`.

    Its children have the paper's names and act in order. Each is a pair of half layers, `conv1.0` on the first device
    and `conv1.1` on the second, with the first and the second half of the kernels or neurons. Below, `x` is the pair
    of half activations, [N, C/2, H, W] each, the first on the first device.
    """

    def __init__(self, net: AlexNet, devices: tuple[torch.device, torch.device]) -> None:
        super().__init__()
        self.network, self.devices = net.network, devices
        self.sent: dict[tuple[str, int], list[int]] = {}  # layer, receiver: bytes forward, backward
        maps, size = 3, self.network.input_size
        for row in count(self.network):
            halves = nn.ModuleList(_half_layer(tower, row, maps, size) for tower in (0, 1))
            for half, device in zip(halves, devices, strict=True):
                half.to(device).to(memory_format=torch.channels_last)
            self.add_module(row.layer.name, halves)
            maps, size = row.maps, row.size
        for name, shards in named_shards(self).items():
            scatter(shards, net.get_parameter(name))

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] on the first device to logits [N, classes] there."""
        x = (images, self._send("images", images, 1))
        for layer, halves in zip(self.network.layers, self.children(), strict=True):
            first, second = halves.children()
            match layer:
                case LRN(towers=1):
                    x = self._normalize(layer, first, second, x)
                case Dropout() if self.training:
                    assert isinstance(first, PaperDropout)
                    x = self._dropout(layer, first, x)
                case _:
                    if sees_both_towers(self.network, layer):
                        x = self._exchange(layer, x)
                    elif isinstance(layer, TowerLinear):
                        x = (x[0].flatten(1), x[1].flatten(1))
                    x = (first(x[0]), second(x[1]))
        return torch.cat((x[0], self._send("softmax", x[1], 0)), dim=1)

    def transferred(self) -> tuple[Transfer, ...]:
        """Return the bytes sent so far between the devices, by layer, summed over all images."""
        layers = dict.fromkeys(layer for layer, _ in self.sent)
        directions = {layer: [self.sent.get((layer, to), [0, 0]) for to in (0, 1)] for layer in layers}
        return tuple(Transfer(layer, *map(sum, zip(*each, strict=True))) for layer, each in directions.items())

    def _exchange(self, layer: Layer, x: Halves) -> Halves:
        """Return both halves together on both devices, [N, C, H, W] each, or [N, C·H·W] for a linear layer."""
        wholes = (
            torch.cat((x[0], self._send(layer.name, x[1], 0)), dim=1),
            torch.cat((self._send(layer.name, x[0], 1), x[1]), dim=1),
        )
        return (wholes[0].flatten(1), wholes[1].flatten(1)) if isinstance(layer, Linear) else wholes

    def _normalize(self, layer: LRN, first: nn.Module, second: nn.Module, x: Halves) -> Halves:
        """Apply LRN over all maps of the layer: each device also needs the other's n // 2 maps next to the border."""
        maps, border = x[0].shape[1], layer.n // 2
        above = torch.cat((x[0], self._send(layer.name, x[1][:, :border], 0)), dim=1)
        below = torch.cat((self._send(layer.name, x[0][:, -border:], 1), x[1]), dim=1)
        return first(above)[:, :maps], second(below)[:, border:]

    def _dropout(self, layer: Dropout, dropout: PaperDropout, x: Halves) -> Halves:
        """Apply the one-device net's mask, drawn on the first device, which sends the second its half."""
        width = x[0].shape[1]
        mask = dropout.mask(len(x[0]), width + x[1].shape[1], self.devices[0])
        first, second = mask.tensor_split([width], dim=1)
        return x[0] * first, x[1] * self._send(layer.name, second, 1)

    def _send(self, layer: str, x: Tensor, to: int) -> Tensor:
        """Return `x` on device number `to`, counting the bytes on behalf of `layer`."""
        sent: Tensor = _Send.apply(x, self.devices[to], self.sent.setdefault((layer, to), [0, 0]))
        return sent


class _Send(torch.autograd.Function):
    """Copy a tensor to another device and its gradient back; the bytes of both are added to `count`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: torch.device, count: list[int]) -> Tensor:
        ctx.device, ctx.count = x.device, count
        count[0] += x.nbytes
        return x.to(device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        ctx.count[1] += grad.nbytes
        return grad.to(ctx.device), None, None


def _half_layer(tower: int, row: LayerCount, maps: int, size: int) -> nn.Module:
    """Return the torch module of a tower's half of a layer whose whole input is `maps` maps of `size`×`size`."""
    match row.layer:
        case Conv() as layer:
            half = replace(layer, kernels=layer.kernels // 2, towers=1)
            return make_layer(half, row, row.kernel_depth, size)
        case LRN() as layer:
            border = layer.n // 2 if layer.towers == 1 else 0
            return make_layer(replace(layer, towers=1), row, maps // 2 + border, size)
        case TowerLinear() as layer:
            return make_layer(Linear(layer.name, layer.units // 2), row, maps // 2, size)
        case Linear() as layer:
            # With an odd number of classes the first tower has one more.
            return make_layer(replace(layer, units=(layer.units + 1 - tower) // 2), row, maps, size)
        case layer:
            return make_layer(layer, row, maps // 2, size)


def to_devices(net: AlexNet, devices: Sequence[torch.device]) -> AlexNet | Towers:
    """Move `net` to one device, or a tower of it to each of two. Raises ReproError if it does not have two towers."""
    if len(devices) == 1:
        return net.to(devices[0]).to(memory_format=torch.channels_last)
    if not has_towers(net.network):
        names = ",".join(map(str, devices))
        raise ReproError(f"--devices {names} would take a tower each, but this net has no two towers: name one device")
    return Towers(net, (devices[0], devices[1]))


def named_shards(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the one-device net's parameters by name, each as the shards of its first dimension that `model` holds."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer, *_, kind = name.split(".")
        found.setdefault(f"{layer}.{kind}", []).append(parameter)
    return found


def gather(shards: Sequence[Tensor]) -> Tensor:
    """Concatenate the shards of a one-device tensor on the CPU."""
    return torch.cat([shard.detach().cpu() for shard in shards]).contiguous()


@torch.no_grad()
def scatter(shards: Sequence[Tensor], value: Tensor) -> None:
    """Copy a one-device tensor into its shards."""
    parts = value.split([len(shard) for shard in shards])  # type: ignore[no-untyped-call]
    for shard, part in zip(shards, parts, strict=True):
        shard.copy_(part)
