"""Lists of classes that users name for published weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.preparation.sources.ilsvrc import YEARS, read_kit


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read classes in the order of a net's outputs. Raises ReproError if there are none at `path`.

    `path` is ILSVRC-2012's development kit, whose numbering cuda-convnet2 uses, or a text file with an id and, after
    a space, a name in each line.
    """
    if path.name.endswith((".tar.gz", ".tar", ".tgz")):
        return tuple(read_kit(path, YEARS[2012]).classes.values())
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ReproError(f"cannot read the classes in '{path}' ({error})") from error
    entries = [line.split(maxsplit=1) for line in lines if line.strip()]
    if not entries:
        raise ReproError(f"'{path}' names no classes: write an id in each line")
    ids = Counter(entry[0] for entry in entries)
    if repeated := [id for id, count in ids.items() if count > 1]:
        raise ReproError(
            f"'{path}' has the id '{repeated[0]}' in {ids[repeated[0]]} lines: write an id in each line, and after a "
            "space perhaps a name"
        )
    return tuple(ClassInfo(entry[0], entry[-1].strip()) for entry in entries)
