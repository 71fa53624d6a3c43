"""Files that several threads read at once, each at its own position, with a limit on how many are open."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

MOST_OPEN = 4096  # files of a split that stay open


class SharedFile:
    """A file open for reading by any number of threads. It is closed when the object is no longer used.

    The system is asked not to read ahead: images are read in random order, and whole.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # of the file's position, where reads share it
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        advise = getattr(os, "posix_fadvise", None)  # not on macOS and Windows
        if advise:
            advise(self._descriptor, 0, 0, getattr(os, "POSIX_FADV_RANDOM"))  # noqa: B009

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_cached_into(self, target: memoryview, offset: int) -> bool:
        """Fill `target` with the bytes from `offset` on if all of them are in memory, which Linux can tell."""
        read_at, without_waiting = getattr(os, "preadv", None), getattr(os, "RWF_NOWAIT", None)
        if not read_at or without_waiting is None:
            return False
        try:
            return bool(read_at(self._descriptor, [target], offset, without_waiting) == len(target))
        except OSError:  # not in memory, or the file system cannot tell
            return False

    def read_into(self, target: memoryview, offset: int) -> int:
        """Fill `target` with the bytes from `offset` on; return how many there are, fewer where the file ends."""
        done = 0
        while done < len(target):
            count = self._read_once(target[done:], offset + done)
            if not count:
                break
            done += count
        return done

    def _read_once(self, target: memoryview, offset: int) -> int:
        read_at: Callable[[int, list[memoryview], int], int] | None = getattr(os, "preadv", None)
        if read_at:
            return read_at(self._descriptor, [target], offset)
        with self._lock:  # Windows has no positional reads
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            content = os.read(self._descriptor, len(target))
        target[: len(content)] = content
        return len(content)


def files_to_keep_open() -> int:
    """Return how many files of a split may stay open: a quarter of what this process may open, at most 4096."""
    few = MOST_OPEN // 16
    if sys.platform == "win32":
        return few
    try:
        import resource
    except ImportError:
        return few
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if limit == resource.RLIM_INFINITY else min(limit // 4, MOST_OPEN)
