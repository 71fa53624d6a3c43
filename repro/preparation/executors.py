"""Who does the work of `prepare`: this process, processes of this machine, or a Dask cluster.

All three are executors of `concurrent.futures`, so the work is the same function whoever does it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from repro.errors import ReproError

AHEAD = 3  # tasks in hand for each worker: one being done, one waiting, one on its way to the disk
SECONDS = 10  # to wait for a scheduler


@dataclass(frozen=True)
class WorkerPool:
    """An executor, how many work for it, and how many tasks to have in hand."""

    executor: Executor
    workers: int
    ahead: int


@contextmanager
def local_pool(workers: int) -> Iterator[WorkerPool]:
    """`workers` processes of this machine; for one, this process. Raises ReproError if one is killed."""
    if workers == 1:
        yield WorkerPool(_AtOnce(), 1, 1)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_follow)
    try:
        yield WorkerPool(pool, workers, workers * AHEAD)
    except BrokenProcessPool as error:
        raise ReproError(f"a worker was killed, perhaps for want of memory: try --workers {workers // 2}") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def dask_pool(scheduler: str) -> Iterator[WorkerPool]:
    """The workers of the Dask cluster whose scheduler is at an address such as tcp://10.0.0.1:8786.

    They must have this package, and see source and store under the same paths. Raises ReproError if Dask is not
    installed, if nobody answers, or if the scheduler is lost or the same work kills worker after worker.
    """
    try:
        from dask.distributed import Client, KilledWorker
    except ImportError as error:
        raise ReproError("--scheduler needs Dask: install it with pip install 'repro[dask]'") from error
    try:
        client = Client(scheduler, timeout=SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        raise ReproError(
            f"no Dask scheduler answers at '{scheduler}' ({reason}): start one, or leave it out"
        ) from error
    with client:
        workers = len(client.nthreads())
        if not workers:
            raise ReproError(f"the Dask scheduler at '{scheduler}' has no workers: start some")
        try:
            yield WorkerPool(client.get_executor(), workers, workers * AHEAD)
        except (CancelledError, KilledWorker) as error:
            reason = " ".join(str(error).split()) or "the connection was lost"
            raise ReproError(f"the Dask cluster at '{scheduler}' has failed ({reason}): start it again") from error


class _AtOnce(Executor):
    """Does what it is given before it answers."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def _follow() -> None:
    """Leave stopping to the main process: Ctrl-C reaches it too. And end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
