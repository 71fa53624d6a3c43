"""Checkpoints: tensors in safetensors, everything else in JSON beside them; no pickle.

A checkpoint is two files, `<step>.safetensors` and `<step>.json`. The JSON file is written last and holds the
SHA-256 of the tensors and of the state: a checkpoint without a valid one does not exist. Files and folders beside them
with other names, such as a user's copies, are left alone.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from repro import atomic
from repro.errors import ReproError
from repro.records.file_names import CHECKPOINT, CHECKPOINT_TENSORS

KEPT = 2  # the newest, and the one before it in case the newest is damaged
# Patterns of all files that `save` writes: JSON files are removed before their tensors.
FILES = (CHECKPOINT, CHECKPOINT_TENSORS, f".{CHECKPOINT}.partial", f".{CHECKPOINT_TENSORS}.partial")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint.

    Attributes:
        path: its JSON file.
        tensors: tensors by name, on the CPU.
        state: everything else, as JSON values.
    """

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Save a checkpoint after update `step`, remove all but the newest two, and return the path of its JSON file.

    Raises ReproError if it cannot be written; earlier checkpoints are then untouched.
    """
    atomic.make_folder(folder)
    path = folder / f"{step:010d}.json"
    content = safetensors.torch.save(tensors)
    atomic.write(path.with_suffix(".safetensors"), content)
    atomic.write_json(path, {"sha256": _digest(content), "state_sha256": _state_digest(state), "state": state})
    kept = {newest.stem for newest in sorted(folder.glob(CHECKPOINT))[-KEPT:]}
    for old in _files(folder):
        if old.stem not in kept:  # partial files of a save that was killed are removed too
            old.unlink()
    return path


def _files(folder: Path) -> list[Path]:
    return [path for pattern in FILES for path in sorted(folder.glob(pattern))]


def remove_all(folder: Path) -> None:
    """Remove the checkpoints in `folder`, and `folder` if nothing else is in it; what cannot be removed stays."""
    with suppress(OSError):
        for path in _files(folder):
            path.unlink()
        folder.rmdir()


class Saved(Protocol):
    """What a checkpoint is made of: number of updates, copies of all tensors on the CPU, and everything else."""

    step: int

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of the tensors by name, on the CPU."""

    def state(self) -> dict[str, Any]:
        """Return everything else, as JSON values that do not change afterwards."""


class Saver:
    """Save checkpoints in a thread, one after another, while training continues.

    A context: at its end the checkpoint that is being written is complete. An error of a save is raised by the next
    call of any method, or at the end of the context unless that ends with another error. Without a folder, on ranks
    other than 0, nothing is saved.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[Path] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._executor:
            if kind is None or kind is GeneratorExit:
                self.wait()

    def save(self, training: Saved) -> None:
        """Copy the state of `training` and start to save it as `save` does, once the checkpoint before is complete."""
        self.wait()
        if self._folder is not None:
            arguments = training.step, training.tensors(), training.state()
            self._saving = self._executor.submit(save, self._folder, *arguments)

    def check(self) -> None:
        """Raise the error of a save that has failed; do not wait for one that is in progress."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is complete."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()


def load_newest(folder: Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint in `folder`, or None if `folder` has no checkpoints.

    Damaged ones are skipped with a warning. Raises ReproError if all are damaged.
    """
    damaged = []
    for path in sorted(folder.glob(CHECKPOINT), reverse=True):
        try:
            found = load(path)
        except ReproError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warnings.warn(f"{problem}; using the one before it", RuntimeWarning, stacklevel=2)
        return found
    if damaged:
        raise ReproError(f"{'; '.join(damaged)}; there is no other: remove '{folder}' to start the run again")
    return None


def remove_newer(saved: Checkpoint) -> None:
    """Remove the checkpoints that are newer than `saved`, which may be a copy with another name."""
    for path in sorted(saved.path.parent.glob(CHECKPOINT)):
        if int(path.stem) > saved.state["step"]:
            path.unlink()
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Return the checkpoint whose JSON file is `path`. Raises ReproError if it is damaged."""
    try:
        record = json.loads(path.read_bytes())
        content = path.with_suffix(".safetensors").read_bytes()
        state = record["state"]
        found = _digest(content), _state_digest(state)
        # A checkpoint of an older version has no checksum of its state.
        if found != (record["sha256"], record.get("state_sha256", found[1])):
            raise ValueError("checksum mismatch")
        return Checkpoint(path, safetensors.torch.load(content), state)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ReproError(f"checkpoint '{path}' is damaged ({error})") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _state_digest(state: dict[str, Any]) -> str:
    return _digest(json.dumps(state).encode())
