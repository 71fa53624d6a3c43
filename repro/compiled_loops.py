"""Loops that Numba compiles, and what happens where it cannot.

A `CompiledLoop` raises `LoopsUnavailable` where it cannot run, and its caller computes the same with the operators of
torch or NumPy: if Numba is missing or NUMBA_DISABLE_JIT is set, if it fails to compile or to start its threads, and,
for parallel loops, in a process that was forked from one whose threads had started, because they do not survive a fork.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from repro.notes import note_once

try:
    import numba
    from numba import prange

    NUMBA_PROBLEM = "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else ""
except ImportError as error:  # it is missing, or refuses the version of NumPy
    prange, NUMBA_PROBLEM = range, f"Numba cannot be imported ({error})"

__all__ = ["CompiledLoop", "LoopsUnavailable", "check_loops", "compiled_loop", "prange"]


class LoopsUnavailable(Exception):
    """Compiled loops cannot run in this process."""


class CompiledLoop:
    """A loop that is compiled at its first call; with `parallel`, for as many threads as torch uses.

    The machine code is cached on disk for later processes. Where no cache can be written or read, as in a read-only
    installation without a home directory, the loop is compiled anew in each process. `options` are `numba.njit`'s.
    """

    def __init__(self, loop: Callable[..., None], parallel: bool = False, **options: Any) -> None:
        self.loop, self.parallel, self.options = loop, parallel, options
        self.compiled: Callable[..., None] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Run the loop. Raises LoopsUnavailable if it cannot be compiled or run in this process."""
        check_loops(self.parallel)
        if self.compiled is not None:
            try:
                self._run(self.compiled, *arguments)
                return
            except Exception:  # compiled for arguments of other types, and the new machine code cannot be cached
                self.compiled = None
        self._compile_and_run(*arguments)

    def _compile_and_run(self, *arguments: Any) -> None:
        problem = ""
        for cached in (True, False):
            try:
                compiled = numba.njit(parallel=self.parallel, error_model="numpy", cache=cached, **self.options)(
                    self.loop
                )
                self._run(compiled, *arguments)
            except Exception as error:  # whatever Numba, its compiler or its threading layer raises
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
                continue
            if not cached:
                note_once(
                    "Numba cannot cache its machine code and compiles it in each process, which takes about a minute: "
                    "set NUMBA_CACHE_DIR to a writable folder"
                )
            self.compiled = compiled
            return
        _disable(f"Numba fails ({problem})")

    def _run(self, compiled: Callable[..., None], *arguments: Any) -> None:
        if self.parallel:
            _threads.run(compiled, *arguments)
        else:
            compiled(*arguments)


def compiled_loop(parallel: bool = False, **options: Any) -> Callable[[Callable[..., None]], CompiledLoop]:
    """Return a decorator that makes a loop a `CompiledLoop` with these options of `numba.njit`."""
    return lambda loop: CompiledLoop(loop, parallel, **options)


def check_loops(parallel: bool = True) -> None:
    """Raise LoopsUnavailable if compiled loops cannot run in this process."""
    if parallel:
        _threads.check()
    if _problem:
        _disable(_problem)


_problem = NUMBA_PROBLEM  # why loops cannot run; empty if they can


def _disable(reason: str) -> None:
    """Raise LoopsUnavailable, now and whenever a loop is called later."""
    global _problem
    _problem = reason
    note_once(f"{reason}: operators of torch and NumPy replace the compiled loops, and are slower on a CPU")
    raise LoopsUnavailable(reason)


class _Threads:
    """Numba's threads in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # Numba's workqueue layer aborts the process if two threads start loops at once
        self.process: int | None = None  # that has started the threads
        self.asked = False  # for a parallel loop, in this process or the one that it was forked from

    def check(self) -> None:
        """Raise LoopsUnavailable in a process that was forked from one whose threads had started."""
        self.asked = True
        if self.process not in (None, os.getpid()):
            raise LoopsUnavailable("the threads of the parent process do not survive a fork")

    def run(self, compiled: Callable[..., None], *arguments: Any) -> None:
        """Run a compiled loop on as many threads as torch uses."""
        import torch  # slow to import, and loaded already where there are parallel loops

        with self.lock:
            self.process = os.getpid()
            threads = torch.get_num_threads()
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            try:
                compiled(*arguments)
            finally:
                # When Numba's OpenMP layer starts its threads, all of OpenMP uses as many from then on, torch included.
                if torch.get_num_threads() != threads:
                    torch.set_num_threads(threads)


_threads = _Threads()


def _after_fork() -> None:
    """Let torch use a single thread in a forked child: it would wait forever for the parent's, which do not survive."""
    if _threads.asked and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
