"""Trees of files: a folder on the disk, or a zip or tar archive that is read in place.

Layouts are written once, in terms of `Tree`. Paths are relative to the top of the tree, with `/` between their parts;
"" is the top itself. Files and folders of operating systems are left out everywhere (`formats.is_system`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from repro import remote
from repro.errors import ReproError
from repro.preparation.formats import HEAD, Skipped, is_image, is_system
from repro.preparation.sources.source import ImageReference, OnFile, file_identity, ignore_file

LARGEST_TEXT = 500_000_000  # bytes of a table of labels
File = TypeVar("File")


class Listing(NamedTuple):
    """Names of the folders and files in a folder, sorted."""

    folders: list[str]
    files: list[str]


class Tree(ABC):
    """Folders and files below a top."""

    compressed = False  # True where images can be read quickly in the order of the archive alone

    def __init__(self, location: str, on_file: OnFile = ignore_file) -> None:
        self.location = location
        self.on_file = on_file
        self.skipped = Skipped()

    @abstractmethod
    def entries(self, folder: str) -> Listing:
        """Return what is in a folder, in any order, system files included."""

    @abstractmethod
    def read(self, path: str, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a file. Raises ReproError."""

    @abstractmethod
    def reference(self, path: str, label: int, name: str = "") -> ImageReference:
        """Return a reference to an image; its name is `path` unless another is given."""

    @abstractmethod
    def below(self, folder: str) -> Tree:
        """Return the tree whose top is a folder of this one."""

    def in_reading_order(self, references: Sequence[ImageReference]) -> Sequence[ImageReference]:
        """Return the references in the order in which they are read quickly: as they are, where any order will do."""
        return references

    def at(self, path: str) -> str:
        """Describe a path for messages."""
        return f"{self.location}/{path}" if path else self.location

    def listing(self, folder: str = "") -> Listing:
        """Return the folders and files in a folder, sorted and without those of operating systems."""
        entries = self.entries(folder)
        found = Listing([], [])
        system: list[str] = []
        for name in entries.folders:
            (system if is_system(name, folder=True) else found.folders).append(name)
        for name in entries.files:
            (system if is_system(name) else found.files).append(name)
        self.skipped.system[self.at(folder)] = system
        return Listing(sorted(found.folders), sorted(found.files))

    def images(self, folder: str = "") -> list[str]:
        """Return the paths of all images below a folder, sorted."""
        return sorted(self._images(folder))

    def images_in(self, folder: str = "") -> list[str]:
        """Return the names of the images in a folder itself, sorted."""
        files = self.listing(folder).files
        images = [name for name in files if self._is_image(join(folder, name))]
        self.skipped.other[self.at(folder)] = sorted(set(files) - set(images))
        return images

    def has_images(self, folder: str = "") -> bool:
        """Return whether there is an image below a folder."""
        folders, files = self.listing(folder)
        return any(self._is_image(join(folder, name)) for name in files) or any(
            self.has_images(join(folder, name)) for name in folders
        )

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder at this path."""
        folder, _, name = path.rpartition("/")
        try:
            return name in {*self.entries(folder).folders, *self.entries(folder).files}
        except ReproError:
            return False

    def _images(self, folder: str) -> Iterator[str]:
        folders, files = self.listing(folder)
        other = []
        for name in files:
            path = join(folder, name)
            if self._is_image(path):
                self.on_file()
                yield path
            else:
                other.append(name)
        self.skipped.other[self.at(folder)] = other
        for name in folders:
            yield from self._images(join(folder, name))

    def _is_image(self, path: str) -> bool:
        return is_image(path, lambda: self.read(path, HEAD))


def join(folder: str, name: str) -> str:
    """Join the path of a folder, perhaps the top, and a name."""
    return f"{folder}/{name}" if folder else name


@dataclass(frozen=True, slots=True)
class FileReference:
    """An image file below a folder."""

    root: str
    path: str
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the file."""
        return file_identity(f"{self.root}/{self.path}")

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError."""
        with open(f"{self.root}/{self.path}", "rb", buffering=0) as file:
            return file.read()


class FolderTree(Tree):
    """A folder on the disk. Links are followed, but for those that lead to a folder above them."""

    def __init__(self, path: Path, on_file: OnFile = ignore_file) -> None:
        super().__init__(str(path), on_file)
        self.path = path
        self._with_images: dict[str, bool] = {}
        top = _folder_id(str(path))
        # Of each folder, those on the way to it: a link to one of them would be followed for ever.
        self._ancestors = {"": {top, *(_folder_id(str(parent)) for parent in Path(os.path.realpath(path)).parents)}}

    def entries(self, folder: str) -> Listing:
        """Return what is in a folder; links to nothing and to folders above are left out and noted."""
        folders: list[str] = []
        loops: list[str] = []
        files, dangling = [], []
        try:
            with os.scandir(f"{self.location}/{folder}") as entries:
                for entry in entries:
                    path = join(folder, entry.name)
                    if _is_folder(entry):
                        (folders if self._enter(folder, path) else loops).append(entry.name)
                    elif _is_file(entry):
                        files.append(entry.name)
                    elif entry.is_symlink():
                        dangling.append(path)
        except OSError as error:
            raise ReproError(f"cannot read the folder '{self.at(folder)}': {error.strerror}") from error
        self.skipped.dangling[self.at(folder)] = dangling
        self.skipped.loops[self.at(folder)] = [join(folder, name) for name in loops]
        return Listing(folders, files)

    def read(self, path: str, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a file. Raises ReproError."""
        try:
            with open(f"{self.location}/{path}", "rb", buffering=0) as file:
                return file.read(size)
        except OSError as error:
            raise ReproError(f"cannot read '{self.at(path)}': {error.strerror}") from error

    def reference(self, path: str, label: int, name: str = "") -> FileReference:
        """Return a reference to an image file."""
        return FileReference(self.location, path, name or path, label)

    def below(self, folder: str) -> FolderTree:
        """Return the tree of a folder of this one."""
        tree = FolderTree(self.path / folder, self.on_file)
        tree.skipped = self.skipped
        return tree

    def has_images(self, folder: str = "") -> bool:
        """Return whether there is an image below a folder, which is read until one is found."""
        if folder not in self._with_images:
            self._with_images[folder] = self._find_image(folder)
        return self._with_images[folder]

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder at this path."""
        return os.path.exists(f"{self.location}/{path}")

    def _find_image(self, folder: str) -> bool:
        folders = []
        try:
            with os.scandir(f"{self.location}/{folder}") as entries:
                for entry in entries:
                    path = join(folder, entry.name)
                    if _is_folder(entry):
                        if not is_system(entry.name, folder=True) and self._enter(folder, path):
                            folders.append(path)
                    elif not is_system(entry.name) and _is_file(entry) and self._is_image(path):
                        return True
        except OSError as error:
            raise ReproError(f"cannot read the folder '{self.at(folder)}': {error.strerror}") from error
        return any(self.has_images(path) for path in folders)

    def _enter(self, folder: str, path: str) -> bool:
        """Return whether the folder at `path` may be entered from `folder`: not if it leads back up."""
        above = self._ancestors.get(folder) or self._ancestors[""]
        here = _folder_id(f"{self.location}/{path}")
        if here in above:
            return False
        self._ancestors[path] = {*above, here}
        return True


@dataclass(frozen=True, slots=True)
class RemoteReference:
    """An image in an object store; `version` is its length and checksum when it was listed."""

    url: str
    version: str
    name: str
    label: int

    def identity(self) -> str:
        """Return URL, length and checksum or modification time of the image."""
        return f"{self.url} {self.version}"

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError."""
        return remote.read_range(self.url, 0, int(self.version.partition(" ")[0]))


class RemoteTree(Tree):
    """A folder in an object store. Each folder is listed once."""

    def __init__(self, url: str, on_file: OnFile = ignore_file) -> None:
        super().__init__(url.rstrip("/"), on_file)
        self._listings: dict[str, list[dict[str, Any]]] = {}

    def entries(self, folder: str) -> Listing:
        """Return what is in a folder."""
        found = self._list(folder)
        names = (
            [entry["name"] for entry in found if (entry["type"] == "directory") is folders] for folders in (True, False)
        )
        return Listing(*names)

    def read(self, path: str, size: int = LARGEST_TEXT) -> bytes:
        """Return the first `size` bytes of a file. Raises ReproError."""
        try:
            return remote.read_range(self.at(path), 0, min(size, int(self._entry(path)["size"])))
        except OSError as error:
            raise ReproError(f"cannot read '{self.at(path)}': {error.strerror}") from error

    def reference(self, path: str, label: int, name: str = "") -> RemoteReference:
        """Return a reference to an image."""
        return RemoteReference(self.at(path), remote.version_of(self._entry(path)), name or path, label)

    def below(self, folder: str) -> RemoteTree:
        """Return the tree of a folder of this one."""
        tree = RemoteTree(self.at(folder), self.on_file)
        tree.skipped = self.skipped
        return tree

    def _list(self, folder: str) -> list[dict[str, Any]]:
        if folder not in self._listings:
            try:
                self._listings[folder] = remote.listing(self.at(folder))
            except OSError as error:
                raise ReproError(f"cannot read the folder '{self.at(folder)}': {error.strerror}") from error
        return self._listings[folder]

    def _entry(self, path: str) -> dict[str, Any]:
        folder, _, name = path.rpartition("/")
        found = next((entry for entry in self._list(folder) if entry["name"] == name), None)
        if found is None:
            raise ReproError(f"'{self.location}' has no file '{path}'")
        return found


def folder_tree(path: Path, on_file: OnFile = ignore_file) -> Tree:
    """Return the tree of a folder on the disk or in an object store."""
    url = remote.remote_url(path)
    return RemoteTree(url, on_file) if url else FolderTree(path, on_file)


def _folder_id(path: str) -> tuple[int, int] | str:
    try:
        state = os.stat(path)
    except OSError:
        return path
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


@dataclass
class Node(Generic[File]):
    """A folder in an archive."""

    folders: dict[str, Node[File]] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def add(self, path: str, file: File) -> None:
        """Add a file, and the folders on its path."""
        *folders, name = path.removeprefix("./").split("/")
        node = self
        for folder in folders:
            node = node.folders.setdefault(folder, Node())
        node.files[name] = file

    def find(self, path: str) -> Node[File] | None:
        """Return the folder at a path, or None."""
        node: Node[File] | None = self
        for folder in path.split("/") if path else ():
            node = node.folders.get(folder) if node else None
        return node


class ArchiveTree(Tree, Generic[File]):
    """The files of an archive, by an index of its folders."""

    def __init__(self, location: str, top: Node[File], on_file: OnFile = ignore_file) -> None:
        super().__init__(location, on_file)
        self.top = top

    def entries(self, folder: str) -> Listing:
        """Return what is in a folder of the archive."""
        node = self.top.find(folder)
        return Listing(list(node.folders), list(node.files)) if node else Listing([], [])

    def file(self, path: str) -> File:
        """Return the index's entry of a file."""
        folder, _, name = path.rpartition("/")
        node = self.top.find(folder)
        if node is None or name not in node.files:
            raise ReproError(f"'{self.location}' has no file '{path}'")
        return node.files[name]
