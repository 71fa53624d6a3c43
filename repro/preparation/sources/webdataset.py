"""WebDataset shards: tar archives in which files of one name belong together, `000.jpg` with `000.cls` or `000.json`.

The class is the content of `.cls` (a number or a name), or a field of `.json` (`label`, `cls`, `class`, …). The split
is in the name of a shard or of its folder (`imagenet1k-train-0000.tar`, `val/0000.tar`); other shards are train, and
where there is no val, one image in ten of each class is held out for it. Images keep the order of the shards. Numbered
classes are labelled in the order of their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repro.errors import ReproError
from repro.preparation.formats import HEAD, Skipped, archive_format, ending, first_few, is_image, is_system, kind_of
from repro.preparation.sources.class_folders import are_numbers, class_infos, in_label_order
from repro.preparation.sources.folder import hold_out
from repro.preparation.sources.label_table import split_in_name
from repro.preparation.sources.location import source_path
from repro.preparation.sources.source import ImageReference, OnFile, Source, ignore_file
from repro.preparation.sources.tar import Archive, Member, TarReference
from repro.remote import open_binary

WANTED = "a folder of WebDataset shards (*.tar with k.jpg and k.cls or k.json), or one shard"
LABEL_FIELDS = ("label", "cls", "class", "class_id", "class_index", "target", "category", "class_name", "label_name")
SHARD = re.compile(r".*\.(tar|tgz|tar\.gz)", re.IGNORECASE)


def webdataset(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List the images of WebDataset shards. Raises ReproError."""
    if path is None:
        raise ReproError(f"dataset 'webdataset' needs shards: give --source {WANTED}")
    path = source_path(path, WANTED)
    skipped = Skipped()
    shards = _shards(path, skipped)
    if not shards:
        raise ReproError(f"'{path}' holds no *.tar: give --source {WANTED}")
    found: dict[str, list[tuple[str, TarReference]]] = {}
    unnamed = []
    for name, shard in shards:
        split = _split_of_shard(name)
        if not split:
            unnamed.append(name)
        found.setdefault(split or "train", []).extend(_samples(shard, split or "train", name, skipped, on_file))
    if "train" not in found:
        raise ReproError(f"'{path}' holds shards of {first_few(sorted(found))} but none of train")
    ids = in_label_order({label for label, _ in found["train"]})
    if len(ids) < 2:
        raise ReproError(f"the shards in '{path}' hold {len(ids)} classes: at least two are needed")
    source = _with_labels(found, ids, unnamed, len(shards), seed)
    return replace(source, notes=(*source.notes, *skipped.notes()))


def _with_labels(
    found: dict[str, list[tuple[str, TarReference]]], ids: list[str], unnamed: list[str], shards: int, seed: int
) -> Source:
    numbers = {id: label for label, id in enumerate(ids)}
    notes = [f"{shards:,} shards with {len(ids):,} classes: {first_few(ids)}"]
    problems = []
    if are_numbers(ids) and [int(id) for id in ids] != list(range(len(ids))):
        notes.append(f"the classes are not numbered from 0 without gaps: class {ids[-1]} gets the label {len(ids) - 1}")
    if unnamed and len(unnamed) < shards:
        notes.append(f"taken as train, because their names say no split: {first_few(unnamed)}")
    splits: dict[str, Sequence[ImageReference]] = {}
    for split, samples in found.items():
        unknown = sorted({label for label, _ in samples} - numbers.keys())
        if unknown:
            problems.append(f"{split} has {len(unknown):,} classes that train lacks: {first_few(unknown, 3)}")
        splits[split] = [replace(image, label=numbers[label]) for label, image in samples if label in numbers]
    source = Source(class_infos(ids), splits, tuple(problems), tuple(notes))
    return source if "val" in splits else hold_out(source, seed)


def _shards(path: Path, skipped: Skipped) -> list[tuple[str, Path]]:
    """Return the shards in a folder and its folders, by their names relative to it, in the order of their numbers."""
    if path.is_file():
        with open_binary(path) as file:
            head = file.read(HEAD)
        if not SHARD.fullmatch(path.name) and archive_format(head) not in ("tar", "gzip"):
            raise ReproError(f"'{path}' is {kind_of(head)}; --source is {WANTED}")
        return [(path.name, path)]
    found = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if SHARD.fullmatch(file.name)]
    skipped.system[str(path)] = [file.name for file in found if is_system(file.name)]
    names = [(file.relative_to(path).as_posix(), file) for file in found if not is_system(file.name) and file.is_file()]
    return sorted(names, key=lambda named: [int(part) if part.isdigit() else part for part in _parts(named[0])])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _split_of_shard(name: str) -> str:
    """Return the split that the name of a shard or of its folder says, or ""."""
    folder, _, file = name.rpartition("/")
    return split_in_name(file) or split_in_name(folder)


def _samples(path: Path, split: str, name: str, skipped: Skipped, on_file: OnFile) -> list[tuple[str, TarReference]]:
    """Return the class and a reference of each image of a shard."""
    archive = Archive.file(path, on_file)
    shard = re.sub(r"\.(tar|tgz|tar\.gz)$", "", name, flags=re.IGNORECASE)
    found = []
    sample: dict[str, Member] = {}
    labels: dict[str, bytes] = {}
    current = ""
    for member in archive.members():
        file = member.name.removeprefix("./")
        if any(is_system(part) for part in file.split("/")):
            skipped.system.setdefault(f"{path}/", []).append(file.rpartition("/")[2])
            continue
        folder, slash, base = file.rpartition("/")
        key, _, kind = base.partition(".")
        key = f"{folder}{slash}{key}"
        if key != current and sample:
            found.append(_sample(archive, current, sample, labels, split, shard))
            sample, labels = {}, {}
        current = key
        sample[kind.lower()] = member
        if kind.lower() in ("cls", "json"):
            labels[kind.lower()] = archive.read(member)
    if sample:
        found.append(_sample(archive, current, sample, labels, split, shard))
    return found


def _sample(
    archive: Archive, key: str, files: dict[str, Member], labels: dict[str, bytes], split: str, shard: str
) -> tuple[str, TarReference]:
    where = f"'{archive.path}', sample '{key}'"
    images = [
        (kind, member)
        for kind, member in files.items()
        if kind not in labels and is_image(f"x.{kind}", lambda: archive.read(member, HEAD))  # noqa: B023
    ]
    images = [image for image in images if "." not in image[0]] or images  # rather 000.jpg than 000.mask.png
    if len(images) != 1:
        raise ReproError(f"{where} has {len(images)} images: its files are {first_few(sorted(files))}")
    ((kind, member),) = images
    label = _label(labels, where, sorted(files))
    name = f"{split}/{shard}/{key}{ending(f'x.{kind}')}"
    return label, TarReference(str(archive.path), member.offset, member.size, name, -1, archive.compression)


def _label(labels: dict[str, bytes], where: str, files: list[str]) -> str:
    """Return the class that `.cls` or `.json` says. Raises ReproError."""
    text = labels.get("cls", b"").decode(errors="replace").strip()
    if not text and "json" in labels:
        try:
            content = json.loads(labels["json"])
        except ValueError as error:
            raise ReproError(f"{where} has a json file that cannot be read ({error})") from error
        fields = content if isinstance(content, dict) else {}
        values = [fields[name] for name in LABEL_FIELDS if isinstance(fields.get(name), int | str)]
        text = str(values[0]).strip() if values else ""
    if not text:
        raise ReproError(
            f"{where} has no class: .cls, or .json with {LABEL_FIELDS[0]}, is needed; its files are {first_few(files)}"
        )
    return text
