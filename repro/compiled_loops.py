"""Loops that Numba compiles, and what happens where it cannot.

A `CompiledLoop` raises `LoopsUnavailable` where it cannot run, and its caller computes the same with the operators of
torch or NumPy: if Numba is missing or NUMBA_DISABLE_JIT is set, if it fails to compile or to start its threads, and in
a process that was forked from one whose threads had started, because they do not survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch

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
    """A loop that is compiled at its first call, for as many threads as torch uses.

    The machine code is cached on disk for later processes. Where no cache can be written or read, as in a read-only
    installation without a home directory, the loop is compiled anew in each process. `options` are `numba.njit`'s.
    """

    def __init__(self, loop: Callable[..., None], **options: Any) -> None:
        self.loop, self.options = loop, options
        self.compiled: Callable[..., None] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Run the loop. Raises LoopsUnavailable if it cannot be compiled or run in this process."""
        check_loops()
        if self.compiled is not None:
            try:
                _threads.run(self.compiled, *arguments)
                return
            except Exception:  # compiled for arguments of other types, and the new machine code cannot be cached
                self.compiled = None
        self._compile_and_run(*arguments)

    def _compile_and_run(self, *arguments: Any) -> None:
        problem = ""
        for cached in (True, False):
            try:
                compiled = numba.njit(error_model="numpy", cache=cached, **self.options)(self.loop)
                _threads.run(compiled, *arguments)
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
        _threads.disable(f"Numba fails ({problem})")


def compiled_loop(**options: Any) -> Callable[[Callable[..., None]], CompiledLoop]:
    """Return a decorator that makes a loop a `CompiledLoop` with these options of `numba.njit`."""
    return lambda loop: CompiledLoop(loop, **options)


def check_loops() -> None:
    """Raise LoopsUnavailable if compiled loops cannot run in this process."""
    _threads.check()


class _Threads:
    """Numba's threads in this process: whether loops may run on them, and one loop at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # Numba's workqueue layer aborts the process if two threads start loops at once
        self.unavailable = NUMBA_PROBLEM
        self.process: int | None = None  # that has started the threads
        self.asked = False  # for a loop, in this process or the one that it was forked from

    def check(self) -> None:
        """Raise LoopsUnavailable if loops cannot run in this process."""
        self.asked = True
        if self.process not in (None, os.getpid()):
            raise LoopsUnavailable("the threads of the parent process do not survive a fork")
        if self.unavailable:
            self.disable(self.unavailable)

    def run(self, loop: Callable[..., None], *arguments: Any) -> None:
        """Run a compiled loop on as many threads as torch uses."""
        with self.lock:
            self.process = os.getpid()
            numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
            loop(*arguments)

    def disable(self, reason: str) -> None:
        """Raise LoopsUnavailable, now and at every later call."""
        self.unavailable = reason
        note_once(f"{reason}: operators of torch and NumPy replace the compiled loops, and are slower on a CPU")
        raise LoopsUnavailable(reason)


_threads = _Threads()


def _after_fork() -> None:
    """Let torch use a single thread in a forked child: it would wait forever for the parent's, which do not survive."""
    if _threads.asked:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
