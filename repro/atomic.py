"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from repro.errors import ReproError

# What file systems without fsync answer: some network and shared folders refuse it for folders.
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
RECORD_BYTES = 1 << 17  # of the record of a net with 1,000 classes, rounded up


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash at any moment leaves either the old file or the new one.

    A device or a pipe is written to, and never replaced. Raises ReproError with the system's reason (no space left, no
    permission, …); the previous file is then unchanged.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_through(path, content)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            sync(file)
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(partial)
        raise ReproError(f"cannot write '{path}': {error.strerror}; no partial file was left") from error
    except BaseException:  # stopped by a signal
        _remove(partial)
        raise


def _write_through(path: Path, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise ReproError(f"cannot write '{path}': {error.strerror}") from error


def _remove(partial: Path) -> None:
    with suppress(OSError):  # it may not exist, and a disk that has become read-only keeps it
        partial.unlink()


def make_folder(path: Path, parents: bool = False) -> None:
    """Create the folder `path` durably, with missing `parents` if asked. Raises ReproError with the system's reason."""
    try:
        path.mkdir(parents=parents, exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ReproError(f"cannot create the folder '{path}': {error.strerror}") from error


def check_writable(folder: Path, what: str, size: int = RECORD_BYTES) -> None:
    """Raise ReproError if files of `size` bytes in all cannot be written to `folder`; call it before long work.

    `what` names them in the message, such as "the evaluation".
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file, size)
    except OSError as error:
        raise ReproError(f"cannot write {what} to '{folder}': {error.strerror}") from error


def check_file(path: Path) -> None:
    """Raise ReproError if `write` cannot write the file `path`; call it before long work."""
    if path.is_dir():
        raise ReproError(f"'{path}' is a folder: name a file")
    if path.is_file() or not path.exists():  # the folder of a device need not be writable
        check_writable(path.parent, f"'{path.name}'")


def reserve(file: IO[bytes], size: int) -> None:
    """Reserve the first `size` bytes of a file on its disk, if the system can. Raises OSError if they are not free."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document as `write` does; NaN and infinity raise ValueError, because JSON has neither.

    Bytes of file names that are not UTF-8, which Python reads as surrogates, are escaped and read back as the same.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write(path, text.encode(errors="backslashreplace"))  # \udcff, which is the escape of JSON too


def sync(file: IO[Any]) -> None:
    """Flush an open file to the disk, where the file system supports it."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, so that a rename survives a power cut.

    Does nothing where the system or the file system does not support it (Windows, CIFS, some shared folders).
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder; elsewhere a folder may be writable, but not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)
