"""From `--source` to something that can be read: a folder, or an archive in place of one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from repro import remote
from repro.errors import ReproError
from repro.preparation.formats import HEAD, archive_format, first_few, kind_of
from repro.preparation.sources.source import OnFile, ignore_file
from repro.preparation.sources.tar import OPEN, Archive, TarTree
from repro.preparation.sources.tree import Tree, folder_tree
from repro.preparation.sources.zip import ZipTree

ARCHIVE_NAME = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


def source_path(path: Path, wanted: str) -> Path:
    """Return the existing file or folder that `--source` names. Raises ReproError, which says what is `wanted`.

    `~` is the user's home. `path` may also be the URL of an object store.
    """
    url = remote.url_of(path)
    if url and not url.startswith("file://"):
        if remote.remote_url(path):
            return _remote_path(path, url, wanted)
        raise ReproError(f"'{url}' is a URL: download it, and give --source {wanted}")
    path = remote.locate(path)
    try:
        found = path.expanduser()
        if found.exists():
            return found
    except (OSError, RuntimeError) as error:  # an unreadable folder above; no such user
        raise ReproError(f"cannot read '{path}' ({error}): give --source {wanted}") from error
    above = next((parent for parent in found.absolute().parents if parent.is_dir()), Path("/"))
    raise ReproError(f"no such file or folder: '{path}' ('{above}' exists): give --source {wanted}")


def download(dataset: str, archive: str) -> Path:
    """Download a dataset of torchvision, which checks the checksums, into the user's cache; return its folder there.

    `dataset` is the name of its class there, `archive` the file to fetch by hand. Raises ReproError if that fails.
    """
    import torchvision.datasets  # takes a second, and nothing else of `prepare` needs it

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "repro" / dataset.lower()
    try:
        getattr(torchvision.datasets, dataset)(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise ReproError(
            f"cannot download {dataset} to '{cache}' ({error}): fetch {archive} and give it with --source"
        ) from error
    return cache


def _remote_path(path: Path, url: str, wanted: str) -> Path:
    try:
        found = remote.locate(path)
        remote.information(url)
    except FileNotFoundError:
        raise ReproError(f"no such object or folder: '{url}': give --source {wanted}") from None
    except OSError as error:
        raise ReproError(f"cannot read '{url}' ({error.strerror}): give --source {wanted}") from error
    return found


def open_tree(
    path: Path,
    wanted: str,
    on_file: OnFile = ignore_file,
    holds_dataset: Callable[[Tree], bool] = Tree.has_images,
    archives: tuple[str, ...] = (),
) -> Tree:
    """Return the tree of a folder, or of a zip or tar archive.

    Where a folder does not hold the dataset itself, its only archive does, or the first of those named `archives`.
    Raises ReproError for anything else.
    """
    path = source_path(path, wanted)
    if path.is_file():
        return _archive_tree(path, wanted, on_file)
    if not path.is_dir():
        raise ReproError(f"'{path}' is neither a file nor a folder: give --source {wanted}")
    tree = folder_tree(path, on_file)
    files = tree.listing().files
    found = [name for name in files if ARCHIVE_NAME.search(name)]
    if not found or holds_dataset(tree):
        return tree
    known = [name for name in archives if name in files]
    if known or len(found) == 1:
        return _archive_tree(path / [*known, *found][0], wanted, on_file)
    shards = "; WebDataset shards: repro prepare webdataset" if all(name.endswith(".tar") for name in found) else ""
    raise ReproError(
        f"'{path}' holds no images but {len(found)} archives, {first_few(found)}: unpack them, or give one of them "
        f"with --source{shards}"
    )


def below_single_folders(tree: Tree, stop: Callable[[Tree], bool]) -> Tree:
    """Return the tree below folders that hold all images of the tree, as archives often have; `stop` ends the way."""
    while not stop(tree) and not tree.images_in():
        folders = [name for name in tree.listing().folders if tree.has_images(name)]
        if len(folders) != 1:
            break
        tree = tree.below(folders[0])
    return tree


def _archive_tree(path: Path, wanted: str, on_file: OnFile) -> Tree:
    try:
        with remote.open_binary(path) as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ReproError(f"cannot read '{path}': {error.strerror}") from error
    format = archive_format(head)
    if format == "zip":
        return ZipTree(path, on_file)
    if format == "tar" or format in OPEN or (head and path.suffix.lower() == ".tar"):
        return TarTree(Archive.file(path, on_file))
    what = f"{kind_of(head)}: unpack it" if format else kind_of(head)
    raise ReproError(f"'{path}' is {what}; --source is {wanted}")
