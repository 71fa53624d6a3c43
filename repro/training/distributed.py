"""The processes of a data-parallel run, as torchrun starts them; with one process no communication takes place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from repro.errors import ReproError, Stopped

T = TypeVar("T")

TIMEOUT = timedelta(minutes=5)  # of a collective operation: longer than a step or a save takes


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them. Every rank has to call each method in the same order.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process among those on its machine.
        local_world_size: number of processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes files and messages."""
        return self.rank == 0

    def shard(self, images: int) -> slice:
        """Return this rank's rows of a batch of `images`; the sizes of the shards differ by at most one."""
        return slice(self.rank * images // self.world_size, (self.rank + 1) * images // self.world_size)

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over all ranks, in float64."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, value: int) -> int:
        """Return the maximum of `value` over all ranks."""
        return int(self._reduce([value], dist.ReduceOp.MAX)[0])

    def barrier(self) -> None:
        """Wait until every rank has arrived here."""
        self.max(0)

    def _reduce(self, values: Iterable[float], operation: Any) -> list[float]:
        if self.world_size == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(numbers, operation)
        return [*map(float, numbers)]

    def broadcast(self, value: T) -> T:
        """Return rank 0's `value`, which consists of JSON values."""
        if self.world_size == 1:
            return value
        message = [json.dumps(value)]
        dist.broadcast_object_list(message, src=0)
        received: T = json.loads(message[0])
        return received

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of `tensors` by rank 0's, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of `tensors` by its sum over all ranks, in place.

        For gradients this replaces `DistributedDataParallel`, which regroups its buckets after the first step: three
        ranks then sum in another order, and a resumed run would differ from an uninterrupted one.
        """
        if self.world_size > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def run_checked(self, action: Callable[[], T]) -> T:
        """Return the result of `action`; if it raises ReproError on one rank, raise ReproError on all of them."""
        if self.world_size == 1:
            return action()
        problem = None
        try:
            result = action()
        except ReproError as error:
            problem = error
        problems: list[str | None] = [None] * self.world_size
        dist.all_gather_object(problems, str(problem) if problem else None)
        for rank, message in enumerate(problems):
            if message:
                raise ReproError(f"rank {rank}: {message}" if rank else message) from problem
        return result


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the process group that torchrun started, or yield a group of one process.

    If a rank ends, or does not respond within TIMEOUT, the others raise ReproError. Of all other ReproErrors, and of
    Stopped, only rank 0's keeps its message, so that it is printed once.
    """
    if not dist.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    group = ProcessGroup(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
    try:
        # Losses, signals and messages are CPU tensors, whatever device the net is on.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        yield group
        dist.destroy_process_group()
    except ReproError as error:
        if dist.is_initialized():
            dist.destroy_process_group()  # its threads can abort the interpreter at exit
        raise ReproError(str(error) if group.is_main else "") from error
    except Stopped as stop:
        if dist.is_initialized():
            dist.destroy_process_group()
        raise Stopped(stop.signal, str(stop) if group.is_main else "") from stop
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ReproError(
            f"rank {group.rank}: another rank has ended or does not respond, see its message; "
            "start all ranks again with --resume"
        ) from error
