"""The processes of a data-parallel run; with one process no communication takes place."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from repro.errors import ReproError, Stopped
from repro.launchers import Launch, find_launch, launch_words

T = TypeVar("T")

TIMEOUT = timedelta(minutes=5)  # of a collective operation: longer than a step or a save takes
GRACE_SECONDS = 10.0  # for an orderly end after another rank has left
BUCKET_BYTES = 2**20  # large enough that latency does not matter, small enough that the last bucket is short


class _CollectiveError(RuntimeError):
    """A collective operation failed: another rank has ended or does not respond."""


@contextmanager
def _collective() -> Iterator[None]:
    """Raise _CollectiveError for the failures of gloo, which have no class and no common words of their own."""
    try:
        yield
    except RuntimeError as error:
        raise _CollectiveError(str(error)) from error


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them. Every rank has to call each method in the same order.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process among those on its machine.
        local_world_size: number of processes on this machine.
        launcher: the program that started them.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launcher: str = ""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes files and messages."""
        return self.rank == 0

    def launch_words(self) -> list[str]:
        """Return the words that start this program on as many processes as now."""
        return launch_words(self.launcher, self.world_size, self.local_world_size)

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
        with _collective():
            dist.all_reduce(numbers, operation)
        return [*map(float, numbers)]

    def broadcast(self, value: T) -> T:
        """Return rank 0's `value`, which consists of JSON values."""
        if self.world_size == 1:
            return value
        message = [json.dumps(value)]
        with _collective():
            dist.broadcast_object_list(message, src=0)
        received: T = json.loads(message[0])
        return received

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of `tensors` by rank 0's, in place."""
        if self.world_size > 1:
            with _collective():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

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
        with _collective():
            dist.all_gather_object(problems, str(problem) if problem else None)
        for rank, message in enumerate(problems):
            if message:
                raise ReproError(f"rank {rank}: {message}" if rank else message) from problem
        return result


SINGLE_PROCESS = ProcessGroup()


@dataclass
class _Bucket:
    """Gradients that are all-reduced together.

    Attributes:
        flat: the gradients of all its parameters, one after the other.
        size: number of parameters.
        missing: number of parameters without a gradient in the current backward pass.
        work: the all-reduce, once it has started.
    """

    flat: Tensor
    size: int
    missing: int = 0
    work: Any = None


class GradientBuckets:
    """Sums of gradients over all ranks, all-reduced in buckets during the backward pass.

    Parameters are assigned to buckets of at least BUCKET_BYTES in reverse order, because the last layers' gradients are
    computed first. A bucket's all-reduce starts once all its gradients are there, in the same order on every rank. The
    last bucket also holds a few scalars, so that a step needs no other communication.

    Buckets never change, and so neither does the order of additions. `DistributedDataParallel` rebuilds its buckets
    after the first step: three ranks then add in a different order, and a resumed run would differ in its last bits
    from an uninterrupted one. With one process no buckets are made.

    Args:
        group: the processes of the run.
        parameters: the net's parameters in the order of its layers; each has to get a gradient in every step.
        scalars: number of scalars, on the device of the loss.
        device: device of the loss.
    """

    def __init__(
        self, group: ProcessGroup, parameters: Iterable[nn.Parameter], scalars: int, device: torch.device
    ) -> None:
        self._buckets: list[_Bucket] = []
        self._places: dict[nn.Parameter, tuple[_Bucket, Tensor]] = {}  # bucket of a parameter, and its part of `flat`
        self._next = 0  # index of the bucket whose all-reduce starts next
        self._lock = threading.Lock()  # hooks of two GPUs run in two threads
        self._scalars = torch.zeros(scalars, device=device)
        if group.world_size == 1:
            return
        members = _assign_buckets([*parameters])
        last = max(index for index, bucket in enumerate(members) if bucket[0].device == device)
        for index, bucket in enumerate(members):
            self._add_bucket(bucket, scalars if index == last else 0)

    def _add_bucket(self, parameters: list[nn.Parameter], scalars: int) -> None:
        lengths = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(lengths) + scalars, dtype=parameters[0].dtype, device=parameters[0].device)
        bucket = _Bucket(flat, len(parameters))
        *parts, rest = flat.split([*lengths, scalars])  # type: ignore[no-untyped-call]
        for parameter, part in zip(parameters, parts, strict=True):
            self._places[parameter] = bucket, part.as_strided(parameter.size(), parameter.stride())
            parameter.register_post_accumulate_grad_hook(self._collect)  # type: ignore[no-untyped-call]
        if scalars:
            self._scalars = rest
        self._buckets.append(bucket)

    def backward(self, loss: Tensor, values: Tensor) -> Tensor:
        """Compute the gradients of `loss` and replace them by their sums over all ranks.

        Returns the sums over all ranks of `values`, float32 [scalars] on the device of the loss; they are not waited
        for on a GPU.
        """
        if not self._buckets:
            loss.backward()  # type: ignore[no-untyped-call]
            return values
        self._scalars.copy_(values)
        self._next = 0
        for bucket in self._buckets:
            bucket.missing = bucket.size
        loss.backward()  # type: ignore[no-untyped-call]
        if self._next < len(self._buckets):
            raise RuntimeError("a parameter of the net has no gradient")
        with _collective():
            for bucket in self._buckets:
                bucket.work.wait()
        return self._scalars.clone()

    def _collect(self, parameter: Tensor) -> None:
        """Move a gradient to its bucket, and start the all-reduce of the next buckets that are complete."""
        bucket, place = self._places[parameter]  # type: ignore[index]
        assert parameter.grad is not None
        place.copy_(parameter.grad)
        parameter.grad = place
        with self._lock:
            bucket.missing -= 1
            while self._next < len(self._buckets) and not self._buckets[self._next].missing:
                ready = self._buckets[self._next]
                with _collective():
                    ready.work = dist.all_reduce(ready.flat, async_op=True)
                self._next += 1


def _assign_buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return the parameters of each bucket, from the last layer to the first; a bucket is on one device."""
    buckets: list[list[nn.Parameter]] = []
    unfilled: dict[torch.device, list[nn.Parameter]] = {}
    for parameter in reversed(parameters):
        bucket = unfilled.setdefault(parameter.device, [])
        if not bucket:
            buckets.append(bucket)
        bucket.append(parameter)
        if sum(each.nbytes for each in bucket) >= BUCKET_BYTES:
            del unfilled[parameter.device]
    return buckets


class _Watch:
    """Ends this process when another rank has ended, even if the main thread waits for a GPU and cannot notice it.

    Each rank waits in a thread for a message of the rank before it, which sends one when it leaves; if that process
    ends without, the connection breaks. Either way the news is passed on to the next rank, and the main thread has
    GRACE_SECONDS to leave as well, with a better message. The messages use a group with gloo, which fails when a
    process ends; NCCL waits for a timeout.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._rank, self._world_size = group.rank, group.world_size
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(days=365))
        self._leaving = threading.Event()
        self._passed_on = threading.Lock()  # acquired once, by the thread that passes the news on
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with suppress(RuntimeError):
            dist.recv(torch.zeros(1), src=(self._rank - 1) % self._world_size, group=self._group)
        self._pass_on()
        if not self._leaving.wait(GRACE_SECONDS):
            with suppress(OSError, ValueError):
                print(f"repro: {_ended(self._rank)}", file=sys.stderr, flush=True)
            os._exit(ReproError.exit_code)

    def _pass_on(self) -> None:
        if self._passed_on.acquire(blocking=False):
            with suppress(RuntimeError):
                dist.send(torch.zeros(1), dst=(self._rank + 1) % self._world_size, group=self._group)

    def leave(self) -> bool:
        """End the watch; return whether the process group can be destroyed, because no thread uses it."""
        self._leaving.set()
        self._pass_on()
        self._thread.join(GRACE_SECONDS)
        return not self._thread.is_alive()


def _ended(rank: int) -> str:
    return (
        f"rank {rank}: another rank has ended or does not respond, see its message; start all ranks again with --resume"
    )


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the process group that a launcher started, or yield a group of one process.

    If a rank ends, or does not respond within TIMEOUT, the others raise ReproError, or end with its exit code where
    they wait for a GPU. Of all other ReproErrors, and of Stopped, only rank 0's keeps its message, so that it is
    printed once.
    """
    launch = find_launch()
    if launch is None:
        yield SINGLE_PROCESS
        return
    group = ProcessGroup(launch.rank, launch.world_size, launch.local_rank, launch.local_world_size, launch.launcher)
    _init_process_group(launch)
    try:
        with _watched(group):
            yield group
            group.barrier()  # rank 0 may still be writing the weights
    except ReproError as error:
        raise ReproError(str(error) if group.is_main else "") from error
    except Stopped as stop:
        raise Stopped(stop.signal, str(stop) if group.is_main else "") from stop
    except RuntimeError as error:
        if not (isinstance(error, _CollectiveError | dist.DistError) or "gloo" in str(error)):
            raise
        raise ReproError(_ended(group.rank)) from error


def _init_process_group(launch: Launch) -> None:
    os.environ.setdefault("MASTER_ADDR", launch.address)
    os.environ.setdefault("MASTER_PORT", str(launch.port))
    # Signals and messages are CPU tensors, whatever device the net is on.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, rank=launch.rank, world_size=launch.world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReproError(
            f"rank {launch.rank}: cannot join the others at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({reason}): check that all {launch.world_size} are running, or set MASTER_ADDR and MASTER_PORT"
        ) from error


@contextmanager
def _watched(group: ProcessGroup) -> Iterator[None]:
    """Watch the other ranks inside the block; destroy the process group after it.

    Threads of a process group that is not destroyed can abort the interpreter at its exit.
    """
    watch = _Watch(group)
    try:
        yield
    finally:
        if watch.leave():
            dist.destroy_process_group()
