"""Batches that are read ahead of their use: by threads, into a ring of reused buffers, in a fixed order.

While a step computes, threads read the images of the next batches. Which images these are is known in advance, so
neither the number of threads nor their speed changes a batch. Threads suffice, because they wait for the disk, copy or
decode without holding Python's global lock.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.data.store import Split
from repro.processors import available_processors

AHEAD = 3  # batches that are read ahead of the one in use
RING_BYTES = 2**28  # of all buffers; two batches are held in any case
THREADS = 8  # they mostly wait for the disk, which is fastest with several reads at a time
CHUNK_BYTES = 2**22  # of pixels that a thread reads at a time; in smaller parts, threads wait for each other
ALIGNMENT = 16  # bytes, of each column behind the images
POLL_SECONDS = 0.2  # after which a waiting main thread sees a signal on Windows
THREAD_NAME = "batch reader"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Request:
    """A batch to read.

    Attributes:
        index: positions in the split, int64 [B].
        columns: small arrays with a row for each image, such as labels, that go to the device with the images.
    """

    index: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """A batch on its device, valid until the next one is requested.

    Attributes:
        images: uint8 [B, S, S, 3].
        columns: the columns of its request.
    """

    images: Tensor
    columns: dict[str, Tensor]


def read_ahead(
    split: Split, requests: Iterable[Request], devices: Sequence[torch.device] = (CPU,)
) -> Generator[Batch, None, None]:
    """Yield the batches of `requests`, in that order, on `devices` in turn, while threads read the next ones.

    Up to `AHEAD` batches are read ahead, fewer if the buffers would take more than `RING_BYTES`. `requests` is
    iterated by the caller's thread, as far as is read ahead. Images and columns are copied to a CUDA device together,
    from page-locked memory and on a separate stream, so that the copy overlaps with computation.

    The error of a batch, such as the ReproError for a damaged file, is raised in place of the batch. The threads end
    with the generator: when it is exhausted, fails, is closed, or is no longer referenced. In a forked child process,
    which has no such threads, batches are read when they are requested.
    """
    with contextlib.closing(_Reader(split, requests, any(device.type == "cuda" for device in devices))) as reader:
        targets = cycle([_Target(device) for device in devices])

        def start() -> _Copy | None:
            slot = reader.next()
            return _Copy(slot, next(targets)) if slot else None

        copy = start()
        while copy:
            ahead = start() if reader.ready() else None
            yield copy.batch()
            copy.finish()
            reader.reuse(copy.slot)
            copy = ahead or start()


class _Target:
    """A device with a stream for copies to it, if it has streams."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Copy:
    """The copy of a batch to a device: to a CUDA device it runs beside the computations there."""

    def __init__(self, slot: _Slot, target: _Target) -> None:
        self.slot, self.target = slot, target
        if target.stream:
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(target.stream):
                self.packed = slot.pack().to(target.device, non_blocking=True)
                self.copied.record(target.stream)

    def batch(self) -> Batch:
        """Return the batch; the current stream of a CUDA device waits for the copy."""
        device = self.target.device
        if not self.target.stream:
            columns = {name: torch.from_numpy(each).to(device) for name, each in self.slot.request.columns.items()}
            return Batch(torch.from_numpy(self.slot.images).to(device), columns)
        current = torch.cuda.current_stream(device)
        current.wait_event(self.copied)
        self.packed.record_stream(current)  # its memory is not reused before the stream is done with it
        return self.slot.unpack(self.packed)

    def finish(self) -> None:
        """Wait until the buffer is no longer read, usually not at all."""
        if self.target.stream:
            self.copied.synchronize()


class _Reader:
    """Threads that read the batches of `requests`, and the ring of buffers that they read into."""

    def __init__(self, split: Split, requests: Iterable[Request], pinned: bool) -> None:
        self._split, self._requests, self._pinned = split, iter(requests), pinned
        self._slots, self._most_slots = 0, 1  # the number of buffers, and its limit
        self._free: list[_Slot] = []
        self._waiting: deque[_Slot] = deque()  # being read or already read, in order
        self._tasks: SimpleQueue[tuple[_Slot, int, int] | None] = SimpleQueue()
        self._stop = threading.Event()
        self._copying = threading.Semaphore(available_processors())  # more threads would only wait for each other
        self._threads: list[threading.Thread] = []

    def next(self) -> _Slot | None:
        """Return the next batch once it is read, or None after the last one. Raises the error of reading it."""
        if not self._slots:
            self._start_reading()
        if not self._waiting:
            return None
        slot = self._waiting.popleft()
        if not any(thread.is_alive() for thread in self._threads):  # in a forked child
            self._split.read(slot.request.index, slot.images)
            return slot
        while not slot.done.wait(POLL_SECONDS):
            pass
        if slot.error:
            error, slot.error = slot.error, None
            raise error
        return slot

    def ready(self) -> bool:
        """Return whether `next` would return a batch without waiting."""
        return bool(self._waiting) and self._waiting[0].done.is_set() and not self._waiting[0].error

    def reuse(self, slot: _Slot) -> None:
        """Take back the buffer of a batch that is no longer needed, and start to read another one into it."""
        self._free.append(slot)
        self._start_reading()

    def close(self) -> None:
        """End the threads, each after the chunk that it is reading."""
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _start_reading(self) -> None:
        """Give batches to the threads as long as there are requests and buffers."""
        while self._free or self._slots < self._most_slots:
            request = next(self._requests, None)
            if request is None:
                return
            if not self._slots:
                self._start(request)
            if not self._free:
                self._free.append(_Slot())
                self._slots += 1
            slot = self._free.pop()
            chunk = max(1, CHUNK_BYTES // (3 * self._split.size**2))
            starts = range(0, len(request.index), chunk)
            slot.begin(request, self._split.size, len(starts), self._pinned)
            self._waiting.append(slot)
            for start in starts:
                self._tasks.put((slot, start, start + chunk))

    def _start(self, first: Request) -> None:
        """Start the threads, and limit the number of buffers by the size of the first batch."""
        batch_bytes = max(1, 3 * len(first.index) * self._split.size**2)
        self._most_slots = max(2, min(AHEAD + 1, RING_BYTES // batch_bytes))
        for _ in range(min(THREADS, available_processors()) if self._split.compressed else THREADS):
            # Daemons: a read that never returns, on a network file system, does not keep the process from ending.
            arguments = (self._split, self._tasks, self._stop, self._copying)
            thread = threading.Thread(target=_work, args=arguments, name=THREAD_NAME, daemon=True)
            thread.start()
            self._threads.append(thread)


def _work(
    split: Split,
    tasks: SimpleQueue[tuple[_Slot, int, int] | None],
    stop: threading.Event,
    copying: threading.Semaphore,
) -> None:
    """Read chunks of batches until there is a None, or without reading them once `stop` is set."""
    while task := tasks.get():
        if not stop.is_set():
            slot, start, end = task
            slot.read(split, start, end, copying)


class _Slot:
    """A buffer with the batch that is read into it: the images, and space for the columns behind them."""

    def __init__(self) -> None:
        self.request = Request(np.empty(0, np.int64))
        self.images = np.empty((0, 0, 0, 3), np.uint8)
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._columns: dict[str, slice] = {}  # bytes of the buffer
        self._bytes = 0
        self._chunks, self._lock = 0, threading.Lock()

    def begin(self, request: Request, size: int, chunks: int, pinned: bool) -> None:
        """Make space for the batch of `request`, whose images of `size` pixels are read in `chunks` parts."""
        shape = (len(request.index), size, size, 3)
        end = image_bytes = math.prod(shape)
        self._columns = {}
        for name, column in request.columns.items():
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + column.nbytes
            self._columns[name] = slice(start, end)
        if len(self._buffer) < end:
            self._buffer = torch.empty(end, dtype=torch.uint8, pin_memory=pinned)
        self.images = self._buffer[:image_bytes].numpy().reshape(shape)
        self.request, self._bytes, self._chunks = request, end, chunks
        self.done.clear()
        if not chunks:
            self.done.set()

    def read(self, split: Split, start: int, end: int, copying: threading.Semaphore) -> None:
        """Read a part of the images; after the last part, `done` is set. What is in memory is copied in `copying`."""
        index, images = self.request.index[start:end], self.images[start:end]
        try:
            with copying:
                remaining = split.read_cached(index, images)
            for rows in remaining:
                split.read(index[rows], images[rows])
        except BaseException as error:  # raised again where the batch is requested
            self.error = error
        with self._lock:
            self._chunks -= 1
            if not self._chunks:
                self.done.set()

    def pack(self) -> Tensor:
        """Copy the columns behind the images; return the bytes of both, a part of the buffer."""
        content = self._buffer.numpy()
        for name, column in self.request.columns.items():
            content[self._columns[name]] = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
        return self._buffer[: self._bytes]

    def unpack(self, packed: Tensor) -> Batch:
        """Return the batch in a copy of `pack`'s bytes."""
        columns = {
            name: packed[self._columns[name]].view(torch.from_numpy(column[:0]).dtype).view(column.shape)
            for name, column in self.request.columns.items()
        }
        return Batch(packed[: self.images.size].view(self.images.shape), columns)
