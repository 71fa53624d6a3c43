"""Files in object stores (`s3://`, `gs://`, …), read in place by ranges of bytes, through fsspec.

Credentials, endpoints and regions are those that the libraries behind fsspec find in the environment and in their
configuration files. Every error of reading is an OSError with a reason in one line, as for local files.
"""

from __future__ import annotations

import errno
import io
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from repro.errors import ReproError, how_to_install

T = TypeVar("T")

URL = re.compile(r"([a-z][a-z0-9+.-]+):[/\\]+(.*)", re.IGNORECASE | re.DOTALL)  # drives have one letter
SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "memory")
ATTEMPTS = 4  # at reading a range
FIRST_WAIT_SECONDS = 0.5  # doubled before each further attempt
BUFFER_BYTES = 2**16  # read at least: several small headers at once, but not the images between them


def url_of(path: str | Path) -> str | None:
    """Return the URL that a path spells; None for a local path.

    `Path` reduces the two slashes of a URL to one, or to a backslash on Windows; they are restored.
    """
    found = URL.match(str(path))
    return f"{found[1].lower()}://{found[2]}".replace("\\", "/") if found else None


def remote_url(path: str | Path) -> str | None:
    """Return the URL of a file or folder in an object store; None for any other path."""
    url = url_of(path)
    return url if url and url.partition(":")[0] in SCHEMES else None


def locate(path: str | Path) -> Path:
    """Return the object that reads `path`: itself if it is local, or one with the methods of `Path` for a remote one.

    `file://` URLs are local. Raises ReproError if a package is missing.
    """
    url = url_of(path)
    if url and url.startswith("file://"):
        local = url.removeprefix("file://").lstrip("/")
        return Path(local if re.match(r"[a-zA-Z]:", local) else f"/{local}")
    if not remote_url(path):
        return Path(path)
    _file_system(str(url))
    try:
        from upath import UPath
    except ImportError as error:
        raise _missing(str(url), error) from error
    return cast(Path, UPath(url))


def _missing(url: str, error: ImportError) -> ReproError:
    reason = " ".join(str(error).split())
    return ReproError(f"'{url}' cannot be read without further packages ({reason}): {how_to_install('remote')}")


def _file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it. Raises ReproError if a package is missing."""
    try:
        import fsspec.core

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise _missing(url, error) from error
    except Exception as error:
        raise _as_os_error(error) from error
    return system, path


def _as_os_error(error: Exception) -> OSError:
    """Return an error of a file system or of the library behind it as an OSError with a reason in one line."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object")
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, " ".join(str(error).split()) or "access denied")
    reason = " ".join(str(error).split())
    return OSError(errno.EIO, f"{type(error).__name__}: {reason}" if reason else type(error).__name__)


def _call(function: Callable[[], T]) -> T:
    """Return the result of `function`, tried several times; a missing object or a missing permission is final."""
    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return function()
        except Exception as error:
            final = isinstance(error, FileNotFoundError | PermissionError) or "Credentials" in type(error).__name__
            if final or attempt == ATTEMPTS:
                raise _as_os_error(error) from error
            time.sleep(wait)
            wait *= 2
    raise AssertionError


def information(url: str) -> dict[str, Any]:
    """Return fsspec's description of a file or folder: `type` (file or directory), `size`, and more. Raises OSError."""
    system, path = _file_system(url)
    described: dict[str, Any] = _call(lambda: system.info(path))
    return described


def listing(url: str) -> list[dict[str, Any]]:
    """Return the descriptions of what is in a folder, with the last part of the path as `name`. Raises OSError."""
    system, path = _file_system(url)
    entries = _call(lambda: system.ls(path, detail=True))
    paths = [(str(entry["name"]).strip("/"), entry) for entry in entries]
    # Some stores list the folder itself, as an empty object; a folder in it may have the same last part.
    return [{**entry, "name": name.rpartition("/")[2]} for name, entry in paths if name and name != path.strip("/")]


def lengths(url: str) -> dict[str, int]:
    """Return the length of every file below a folder, by its path relative to it. Raises OSError."""
    system, path = _file_system(url)
    found = _call(lambda: system.find(path, detail=True))
    root = f"{path.strip('/')}/"
    return {str(name).strip("/").removeprefix(root): int(entry["size"]) for name, entry in found.items()}


def read_range(url: str, offset: int, length: int) -> bytes:
    """Return up to `length` bytes of a file from `offset` on, fewer at its end. Raises OSError."""
    if length <= 0:
        return b""
    system, path = _file_system(url)
    content: bytes = _call(lambda: system.cat_file(path, start=offset, end=offset + length))
    return content


def version_of(described: dict[str, Any]) -> str:
    """Return what changes with the content of a file: its length, and its checksum or time of modification."""
    names = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "mtime", "created")
    return f"{described.get('size')} {next((str(described[name]) for name in names if described.get(name)), '')}"


@lru_cache(maxsize=4096)
def identity(url: str) -> str:
    """Return the URL and the version of a file, looked up once in each process. Raises OSError."""
    return f"{url} {version_of(information(url))}"


class RangeFile(io.RawIOBase):
    """A remote file that is open for reading; each read fetches the range that it needs."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._position = url, 0
        self._size = int(information(url)["size"])

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, target: Any) -> int:
        """Read as many bytes as fit into `target`; return how many there are."""
        content = read_range(self._url, self._position, min(len(target), self._size - self._position))
        target[: len(content)] = content
        self._position += len(content)
        return len(content)


class RemoteSharedFile:
    """A remote file that several threads read at once, each at its own position, as `SharedFile` for a local one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read_cached_into(self, target: memoryview, offset: int) -> bool:
        """Return False: nothing is kept in memory."""
        return False

    def read_into(self, target: memoryview, offset: int) -> int:
        """Fill `target` with the bytes from `offset` on; return how many there are, fewer where the file ends."""
        content = read_range(self._url, offset, len(target))
        target[: len(content)] = content
        return len(content)


def open_binary(path: str | Path, buffer_bytes: int = BUFFER_BYTES) -> IO[bytes]:
    """Open a local or remote file for reading; of a remote one, at least `buffer_bytes` are read at once."""
    if url := remote_url(path):
        return io.BufferedReader(RangeFile(url), buffer_bytes)
    return open(path, "rb", buffering=0)


def read_bytes(path: Path) -> bytes:
    """Return the content of a local or remote file. Raises OSError."""
    if url := remote_url(path):
        return read_range(url, 0, int(information(url)["size"]))
    return path.read_bytes()
