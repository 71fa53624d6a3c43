"""Strict writing: a record that does not conform to its schema is refused, and files are complete or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from repro import atomic
from repro.records.file_names import MEAN, WEIGHTS, WEIGHTS_CHECKSUM
from repro.records.schema import Provenance, Record


def to_json(record: Record) -> dict[str, Any]:
    """Return the JSON document of a record, with the provenance last.

    Raises ValueError for numbers that are not finite, and TypeError for values of a wrong type.
    """
    content = msgspec.to_builtins(record)
    try:
        msgspec.convert(content, type(record))
    except msgspec.ValidationError as error:
        raise TypeError(f"a {type(record).__name__} that does not conform to its schema: {error}") from error
    for each in dataclasses.fields(record):
        if each.metadata.get("null") and math.isnan(content[each.name]):
            content[each.name] = None
    last = [each.name for each in dataclasses.fields(Provenance) if each.name in content]
    content = {name: value for name, value in content.items() if name not in last} | {
        name: content[name] for name in last
    }
    json.dumps(content, allow_nan=False)
    return content


def write_record(path: Path, record: Record) -> None:
    """Write a record to `path`, completely or not at all. Raises ReproError if it cannot be written."""
    atomic.write_json(path, to_json(record))


def write_weights(folder: Path, content: bytes) -> None:
    """Write the trained weights, a safetensors file's `content`, into a run's folder, after their checksum.

    Raises ReproError if they cannot be written.
    """
    atomic.write(folder / WEIGHTS_CHECKSUM, f"{hashlib.sha256(content).hexdigest()}  {WEIGHTS}\n".encode())
    atomic.write(folder / WEIGHTS, content)


def write_mean(folder: Path, mean: np.ndarray) -> None:
    """Write the mean image of a run, float32 [S, S, 3], into its folder. Raises ReproError if it cannot be written."""
    buffer = io.BytesIO()
    np.save(buffer, mean.astype(np.float32), allow_pickle=False)
    atomic.write(folder / MEAN, buffer.getvalue())
