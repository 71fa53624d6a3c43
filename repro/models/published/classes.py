"""The classes of published nets, in the order of their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.preparation.sources.ilsvrc import YEARS, read_kit


def imagenet_classes() -> tuple[ClassInfo, ...]:
    """Return ILSVRC-2012's 1000 classes in the order of their WordNet ids, from timm's list."""
    from timm.data import imagenet_info

    info: Any = imagenet_info.ImageNetInfo("imagenet-1k")
    return tuple(
        ClassInfo(id, info.index_to_description(index).split(",")[0]) for index, id in enumerate(info.label_names())
    )


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read classes in the order of a net's outputs. Raises ReproError if there are none at `path`.

    `path` is ILSVRC-2012's development kit, whose numbering cuda-convnet2 uses, or a text file with an id and, after
    a space, a name in each line.
    """
    if path.name.endswith((".tar.gz", ".tar", ".tgz")):
        return tuple(read_kit(path, YEARS[2012]).classes.values())
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ReproError(f"cannot read the classes in '{path}' ({error})") from error
    entries = [line.split(maxsplit=1) for line in lines if line.strip()]
    if not entries:
        raise ReproError(f"'{path}' names no classes: write an id in each line")
    return tuple(ClassInfo(entry[0], entry[-1].strip()) for entry in entries)
