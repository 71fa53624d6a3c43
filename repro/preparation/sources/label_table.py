"""Labels of images that lie together in one folder: in a table beside them, or in their names.

A table is a CSV or another text of rows: one column names the image, with or without its path and ending, another its
class. Such tables come with Kaggle's datasets (`id,label`), Tiny ImageNet (`val_annotations.txt`, without a header)
and many others. Names hold labels as in Kaggle's Dogs vs. Cats (`cat.0.jpg`).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from repro.errors import ReproError
from repro.preparation.formats import ENDINGS, ending, first_few
from repro.preparation.sources.class_folders import split_of
from repro.preparation.sources.tree import Tree, join

TABLE_ENDINGS = (".csv", ".tsv", ".txt")
DELIMITERS = ",\t; |"
LABEL_COLUMNS = (
    "label", "labels", "class", "classes", "class_name", "classname", "class_id", "category", "target", "species",
    "breed", "label_name",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "fold", "usage", "dataset")
LABEL_IN_NAME = re.compile(r"(?P<label>.*?[^\W\d_].*?)[ ._-]+\(?\d+\)?")
# What cameras and programs call every picture, which says nothing about a class.
GENERIC_NAMES = (
    "img", "image", "images", "dsc", "dscn", "dscf", "pic", "pict", "picture", "photo", "pxl", "mvimg", "gopr", "dji",
    "wp", "screenshot", "frame", "scan", "untitled", "download", "whatsapp", "train", "val", "test", "valid", "file",
    "p",
)  # fmt: skip


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table that name images."""

    file: str
    labels: Mapping[str, str]  # by the image's path
    splits: Mapping[str, str]  # by the image's path, if a column says it
    missing: Sequence[str]  # names of images that do not exist


class ImageIndex:
    """Finds images by what a table calls them: a path or a part of it, with or without its ending."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = dict.fromkeys(paths)
        self._by_name: dict[str, list[str]] = {}
        for path in self._paths:
            name = path.rpartition("/")[2]
            for key in {name, _stem(name)}:
                self._by_name.setdefault(key, []).append(path)

    def find(self, name: str) -> str | None:
        """Return the path of the image of this name; None if there is none, or more than one."""
        name = name.strip().replace("\\", "/").removeprefix("./")
        if name in self._paths:
            return name
        parts = name.split("/")
        candidates = self._by_name.get(parts[-1]) or self._by_name.get(_stem(parts[-1]), [])
        # The folders that both know must agree; a table may know more of them, or fewer.
        agreeing = [path for path in candidates if _agree(_stem(path).split("/"), [*parts[:-1], _stem(parts[-1])])]
        return agreeing[0] if len(agreeing) == 1 else None


def table_files(tree: Tree, folder: str) -> list[str]:
    """Return the paths of the files in a folder that may be tables of labels; tables to submit to Kaggle are not."""
    return [
        join(folder, name)
        for name in tree.listing(folder).files
        if name.lower().endswith(TABLE_ENDINGS) and "submission" not in name.lower()
    ]


def read_table(
    tree: Tree, path: str, scopes: Sequence[Collection[str]], classes: Collection[str] = ()
) -> LabelTable | None:
    """Read a table that names images; None if it names none, or has no labels. Raises ReproError if it is ambiguous.

    Each of the `scopes` is a set of images that it may be about; of two, the one counts of which more is found. Where
    the `classes` are known, the column whose values are among them holds the labels.
    """
    content = tree.read(path)
    tables = [_read_table(tree.at(path), path, content, ImageIndex(scope), classes) for scope in scopes if scope]
    return min((table for table in tables if table), key=lambda table: len(table.missing), default=None)


def name_labels(paths: Sequence[str]) -> dict[str, str]:
    """Return the labels in the names of images, such as cat of `cat.0.jpg`; empty unless every name has one.

    At least two labels, each of two images, are needed; names that cameras give are no labels.
    """
    labels = {}
    for path in paths:
        found = LABEL_IN_NAME.fullmatch(_stem(path.rpartition("/")[2]))
        if not found or found["label"].strip(" ._-").casefold() in GENERIC_NAMES:
            return {}
        labels[path] = found["label"]
    counts = Counter(labels.values())
    return labels if len(counts) > 1 and min(counts.values()) > 1 else {}


def split_in_name(name: str) -> str:
    """Return the only split that a name mentions, such as train of trainLabels.csv or of Final_Training, or ""."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.rpartition("/")[2]).lower())
    found = {split for split in map(split_of, words) if split}
    return found.pop() if len(found) == 1 else ""


def _read_table(
    shown: str, path: str, content: bytes, index: ImageIndex, classes: Collection[str]
) -> LabelTable | None:
    rows = _rows(content, index)
    if not rows:
        return None
    column, header = _image_column(rows, index)
    body = rows[1:] if header else rows
    label = _label_column(shown, header, body, column, classes)
    if label is None:
        return None
    names = [name.strip().casefold() for name in header]
    split = next((names.index(name) for name in SPLIT_COLUMNS if name in names and names.index(name) != label), None)
    labels: dict[str, str] = {}
    splits: dict[str, str] = {}
    missing = []
    for row in body:
        image, text = index.find(row[column]), row[label].strip()
        if image is None:
            missing.append(row[column])
            continue
        text = text if not classes or text in classes else text.split(" ")[0]  # as "n01440764 85 1 499 272"
        if labels.setdefault(image, text) != text:
            raise ReproError(
                f"'{shown}' gives '{image}' two labels, '{labels[image]}' and '{text}': keep one row per image"
            )
        if not text:
            raise ReproError(f"'{shown}' gives '{image}' no label: fill it in, or remove the row")
        if split is not None and split_of(row[split].strip()):
            splits[image] = split_of(row[split].strip())
    return LabelTable(path, labels, splits, missing)


def _rows(content: bytes, index: ImageIndex) -> list[list[str]]:
    """Return the rows of a text by the delimiter by which one column names images; empty if there is none."""
    if b"\0" in content[:1000]:
        return []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # as Excel writes in Western Europe
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, row))]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        rows = [row + [""] * (width - len(row)) for row in rows]
        sample = rows[:1000]
        if any(sum(index.find(row[column]) is not None for row in sample) * 2 > len(sample) for column in range(width)):
            return rows
    return []


def _image_column(rows: list[list[str]], index: ImageIndex) -> tuple[int, list[str]]:
    """Return the column that names images, and the header: the first row if it names none, else empty."""
    sample = rows[:1000]
    column = max(range(len(rows[0])), key=lambda column: sum(index.find(row[column]) is not None for row in sample))
    return column, [] if index.find(rows[0][column]) else rows[0]


def _label_column(
    table: str, header: list[str], rows: list[list[str]], image: int, classes: Collection[str]
) -> int | None:
    """Return the column of the labels; None if the table has none. Raises ReproError if it may be several."""
    others = [column for column in range(len(header or rows[0])) if column != image] if rows else []
    others = [column for column in others if any(row[column].strip() for row in rows)]
    if classes:
        known = [column for column in others if all(row[column].split(" ")[0] in classes for row in rows)]
        return known[0] if known else None
    if len(others) == 1:
        return others[0]
    named = [column for column in others if header and header[column].strip().casefold() in LABEL_COLUMNS]
    if len(named) == 1:
        return named[0]
    if not others:
        return None
    columns = first_few([header[column] for column in others] if header else [str(column + 1) for column in others])
    raise ReproError(f"'{table}' may hold labels in {len(others)} columns, {columns}: name the column 'label'")


def _stem(name: str) -> str:
    end = ending(name)
    return name[: -len(end)] if end in ENDINGS or end in (".heic", ".heif", ".avif") else name


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    return all(a == b for a, b in zip(reversed(one), reversed(other), strict=False))
