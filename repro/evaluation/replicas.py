"""Trained nets on several devices: each device has a replica and computes every n-th batch."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repro.data.reader import Request, read_ahead
from repro.data.store import Split
from repro.data.views import Views
from repro.models.devices import find_devices


class WholeImageModel(Protocol):
    """A model that is no net: it sees each stored image as a whole, so that it has no views."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities [N, classes] of stored images, uint8 [N, S, S, 3]."""
        ...


Model: TypeAlias = nn.Module | WholeImageModel
MemberViews = Views | Sequence[Views | None] | None  # of all nets, or of each model; None for one that has none


@dataclass(frozen=True)
class Replica:
    """Models on one device, in evaluation mode.

    Attributes:
        models: nets on the device, and models that are no nets.
        views: for each model, what makes its views there; None for a model that is no net.
        device: the device of the images.
    """

    models: tuple[Model, ...]
    views: tuple[Views | None, ...]
    device: torch.device


def replica_devices(names: str | None) -> tuple[torch.device, ...]:
    """Return the devices of replicas: those of `names`, separated by commas, or one GPU, or else the CPU.

    Raises ReproError for a device that does not work.
    """
    return tuple(device for name in (names.split(",") if names else [None]) for device in find_devices(name))


def replicate(models: Sequence[Model], views: MemberViews, devices: Sequence[torch.device] = ()) -> list[Replica]:
    """Return the models themselves, with their views, and a copy of the nets for each of `devices` but the first.

    The nets have to be on the first device; without `devices` they may be anywhere. They are left in evaluation mode.
    Without views, and so without nets, there is a single replica on the CPU.
    """
    for model in models:
        if isinstance(model, nn.Module):
            model.eval()
    each = tuple([views] * len(models) if views is None or isinstance(views, Views) else views)
    device = next((own.device for own in each if own), None)
    if device is None:
        return [Replica(tuple(models), each, torch.device("cpu"))]
    copies = [
        Replica(
            tuple(copy.deepcopy(model).to(other) if isinstance(model, nn.Module) else model for model in models),
            tuple(own and own.to(other) for own in each),
            other,
        )
        for other in devices[1:]
    ]
    return [Replica(tuple(models), each, device), *copies]


def map_batches(
    replicas: Sequence[Replica],
    split: Split,
    batches: Sequence[NDArray[np.int64]],
    compute: Callable[[Replica, Tensor], tuple[Tensor, ...]],
) -> Iterator[tuple[NDArray[np.int64], tuple[Tensor, ...]]]:
    """Yield each batch of indices, int64 [B], with the results of `compute` on its images, on the CPU, in order.

    `compute` is called with a replica and the images, uint8 [B, S, S, 3] on its device, which are overwritten later.
    GPUs work on their batches at the same time; their results are waited for only when all have work.
    """
    running: deque[tuple[NDArray[np.int64], tuple[Tensor, ...]]] = deque()
    ahead = sum(replica.device.type != "cpu" for replica in replicas)  # a CPU has computed when `compute` returns

    def collect() -> tuple[NDArray[np.int64], tuple[Tensor, ...]]:
        indices, results = running.popleft()
        return indices, tuple(result.cpu() for result in results)

    requests = (Request(indices) for indices in batches)
    with closing(read_ahead(split, requests, [replica.device for replica in replicas])) as read:
        for indices, batch, replica in zip(batches, read, cycle(replicas), strict=False):
            running.append((indices, compute(replica, batch.images)))
            if len(running) > ahead:
                yield collect()
        while running:
            yield collect()


def consecutive(count: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Return the indices 0 … count − 1 in batches."""
    return [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
