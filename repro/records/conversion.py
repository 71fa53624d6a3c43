"""Conversion of JSON to records: unknown fields are ignored, null is a missing field, bad numbers become NaN."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

FORMAT = 1  # version of the schema

T = TypeVar("T")


def read_record(path: Path, kind: type[T]) -> T:
    """Return the record of `kind` at `path`. Raises OSError, or ValueError for another format or damage."""
    return convert(read_json(path), kind)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object at `path`. Raises OSError, or ValueError for another format or damage."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if "format" not in content:
        raise ValueError("it has no 'format'")
    if content["format"] != FORMAT:
        newer = isinstance(content["format"], int) and content["format"] > FORMAT
        reason = "it was written by a newer version of repro, update this one" if newer else "it is not supported"
        raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}: {reason}")
    return content


def convert(content: Any, kind: type[T]) -> T:
    """Convert a JSON document to a record of `kind`; raises ValueError if a required field is missing or wrong.

    Unknown fields are ignored, null is the same as a missing field, and what should be a number but is not a finite
    one becomes NaN.
    """
    return msgspec.convert(_tolerant(content, kind), kind, strict=False)


def _tolerant(value: Any, hint: Any) -> Any:
    """Return `value`, to be converted to the type `hint`, with NaN for bad numbers and without null fields."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return finite_number(value)
    if hint is str and isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = _type_hints(hint)
        return {
            name: _tolerant(each, hints[name])
            for name, each in value.items()
            if name in hints and (each is not None or hints[name] is float)
        }
    if isinstance(value, dict) and origin is Mapping:
        return {name: _tolerant(each, arguments[1]) for name, each in value.items()}
    if isinstance(value, list) and origin is tuple:
        return [_tolerant(each, arguments[0]) for each in value]
    return value


@cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def finite_number(value: object) -> float:
    """Return a finite float, or NaN for anything else: null, a string, an infinite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return math.nan
