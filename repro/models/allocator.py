"""Keep freed memory in the process, so that new tensors need no fresh pages from the operating system."""

from __future__ import annotations

import ctypes
import sys

# Parameters and limit of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
UNLIMITED = 2**31 - 1


def keep_freed_memory() -> None:
    """Make this process's allocator reuse the memory of freed tensors; without glibc it does nothing.

    By default glibc maps every large tensor's memory anew, and the kernel fills each page with zeros at its first
    use. With reused memory a training step of the small net takes 0.9 of the time, one of the CIFAR-10 nets 0.8
    (benchmarks/README.md); results are bit-identical.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, UNLIMITED)
