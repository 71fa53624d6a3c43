"""Images inside tar archives, nested ones included, located by their headers and never unpacked.

An archive is untrusted input. Only regular files are read; links, devices and sparse files are refused, and so are
names that are absolute, contain `..`, repeat or are not UTF-8, archives that end early, and bytes after the end.
Errors name the archive, the member and the byte. Nothing is ever written under a name from an archive.

A compressed archive (gzip, bzip2, xz) is read too, as a stream: quickly in the order of the archive, while going back
starts again from its beginning. Positions are those of the uncompressed bytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from repro.errors import ReproError
from repro.preparation.formats import HEAD, Skipped, archive_format, is_image, is_system
from repro.preparation.sources.source import ImageReference, OnFile, file_identity, ignore_file
from repro.preparation.sources.tree import LARGEST_TEXT, ArchiveTree, Node
from repro.remote import open_binary, read_range, remote_url

BLOCK = tarfile.BLOCKSIZE  # 512: headers and members begin at multiples of it
LONGEST_HEADER = 1 << 16  # bytes of an extended header: far more than any file system's longest path
UNKNOWN = 1 << 62  # the end of a compressed archive, before it has been read
# Characters that are no part of a name; others that cannot be seen, as the narrow space in macOS's screenshots, may be.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
BAD_STREAM = (EOFError, zlib.error, lzma.LZMAError)  # and OSError: what reading a damaged compressed file raises
STREAM_BYTES = 1 << 23  # of a compressed remote archive that are fetched at once
OPEN: dict[str, Callable[[str | IO[bytes]], IO[bytes]]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}  # type: ignore[dict-item]


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
    compression: str = ""  # gzip, bzip2 or xz

    @classmethod
    def file(cls, path: Path, on_file: OnFile = ignore_file) -> Archive:
        """Return the archive that fills a file. Raises ReproError if it cannot be read."""
        try:
            with open_binary(path) as file:
                compression = archive_format(file.read(HEAD))
                compression = compression if compression in OPEN else ""
                end = UNKNOWN if compression else file.seek(0, os.SEEK_END)
            return cls(path, 0, end, on_file=on_file, compression=compression)
        except OSError as error:
            raise ReproError(f"cannot read the archive '{path}': {error.strerror}") from error

    def within(self, member: Member) -> Archive:
        """Return the archive that is a member of this one."""
        return replace(self, start=member.offset, end=member.offset + member.size, inside=member.name)

    def members(self) -> Iterator[Member]:
        """Yield the regular files in archive order. Only headers are read.

        Raises ReproError where the archive is damaged, truncated, or holds anything but regular files and folders.
        """
        try:
            with self._opened() as file:
                yield from self._members(file)
        except (OSError, *BAD_STREAM) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ReproError(f"cannot read the archive '{self.path}': {reason}") from error

    def images(self, skipped: Skipped) -> Iterator[Member]:
        """Yield the images among the files, in archive order; what is not an image is noted in `skipped`."""
        where = f"{self.path}/{self.inside}"
        system, other = skipped.system.setdefault(where, []), skipped.other.setdefault(where, [])
        system.clear()
        other.clear()
        for member in self.members():
            *folders, name = member.name.removeprefix("./").split("/")
            if is_system(name) or any(is_system(folder, folder=True) for folder in folders):
                system.append(name)
            elif is_image(name, lambda: self.read(member, HEAD)):  # noqa: B023
                yield member
            else:
                other.append(name)

    def read(self, member: Member, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a member. Raises OSError."""
        return _read(str(self.path), member.offset, min(member.size, size), self.compression)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self.compression:
            yield _stream(str(self.path), self.compression, _stamp(str(self.path)))
        else:
            with open_binary(self.path) as file:
                yield file

    def _members(self, file: IO[bytes]) -> Iterator[Member]:
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
                raw, separator, value = content[:length].split(b" ", 1)[1][:-1].partition(b"=")
                key = raw.decode()
                if not separator or key.startswith("GNU.sparse"):
                    raise ValueError(f"'{_shown(key)}'")
                if key in ("path", "size"):  # the others may be binary, as macOS's extended attributes are
                    records[key] = value.decode()
                content = content[length:]
            _number(records.get("size", "0"))
            return records
        except ValueError as error:  # UnicodeDecodeError too
            raise self._error(at, f"an extended header that cannot be read ({error})") from error

    def _check_name(self, at: int, name: str) -> None:
        parts = name.removeprefix("./").rstrip("/").split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or CONTROL.search(name):
            raise self._error(at, f"member '{_shown(name)}' has an unsafe name")

    def _check_end(self, file: IO[bytes], at: int, after: str) -> None:
        """Check that two blocks of zeros end the archive; more zeros may fill its last record."""
        half = f"half of the end mark should follow{after}"
        if self._read(file, at, 2 * BLOCK, half) != bytes(2 * BLOCK):
            raise self._error(at, "there are bytes after the end of the archive")
        at += 2 * BLOCK
        while at < self.end:
            content = file.read(min(self.end - at, 1 << 20))
            if content.count(0) < len(content):
                raise self._error(at, "there are bytes after the end of the archive")
            if not content and self.end == UNKNOWN:
                return
            if not content:
                raise self._error(at, "the file ends early")
            at += len(content)

    def _read(self, file: IO[bytes], at: int, size: int, what: str) -> bytes:
        if at + size > self.end:
            raise self._error(at, f"{what}, and the archive is truncated")
        file.seek(at)
        content = file.read(size)
        if len(content) < size:
            raise self._error(
                at, f"{what}, and the archive is truncated" if self.compression else "the file ends early"
            )
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
    compression: str = ""

    def identity(self) -> str:
        """Return path, size and modification time of the archive, and the position of the image in it."""
        return f"{file_identity(self.file)} {self.offset} {self.size}"

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError."""
        return _read(self.file, self.offset, self.size, self.compression)


def _read(path: str, offset: int, size: int, compression: str) -> bytes:
    """Return bytes of an archive by their position. Raises OSError."""
    if compression:
        return _read_compressed(path, offset, size, compression, _stamp(path))
    if url := remote_url(path):
        content = read_range(url, offset, size)
    else:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size)
    if len(content) < size:
        raise OSError(f"'{path}' is shorter than when it was listed")
    return content


@lru_cache(maxsize=16)  # to read the same image twice must not start from the beginning of the archive
def _read_compressed(path: str, offset: int, size: int, compression: str, stamp: int | str) -> bytes:
    try:
        stream = _stream(path, compression, stamp)
        stream.seek(offset)
        content = stream.read(size)
    except BAD_STREAM as error:
        raise OSError(f"cannot decompress '{path}': {error}") from error
    if len(content) < size:
        raise OSError(f"'{path}' is shorter than when it was listed")
    return content


@lru_cache(maxsize=1)
def _stream(path: str, compression: str, stamp: int | str) -> IO[bytes]:
    return OPEN[compression](open_binary(path, STREAM_BYTES) if remote_url(path) else path)


def _stamp(path: str) -> int | str:
    """Return the modification time of a file, so that nothing is cached of a file that has been replaced."""
    return file_identity(path) if remote_url(path) else os.stat(path).st_mtime_ns


@dataclass(frozen=True)
class Block:
    """The images of one class in one archive, sorted by name, in 36 bytes and a short name each."""

    file: str
    label: int
    folder: str  # prefix of each name
    names: bytes  # joined by newlines, which no name contains
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    compression: str = ""

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
            np.array(sizes, np.int64), archive.compression,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.offsets)

    def references(self, start: int, stop: int) -> list[TarReference]:
        """Create references to the images from `start` to `stop`."""
        names = self.names.decode().split("\n")[start:stop]
        located = zip(self.offsets[start:stop].tolist(), self.sizes[start:stop].tolist(), names, strict=True)
        return [
            TarReference(self.file, offset, size, f"{self.folder}/{name}", self.label, self.compression)
            for offset, size, name in located
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


def in_reading_order(blocks: Iterable[Block]) -> Sequence[TarReference]:
    """Return the images of the blocks in sequence, or those of compressed archives in the order of the archive."""
    blocks = list(blocks)
    images = Blocks(blocks)
    if not any(block.compression for block in blocks):
        return images
    return sorted(images, key=lambda reference: (reference.file, reference.offset))


class TarTree(ArchiveTree[Member]):
    """The files of a tar archive."""

    def __init__(self, archive: Archive, top: Node[Member] | None = None, location: str = "") -> None:
        super().__init__(location or f"{archive.path}", top or Node(), archive.on_file)
        self.archive = archive
        self.compressed = bool(archive.compression)
        self._heads: dict[int, bytes] = {}  # by position, of files whose names do not end like an image
        if top is None:
            for member in archive.members():
                self.top.add(member.name, member)
                if self.compressed:  # now, because going back is slow

                    def head(member: Member = member) -> bytes:
                        return self._heads.setdefault(member.offset, archive.read(member, HEAD))

                    is_image(member.name, head)

    def read(self, path: str, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a file. Raises ReproError."""
        member = self.file(path)
        if size == HEAD and member.offset in self._heads:
            return self._heads[member.offset]
        try:
            return self.archive.read(member, size)
        except OSError as error:
            raise ReproError(f"cannot read '{self.at(path)}': {error.strerror or error}") from error

    def reference(self, path: str, label: int, name: str = "") -> TarReference:
        """Return a reference to an image."""
        member = self.file(path)
        archive = self.archive
        return TarReference(str(archive.path), member.offset, member.size, name or path, label, archive.compression)

    def below(self, folder: str) -> TarTree:
        """Return the tree of a folder of this one."""
        tree = TarTree(self.archive, self.top.find(folder) or Node(), self.at(folder))
        tree.skipped, tree._heads = self.skipped, self._heads
        return tree

    def in_reading_order(self, references: Sequence[ImageReference]) -> Sequence[ImageReference]:
        """Return the references in the order of the archive if it is compressed."""
        if not self.compressed:
            return references
        return sorted(references, key=lambda reference: reference.offset)  # type: ignore[attr-defined]


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"'{_shown(text)}' is not a number")
    return int(text)


def _shown(text: str) -> str:
    """At most 100 characters on one line."""
    return "".join(c if c.isprintable() else "�" for c in text[:100])
