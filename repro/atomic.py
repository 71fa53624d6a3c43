"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from repro.errors import ReproError


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a crash at any moment leaves the old file or the new one, never a part.

    Raises ReproError with the system's reason (no space left, no permission, …); what was there is then whole.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            sync(file)
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # it need not be there, and a disk that has become read-only keeps it
            partial.unlink()
        raise ReproError(f"cannot write '{path}': {error.strerror}; nothing there is half-written") from error


def make_folder(path: Path) -> None:
    """Have the folder `path` on the disk, and all that its parent lists. Raises ReproError with the system's reason."""
    try:
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ReproError(f"cannot make the folder '{path}': {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    """`write` for a JSON document; NaN is refused, for no other reader accepts it."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def sync(file: IO[Any]) -> None:
    """Have what was written to an open file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the folder's list of names on the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
