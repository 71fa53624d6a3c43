"""Exclusive locks between processes, as files."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from repro.errors import ReproError

# What file systems that have no locks answer: some NFS and SMB mounts, and some FUSE ones.
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def warn(note: str) -> None:
    """Issue `note` as a RuntimeWarning."""
    warnings.warn(note, RuntimeWarning, stacklevel=2)


@contextmanager
def exclusive(path: Path, busy: str, on_note: Callable[[str], None] = warn) -> Iterator[None]:
    """Hold the lock file `path` within the context, without waiting for it; the file is created and stays.

    Raises ReproError with the message `busy` if another process holds it, and with the system's reason if the file
    cannot be created. On a file system without locks, `on_note` receives a line that says so, and nothing is locked.
    """
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ReproError(busy) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise ReproError(f"cannot lock '{path}': {error.strerror}") from error
        reason = os.strerror(error.errno)
        on_note(f"the file system of '{path}' has no locks ({reason}): do not run this command twice at the same time")
    try:
        yield
    finally:
        lock.release()
