"""The processes of one data-parallel run, as torchrun starts them; of a process alone, everything here is plain."""

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

PATIENCE = timedelta(minutes=5)  # how long one rank waits for the others: longer than a step or a save can take


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place: `rank` of `count` in all, `local_rank` of `local_count` on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    def share(self, images: int) -> slice:
        """This rank's rows of a batch of `images`, by position; the ranks' shares differ by one image at most."""
        return slice(self.rank * images // self.count, (self.rank + 1) * images // self.count)

    def total(self, *values: float) -> list[float]:
        """The sum over all ranks of each value."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of all ranks' values; also the way to wait for each other."""
        return int(self._reduce([value], dist.ReduceOp.MAX)[0])

    def _reduce(self, values: Iterable[float], operation: Any) -> list[float]:
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(numbers, operation)
        return [*map(float, numbers)]

    def tell(self, value: T) -> T:
        """The first rank's `value`, made of JSON values, on every rank."""
        if self.count == 1:
            return value
        told = [json.dumps(value)]
        dist.broadcast_object_list(told, src=0)
        answer: T = json.loads(told[0])
        return answer

    def copy(self, tensors: Iterable[Tensor]) -> None:
        """Put the first rank's values into every rank's `tensors`."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def together(self, action: Callable[[], T]) -> T:
        """What `action` gives. If it raises ReproError on one rank, it raises on all."""
        if self.count == 1:
            return action()
        problem = None
        try:
            result = action()
        except ReproError as error:
            problem = error
        problems: list[str | None] = [None] * self.count
        dist.all_gather_object(problems, str(problem) if problem else None)
        for rank, message in enumerate(problems):
            if message:
                raise ReproError(f"rank {rank}: {message}" if rank else message) from problem
        return result

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of `tensors` by its sum over all ranks, on every rank.

        For gradients this is plainer than `DistributedDataParallel`, which arranges them anew after its first step:
        three ranks then add in another order, and a resumed run would not have an uninterrupted one's bits.
        """
        if self.count > 1:
            for addition in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                addition.wait()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the ranks that torchrun started, or be the only one.

    A rank that ends or falls silent for longer than PATIENCE is a ReproError in the others. Of all other
    ReproErrors and of Stopped only the first rank's keeps its message.
    """
    if not dist.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    place = [int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    ranks = ProcessGroup(*place)
    try:
        # Losses, signals and messages travel as CPU tensors whatever the net runs on.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        yield ranks
        dist.destroy_process_group()
    except ReproError as error:
        if dist.is_initialized():
            dist.destroy_process_group()  # its threads, left running, can abort the interpreter on its way out
        raise ReproError(str(error) if ranks.first else "") from error
    except Stopped as stop:
        dist.destroy_process_group()
        raise Stopped(stop.signal, str(stop) if ranks.first else "") from stop
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ReproError(
            f"rank {ranks.rank}: another rank has ended or does not answer, see what that one says; "
            "start all of them again with --resume"
        ) from error
