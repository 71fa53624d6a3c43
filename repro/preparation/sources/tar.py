"""Images inside tar archives, nested ones included, located by their headers and never unpacked.

An archive is untrusted input. Only regular files are read; links, devices and sparse files are refused, and so are
names that are absolute, contain `..`, repeat or are not UTF-8, archives that end early, and bytes after the end.
Errors name the archive, the member and the byte. Nothing is ever written under a name from an archive.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from repro.errors import ReproError
from repro.preparation.sources.source import OnFile, file_identity, ignore_file

BLOCK = tarfile.BLOCKSIZE  # 512: headers and members begin at multiples of it
LONGEST_HEADER = 1 << 16  # bytes of an extended header: far more than any file system's longest path


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive: its name, and the position of its bytes in the outermost file."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Archive:
    """A tar archive: a file, or a member of an archive that is itself an archive."""

    path: Path
    start: int
    end: int
    inside: str = ""  # the member's name, for messages
    on_file: OnFile = ignore_file

    @classmethod
    def file(cls, path: Path, on_file: OnFile = ignore_file) -> Archive:
        """Return the archive that fills a file. Raises ReproError if it cannot be read."""
        try:
            return cls(path, 0, path.stat().st_size, on_file=on_file)
        except OSError as error:
            raise ReproError(f"cannot read the archive '{path}': {error.strerror}") from error

    def within(self, member: Member) -> Archive:
        """Return the archive that is a member of this one."""
        return Archive(self.path, member.offset, member.offset + member.size, member.name, self.on_file)

    def members(self) -> Iterator[Member]:
        """Yield the regular files in archive order. Only headers are read.

        Raises ReproError where the archive is damaged, truncated, or holds anything but regular files and folders.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                yield from self._members(file)
        except OSError as error:
            raise ReproError(f"cannot read the archive '{self.path}': {error.strerror}") from error

    def _members(self, file: BinaryIO) -> Iterator[Member]:
        at = self.start
        seen: set[str] = set()
        extended: dict[str, str] = {}  # fields of an extended header, for the next member
        after = ""  # the member before, for messages
        while True:
            block = self._read(file, at, BLOCK, f"a header should follow{after}")
            if block == bytes(BLOCK):
                if extended:
                    raise self._error(at, "the archive ends after an extended header")
                self._check_end(file, at, after)
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except UnicodeDecodeError as error:
                raise self._error(at, f"a name is not UTF-8 ({error.object[:100]!r})") from error
            except tarfile.HeaderError as error:
                raise self._error(at, f"not the header of a member ({error})") from error
            name, size = extended.pop("path", info.name), info.size
            if "size" in extended:
                size = _number(extended.pop("size"))
            data, following = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
            if size < 0 or data + size > self.end:
                raise self._error(
                    at,
                    f"member '{_shown(name)}' has {size} bytes, {self.end - data} are left: the archive is truncated",
                )
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
                if size > LONGEST_HEADER:
                    raise self._error(at, f"an extended header of {size} bytes")
                extended = self._extended(at, info.type, self._read(file, data, size, "its contents should follow"))
            elif info.type == tarfile.DIRTYPE:
                if name not in (".", "./"):
                    self._check_name(at, name)
                extended = {}
            elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
                self._check_name(at, name)
                if name in seen:
                    raise self._error(at, f"member '{_shown(name)}' occurs twice")
                seen.add(name)
                extended = {}
                self.on_file()
                yield Member(name, data, size)
            else:
                kind = KINDS.get(info.type, f"of unknown kind {info.type!r}")
                raise self._error(at, f"member '{_shown(name)}' is {kind}; only regular files are read")
            at, after = following, f" member '{_shown(name)}'"

    def _extended(self, at: int, kind: bytes, content: bytes) -> dict[str, str]:
        try:
            if kind == tarfile.GNUTYPE_LONGNAME:
                return {"path": content.rstrip(b"\0").decode()}
            if kind == tarfile.XGLTYPE:
                return {}  # about the archive as a whole
            records = {}
            while content:
                length = _number(content.split(b" ", 1)[0].decode())
                if not 4 <= length <= len(content) or content[length - 1 : length] != b"\n":
                    raise ValueError("records of wrong lengths")
                key, separator, value = content[:length].split(b" ", 1)[1][:-1].decode().partition("=")
                if not separator or key.startswith("GNU.sparse") or (key == "size" and _number(value) < 0):
                    raise ValueError(f"'{_shown(key)}'")
                records[key] = value
                content = content[length:]
            return {key: value for key, value in records.items() if key in ("path", "size")}
        except ValueError as error:  # UnicodeDecodeError too
            raise self._error(at, f"an extended header that cannot be read ({error})") from error

    def _check_name(self, at: int, name: str) -> None:
        parts = name.removeprefix("./").rstrip("/").split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or not name.isprintable():
            raise self._error(at, f"member '{_shown(name)}' has an unsafe name")

    def _check_end(self, file: BinaryIO, at: int, after: str) -> None:
        """Check that two blocks of zeros end the archive; more zeros may fill its last record."""
        if self.end - at < 2 * BLOCK:
            raise self._error(at, f"half of the end mark should follow{after}, and the archive is truncated")
        file.seek(at)
        while at < self.end:
            content = file.read(min(self.end - at, 1 << 20))
            if content.count(0) < len(content):
                raise self._error(at, "there are bytes after the end of the archive")
            if not content:
                raise self._error(at, "the file ends early")
            at += len(content)

    def _read(self, file: BinaryIO, at: int, size: int, what: str) -> bytes:
        if at + size > self.end:
            raise self._error(at, f"{what}, and the archive is truncated")
        file.seek(at)
        content = file.read(size)
        if len(content) < size:
            raise self._error(at, "the file ends early")
        return content

    def _error(self, at: int, what: str) -> ReproError:
        where = f"'{self.path}'" + (f", in its member '{_shown(self.inside)}'" if self.inside else "")
        return ReproError(f"{where}, byte {at:,}: {what}; fetch the archive again")


KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_LONGLINK: "a link",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True, slots=True)
class TarReference:
    """An image in an archive, read with one seek."""

    file: str
    offset: int
    size: int
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the archive, and the position of the image in it."""
        return f"{file_identity(self.file)} {self.offset} {self.size}"

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError."""
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"'{self.file}' is shorter than when it was listed")
        return content


@dataclass(frozen=True)
class Block:
    """The images of one class in one archive, sorted by name, in 36 bytes and a short name each."""

    file: str
    label: int
    folder: str  # prefix of each name
    names: bytes  # joined by newlines, which no name contains
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, archive: Archive, label: int, folder: str, members: Iterable[Member]) -> Block:
        """Create the block of `members`, named by their file names. Raises ReproError if two are equal."""
        found = sorted((_last(member.name), member.offset, member.size) for member in members)
        for one, other in pairwise(found):
            if one[0] == other[0]:
                raise ReproError(f"'{archive.path}' has two images '{folder}/{one[0]}'; fetch the archive again")
        names, offsets, sizes = zip(*found, strict=True) if found else ((), (), ())
        return cls(
            str(archive.path), label, folder, "\n".join(names).encode(), np.array(offsets, np.int64),
            np.array(sizes, np.int64),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.offsets)

    def references(self, start: int, stop: int) -> list[TarReference]:
        """Create references to the images from `start` to `stop`."""
        names = self.names.decode().split("\n")[start:stop]
        located = zip(self.offsets[start:stop].tolist(), self.sizes[start:stop].tolist(), names, strict=True)
        return [
            TarReference(self.file, offset, size, f"{self.folder}/{name}", self.label) for offset, size, name in located
        ]


class Blocks(Sequence[TarReference]):
    """The images of many blocks in sequence. References are created on access, so that 15 million images fit."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = [block for block in blocks if len(block)]
        self._ends = np.cumsum([len(block) for block in self._blocks], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._blocks else 0

    @overload
    def __getitem__(self, index: int) -> TarReference: ...
    @overload
    def __getitem__(self, index: slice) -> list[TarReference]: ...
    def __getitem__(self, index: int | slice) -> TarReference | list[TarReference]:
        if isinstance(index, int):
            return self[range(len(self))[index] :][0] if index < 0 else self._slice(index, index + 1)[0]
        start, stop, step = index.indices(len(self))
        return self._slice(start, stop)[::step]

    def __iter__(self) -> Iterator[TarReference]:
        for block in self._blocks:
            yield from block.references(0, len(block))

    def _slice(self, start: int, stop: int) -> list[TarReference]:
        found: list[TarReference] = []
        if start >= stop:
            return found
        for number in range(int(np.searchsorted(self._ends, start, side="right")), len(self._blocks)):
            block = self._blocks[number]
            first = int(self._ends[number]) - len(block)
            if first >= stop:
                break
            found += block.references(max(start - first, 0), min(stop - first, len(block)))
        return found


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"'{_shown(text)}' is not a number")
    return int(text)


def _shown(text: str) -> str:
    """At most 100 characters on one line."""
    return "".join(c if c.isprintable() else "�" for c in text[:100])
