"""Executors for `prepare`: this process, processes of this machine, or a Dask cluster.

All three are executors of `concurrent.futures`, so the same function runs on each of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeVar

from repro.errors import ReproError, how_to_install

Task = TypeVar("Task")
Result = TypeVar("Result")

PENDING_PER_WORKER = 3  # submitted tasks per worker: one in progress, one waiting, one being synced to disk
MAX_WINDOWS_WORKERS = 61  # of a ProcessPoolExecutor
CONNECT_SECONDS = 10  # timeout for the Dask scheduler


@dataclass(frozen=True)
class WorkerPool:
    """An executor and its size."""

    executor: Executor
    workers: int  # number of workers
    max_pending: int  # number of tasks to submit before waiting for the first result

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task and the result of `function`, in order; at most `max_pending` tasks are submitted at once."""
        pending: deque[tuple[Task, Future[Result]]] = deque()
        for task in tasks:
            pending.append((task, self.executor.submit(function, task)))
            if len(pending) >= self.max_pending:
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()


@contextmanager
def local_pool(workers: int) -> Iterator[WorkerPool]:
    """Run tasks in `workers` processes of this machine, or, for 1, in this process.

    Raises ReproError if a worker process is killed.
    """
    if workers == 1:
        yield WorkerPool(_InProcessExecutor(), 1, 1)
        return
    workers = min(workers, MAX_WINDOWS_WORKERS) if sys.platform == "win32" else workers
    # Spawned, not forked: the calling process may have threads and locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_initialize_worker)
    try:
        yield WorkerPool(pool, workers, workers * PENDING_PER_WORKER)
    except BrokenProcessPool as error:
        raise ReproError(
            f"a worker process was killed, perhaps because memory ran out: try --workers {workers // 2}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def dask_pool(scheduler: str) -> Iterator[WorkerPool]:
    """Run tasks on the workers of a Dask cluster; `scheduler` is its address, such as tcp://10.0.0.1:8786.

    This package must be installed on the workers, and source and store must have the same paths there. Raises
    ReproError if Dask is not installed, if the scheduler cannot be reached, if the connection is lost, or if a task
    kills several workers.
    """
    try:
        from dask.distributed import Client, KilledWorker
    except ImportError as error:
        raise ReproError(f"--scheduler needs Dask: {how_to_install('dask')}") from error
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        raise ReproError(
            f"no Dask scheduler answers at '{scheduler}' ({reason}): start one, or omit --scheduler"
        ) from error
    with client:
        workers = len(client.nthreads())
        if not workers:
            raise ReproError(f"the Dask scheduler at '{scheduler}' has no workers: start at least one")
        try:
            yield WorkerPool(client.get_executor(), workers, workers * PENDING_PER_WORKER)
        except (CancelledError, KilledWorker) as error:
            reason = " ".join(str(error).split()) or "the connection was lost"
            raise ReproError(f"the Dask cluster at '{scheduler}' has failed ({reason}): restart it") from error


class _InProcessExecutor(Executor):
    """Run each task in this process when it is submitted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def _initialize_worker() -> None:
    """Ignore Ctrl-C, which the main process handles, and exit when the main process exits, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def exit_with_parent() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
