"""Checkpoints: tensors in safetensors, everything else in JSON beside them; no pickle.

A checkpoint is two files, `<step>.safetensors` and `<step>.json`. The JSON is written last, holds the SHA-256
of the other and of the state, and so is what makes the checkpoint valid.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from repro import atomic
from repro.errors import ReproError

KEPT = 2  # the newest, and the one before in case the newest turns out to be damaged


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name, on the CPU, and a state of JSON values."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Save a checkpoint of `step`, then remove all but the newest two. Returns the path of its JSON file.

    Raises ReproError when it cannot be written; the checkpoints before it are then all still there.
    """
    atomic.make_folder(folder)
    path = folder / f"{step:010d}.json"
    content = safetensors.torch.save(tensors)
    atomic.write(path.with_suffix(".safetensors"), content)
    atomic.write_json(path, {"sha256": _digest(content), "state_sha256": _state_digest(state), "state": state})
    kept = {newest.stem for newest in sorted(folder.glob("*.json"))[-KEPT:]}
    for old in sorted(folder.iterdir()):  # a JSON file goes before its tensors
        if old.stem not in kept:  # nor is anything left of a save that was killed
            old.unlink()
    return path


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole; None if `folder` has none at all.

    A damaged one is passed over with a warning. Raises ReproError if all are damaged.
    """
    damaged = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            found = load(path)
        except ReproError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warnings.warn(f"{problem}; the checkpoint before it is used", RuntimeWarning, stacklevel=2)
        return found
    if damaged:
        raise ReproError(f"{'; '.join(damaged)}; no other is there: remove '{folder}' to begin the run anew")
    return None


def remove_newer(saved: Checkpoint) -> None:
    """Remove the checkpoints beside `saved` that are newer, so that it is the newest, and the next save keeps it."""
    for path in saved.path.parent.glob("*.json"):
        if path.stem > saved.path.stem:
            path.unlink()
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """The checkpoint whose JSON file is `path`. Raises ReproError if it is damaged in any way."""
    try:
        record = json.loads(path.read_bytes())
        content = path.with_suffix(".safetensors").read_bytes()
        state = record["state"]
        found = _digest(content), _state_digest(state)
        # A checkpoint of an older version has no checksum of its state.
        if found != (record["sha256"], record.get("state_sha256", found[1])):
            raise ValueError("its checksum is another")
        return Checkpoint(path, safetensors.torch.load(content), state)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ReproError(f"checkpoint '{path}' is damaged ({error})") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _state_digest(state: dict[str, Any]) -> str:
    return _digest(json.dumps(state).encode())
