"""Freed memory is kept for the next tensors instead of being given back to the system."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have this process's allocator reuse the memory of freed tensors; does nothing but with glibc.

    By default glibc gets every large tensor's memory anew from the system, page by page, and each page is filled
    with zeros at its first touch. Kept, a training step of the small net takes 0.9 of the time, one of the
    CIFAR-10 nets 0.8 (benchmarks/README.md); results are the same to the bit.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, NEVER)
