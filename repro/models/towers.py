"""The paper's two-device split: a tower on each, which talk at conv3 and the fully-connected layers (Sec. 3.2)."""

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
from repro.paper.networks import LRN, Conv, Dropout, Layer, Linear

Halves = tuple[Tensor, Tensor]


class Towers(nn.Module):
    """A net with two towers, each on its device: the same function as the one-device net that it is made from.

    Its children carry the paper's names and act in order; each is a pair of half layers, `conv1.0` on the first
    device and `conv1.1` on the second, which hold the first and the second half of the kernels or neurons.
    """

    def __init__(self, net: AlexNet, devices: tuple[torch.device, torch.device]) -> None:
        super().__init__()
        self.network, self.devices = net.network, devices
        self.sent: dict[tuple[str, int], list[int]] = {}
        below = (3, self.network.input_size)
        for row in count(self.network):
            halves = nn.ModuleList(_half_layer(tower, row, *below) for tower in (0, 1))
            for half, device in zip(halves, devices, strict=True):
                half.to(device).to(memory_format=torch.channels_last)
            self.add_module(row.layer.name, halves)
            below = (row.maps, row.size)
        for name, pieces in named_shards(self).items():
            scatter(pieces, net.get_parameter(name))

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] on the first device to logits [N, classes] there."""
        x = (images, self._send("images", images, 1))
        for layer, halves in zip(self.network.layers, self.children(), strict=True):
            first, second = halves.children()
            match layer:
                case LRN(towers=1):
                    x = self._normalise(layer, first, second, x)
                case Dropout() if self.training:
                    assert isinstance(first, PaperDropout)
                    x = self._drop(layer, first, x)
                case _:
                    if sees_both_towers(self.network, layer):
                        x = self._share(layer, x)
                    x = (first(x[0]), second(x[1]))
        return torch.cat((x[0], self._send("softmax", x[1], 0)), dim=1)

    def crossed(self) -> tuple[Transfer, ...]:
        """The bytes that have crossed so far, all images together."""
        layers = dict.fromkeys(layer for layer, _ in self.sent)
        both = {layer: [self.sent.get((layer, to), [0, 0]) for to in (0, 1)] for layer in layers}
        return tuple(Transfer(layer, *map(sum, zip(*ways, strict=True))) for layer, ways in both.items())

    def _share(self, layer: Layer, x: Halves) -> Halves:
        """Both halves on both devices."""
        wholes = (
            torch.cat((x[0], self._send(layer.name, x[1], 0)), dim=1),
            torch.cat((self._send(layer.name, x[0], 1), x[1]), dim=1),
        )
        return (wholes[0].flatten(1), wholes[1].flatten(1)) if isinstance(layer, Linear) else wholes

    def _normalise(self, layer: LRN, first: nn.Module, second: nn.Module, x: Halves) -> Halves:
        """LRN over all maps of the layer: each device also needs the other's n // 2 maps at the border."""
        maps, border = x[0].shape[1], layer.n // 2
        above = torch.cat((x[0], self._send(layer.name, x[1][:, :border], 0)), dim=1)
        below = torch.cat((self._send(layer.name, x[0][:, -border:], 1), x[1]), dim=1)
        return first(above)[:, :maps], second(below)[:, border:]

    def _drop(self, layer: Dropout, dropout: PaperDropout, x: Halves) -> Halves:
        """The one-device net's mask, of which the second device is sent its half."""
        width = x[0].shape[1]
        mask = dropout.mask(len(x[0]), width + x[1].shape[1], self.devices[0])
        first, second = mask.tensor_split([width], dim=1)
        return x[0] * first, x[1] * self._send(layer.name, second, 1)

    def _send(self, layer: str, x: Tensor, to: int) -> Tensor:
        sent: Tensor = _Send.apply(x, self.devices[to], self.sent.setdefault((layer, to), [0, 0]))
        return sent


class _Send(torch.autograd.Function):
    """Carries a tensor to another device and its gradient back; `count` adds up the bytes of both."""

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
    """The torch module of one tower's half of a layer on `maps` input maps of `size`×`size` in all."""
    match row.layer:
        case Conv() as layer:
            half = replace(layer, kernels=layer.kernels // 2, towers=1)
            return make_layer(half, row, row.kernel_depth, size)
        case LRN() as layer:
            border = layer.n // 2 if layer.towers == 1 else 0
            return make_layer(replace(layer, towers=1), row, maps // 2 + border, size)
        case Linear() as layer:
            # An odd number of classes leaves the first tower one more.
            return make_layer(replace(layer, units=(layer.units + 1 - tower) // 2), row, maps, size)
        case layer:
            return make_layer(layer, row, maps // 2, size)


def to_devices(net: AlexNet, devices: Sequence[torch.device]) -> AlexNet | Towers:
    """`net` on one device, or a tower on each of two. Raises ReproError if it has no two towers."""
    if len(devices) == 1:
        return net.to(devices[0]).to(memory_format=torch.channels_last)
    if not has_towers(net.network):
        names = ",".join(map(str, devices))
        raise ReproError(f"--devices {names} would take a tower each, and this net has no two towers: name one device")
    return Towers(net, (devices[0], devices[1]))


def named_shards(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The one-device net's parameters by name, each as the pieces along its first dimension that `model` holds."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer, *_, kind = name.split(".")
        found.setdefault(f"{layer}.{kind}", []).append(parameter)
    return found


def gather(pieces: Sequence[Tensor]) -> Tensor:
    """The one-device tensor of these pieces, on the CPU."""
    return torch.cat([piece.detach().cpu() for piece in pieces]).contiguous()


@torch.no_grad()
def scatter(pieces: Sequence[Tensor], value: Tensor) -> None:
    """Copy a one-device tensor into its pieces."""
    shares = value.split([len(piece) for piece in pieces])  # type: ignore[no-untyped-call]
    for piece, share in zip(pieces, shares, strict=True):
        piece.copy_(share)
