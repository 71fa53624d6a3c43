"""Images in parquet shards, as the Hugging Face hub serves `imagenet-1k`: `train-*.parquet`, `validation-*.parquet`.

Each row holds `image` (a struct of `bytes` and `path`) and `label`. The rows keep their order, because row groups are
read as a whole. The test shards, whose labels are not public, are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro.data.store import ClassInfo
from repro.errors import ReproError, how_to_install
from repro.preparation.sources.source import OnFile, Source, file_identity, ignore_file
from repro.remote import open_binary, remote_url

FOOTER_BYTES = 1 << 20  # of a remote file that are fetched at once
SPLIT_FILES = {"train": "train-*.parquet", "val": "validation-*.parquet"}


@dataclass(frozen=True, slots=True)
class ParquetReference:
    """An image in a row of a row group of a file."""

    file: str
    group: int
    row: int
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the file, and the row."""
        return f"{file_identity(self.file)} {self.group} {self.row}"

    def read(self) -> bytes:
        """Return the encoded image. Raises OSError."""
        content = _read_group(self.file, self.group)[self.row]
        if not isinstance(content, bytes):
            raise OSError("the row has no image")
        return content


def parquet_images(path: Path, on_file: OnFile = ignore_file) -> Source | None:
    """List the images in the parquet shards in `path` or its folder `data`; None if there are none.

    The WordNet id at the end of an image's name identifies its class. Raises ReproError.
    """
    folder = path / "data" if list((path / "data").glob(SPLIT_FILES["train"])) else path
    if not list(folder.glob(SPLIT_FILES["train"])):
        return None
    splits: dict[str, list[ParquetReference]] = {}
    ids: dict[int, str] = {}
    names: list[str] = []
    problems = []
    for split, pattern in SPLIT_FILES.items():
        files = sorted(folder.glob(pattern))
        if not files:
            problems.append(f"'{folder}' has no {pattern}")
            continue
        expected = re.search(r"-of-(\d+)\.parquet$", files[0].name)
        if expected and int(expected[1]) != len(files):
            problems.append(f"'{folder}' has {len(files)} of the {int(expected[1])} files {pattern}")
        splits[split] = []
        for file in files:
            references, names = _list_file(file, split, ids)
            splits[split] += references
            for _ in references:
                on_file()
        _check_names(splits[split])
    if sorted(ids) != list(range(len(ids))) or len(set(ids.values())) < len(ids):
        raise ReproError(
            f"the labels in '{folder}' are not 0 to {len(ids) - 1}, one for each class: fetch the files again"
        )
    classes = [
        ClassInfo(ids[label], names[label].split(",")[0] if label < len(names) else ids[label]) for label in sorted(ids)
    ]
    return Source(tuple(classes), {**splits}, tuple(problems))


def _check_names(references: Sequence[ParquetReference]) -> None:
    """Raise ReproError if two images have the same name."""
    seen: set[str] = set()
    for reference in references:
        if reference.name in seen:
            raise ReproError(f"'{reference.file}' has a second image '{reference.name}': fetch the files again")
        seen.add(reference.name)


def _list_file(file: Path, split: str, ids: dict[int, str]) -> tuple[list[ParquetReference], list[str]]:
    """Return the images of a file, and the class names if it has them; `ids` by label are checked and completed."""
    rows, names = _read_columns(file)
    references = []
    for group, row, name, label in rows:
        id = _id(name, label)
        if ids.setdefault(label, id) != id:
            raise ReproError(f"'{file}' gives '{name}' the label {label}, which is that of {ids[label]}")
        references.append(ParquetReference(str(file), group, row, f"{split}/{id}/{name}", label))
    return references, names


def _read_columns(path: Path) -> tuple[list[tuple[int, int, str, int]], list[str]]:
    """Return row group, row in it, name and label of each row, and the class names if the file has them."""
    parquet = _parquet()
    rows: list[tuple[int, int, str, int]] = []
    try:
        with parquet.ParquetFile(_opened(path)) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["image.path", "label"])
                images, labels = table.column("image").to_pylist(), table.column("label").to_pylist()
                for row, (image, label) in enumerate(zip(images, labels, strict=True)):
                    if not isinstance(label, int) or label < 0:
                        raise ValueError(f"row {row} of group {group} has the label {label}")
                    name = str((image or {}).get("path") or f"{path.stem}-{group}-{row}")
                    rows.append((group, row, name.rsplit("/", 1)[-1], label))
            described = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = described.get("info", {}).get("features", {}).get("label", {}).get("names", [])
        return rows, [str(name) for name in names]
    except (OSError, ValueError, KeyError, AttributeError) as error:  # pyarrow's errors derive from the first three
        reason = " ".join(str(error).split())
        raise ReproError(f"'{path}' is not a parquet file of images ({reason}): fetch it again") from error


@lru_cache(maxsize=2)
def _read_group(path: str, group: int) -> list[Any]:
    try:
        with _parquet().ParquetFile(_opened(path)) as file:
            return [
                (image or {}).get("bytes")
                for image in file.read_row_group(group, columns=["image"]).column(0).to_pylist()
            ]
    except (ValueError, KeyError) as error:
        raise OSError(f"'{path}': {error}") from error


def _opened(path: str | Path) -> Any:
    """Return what pyarrow reads a file from: the path of a local one, a remote one opened."""
    return open_binary(path, FOOTER_BYTES) if remote_url(path) else path


def _id(name: str, label: int) -> str:
    found = re.findall(r"n\d{8}", name)
    return found[-1] if found else f"{label:04}"


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ReproError(f"parquet files need pyarrow: {how_to_install('parquet')}") from error
    return pyarrow.parquet
