"""Images inside zip archives, located by the archive's directory and never unpacked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from repro.errors import ReproError
from repro.preparation.sources.source import OnFile, file_identity, ignore_file
from repro.preparation.sources.tree import LARGEST_TEXT, ArchiveTree, Node
from repro.remote import open_binary

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DIRECTORY_BYTES = 1 << 20  # of a remote archive's directory that are fetched at once
HEADER = struct.Struct("<4s22xHH")  # of a member: signature, …, lengths of its name and of its extra field


@dataclass(frozen=True, slots=True)
class ZipReference:
    """An image in a zip archive, read with one seek."""

    file: str
    offset: int  # of the member's header
    stored: int  # bytes in the archive
    size: int
    crc: int
    deflated: bool
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the archive, and position and checksum of the image in it."""
        return f"{file_identity(self.file)} {self.offset} {self.crc:08x}"

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError, also where its checksum does not match."""
        content = self._read(self.size)
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise OSError(f"checksum mismatch in '{self.file}'")
        return content

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes. Raises OSError."""
        return self._read(min(size, self.size))

    def _read(self, size: int) -> bytes:
        with open_binary(self.file) as file:
            file.seek(self.offset)
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise OSError(f"no member at byte {self.offset:,} of '{self.file}'")
            _, name, extra = HEADER.unpack(header)
            file.seek(self.offset + HEADER.size + name + extra)
            stored = file.read(
                self.stored if size == self.size or not self.deflated else min(self.stored, 2 * size + 64)
            )
        if not self.deflated:
            return stored[:size]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size) if size else b""
        except zlib.error as error:
            raise OSError(f"cannot decompress a member of '{self.file}': {error}") from error


class ZipTree(ArchiveTree[ZipReference]):
    """The files of a zip archive. Raises ReproError if it is damaged, encrypted or holds unsafe names."""

    def __init__(
        self, path: Path, on_file: OnFile = ignore_file, top: Node[ZipReference] | None = None, location: str = ""
    ) -> None:
        super().__init__(location or str(path), top or Node(), on_file)
        self.path = path
        if top is None:
            self._index()

    def read(self, path: str, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a file. Raises ReproError."""
        try:
            return self.file(path).head(size)
        except OSError as error:
            raise ReproError(f"cannot read '{self.at(path)}': {error.strerror or error}") from error

    def reference(self, path: str, label: int, name: str = "") -> ZipReference:
        """Return a reference to an image."""
        return replace(self.file(path), name=name or path, label=label)

    def below(self, folder: str) -> ZipTree:
        """Return the tree of a folder of this one."""
        tree = ZipTree(self.path, self.on_file, self.top.find(folder) or Node(), self.at(folder))
        tree.skipped = self.skipped
        return tree

    def _index(self) -> None:
        seen: set[str] = set()
        try:
            with open_binary(self.path, DIRECTORY_BYTES) as file, zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        # zipfile raises NotImplementedError for an archive of a later version of the format.
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise ReproError(f"cannot read the zip archive '{self.path}' ({error}): fetch it again") from error
        for member in members:
            # Some programs on Windows write backslashes.
            name = member.filename if member.create_system else member.filename.replace("\\", "/")
            if name.endswith("/"):
                continue
            if reason := _refusal(member, name) or ("occurs twice" if name in seen else ""):
                raise ReproError(f"'{self.path}': member {name[:100]!r} {reason}")
            seen.add(name)
            deflated = member.compress_type == zipfile.ZIP_DEFLATED
            self.top.add(
                name,
                ZipReference(
                    str(self.path), member.header_offset, member.compress_size, member.file_size, member.CRC, deflated,
                    name, -1,
                ),
            )  # fmt: skip


def _refusal(member: zipfile.ZipInfo, name: str) -> str:
    """Say why a member cannot be read; "" if it can."""
    parts = name.removeprefix("./").split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "has an unsafe name; only plain archives are read"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link; only regular files are read"
    if member.flag_bits & 1:
        return "is encrypted: unpack the archive, and give its folder"
    if member.compress_type not in METHODS:
        return f"is compressed by method {member.compress_type}: unpack the archive, and give its folder"
    return ""
