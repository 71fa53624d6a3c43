"""The staging area of a store: a locked folder beside it, where the same command resumes.

.NAME.partial/plan.json   settings of the store; other settings are refused
.NAME.partial/lock        locked while `repro prepare` runs
.NAME.partial/md5.json    checksums of the source's archives that were computed
.NAME.partial/store/      renamed to NAME when it is complete
.NAME.partial/notes/      notes on the finished shards
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import atomic, locks
from repro.data.store import MANIFEST
from repro.errors import ReproError, Stopped

REPLACEABLE = {"source"}  # settings that may change between two calls: shards of other images are made again


@dataclass(frozen=True)
class StagingArea:
    """Paths of the staging area of a store."""

    path: Path

    @classmethod
    def of(cls, out: Path) -> StagingArea:
        """Return the staging area of the store at `out`."""
        return cls(out.parent / f".{out.name}.partial")

    @property
    def plan(self) -> Path:
        """File of the settings. It is written after the folders below were made, and removed last."""
        return self.path / "plan.json"

    @property
    def store(self) -> Path:
        """Folder of the incomplete store."""
        return self.path / "store"

    @property
    def notes(self) -> Path:
        """Folder of the notes on shards."""
        return self.path / "notes"

    @property
    def lock(self) -> Path:
        """File of the lock."""
        return self.path / "lock"

    def count_finished(self) -> int:
        """Return the number of finished shards."""
        return sum(1 for _ in self.notes.rglob("*.json"))


@contextmanager
def staging_area(out: Path, plan: dict[str, Any], on_note: Callable[[str], None]) -> Iterator[StagingArea]:
    """Open the staging area of the store at `out`; on success the store is moved to `out`.

    After an error, finished shards are kept, and the same plan resumes with them; without any, nothing is left.
    `on_note` receives a line if the file system has no locks.

    Raises ReproError if `out` is not empty or cannot be written, if another process is preparing it, or if the staging
    area has shards of another plan.
    """
    staging = StagingArea.of(out)
    new_parents = [parent for parent in staging.path.parents if not parent.exists()]
    try:
        staging.path.mkdir(parents=True, exist_ok=True)
        with _lock(staging, out, on_note):
            try:
                check_target(out)
                staging.store.mkdir(exist_ok=True)
                staging.notes.mkdir(exist_ok=True)
                _check_plan(staging, plan, out)
                with _report_kept_shards(staging):
                    yield staging
                _publish(staging, out)
                _remove(staging)
            except BaseException:
                if not staging.count_finished():
                    shutil.rmtree(staging.path, ignore_errors=True)
                raise
    except BaseException as error:
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise ReproError(f"cannot write the store '{out}': {error.strerror or error}") from error
        raise


def already_published(out: Path, plan: dict[str, Any]) -> bool:
    """Return whether the complete store of this plan is at `out` with its staging area beside it; remove the latter.

    This is the state after a process was killed at the very end. Raises ReproError if a process is still running.
    """
    staging = StagingArea.of(out)
    if _read_plan(staging) != plan or staging.store.exists() or not (out / MANIFEST).exists():
        return False
    with _lock(staging, out, lambda line: None):
        _remove(staging)
    return True


def check_target(out: Path) -> None:
    """Raise ReproError if a store cannot be made at `out`, because something is there or it cannot be replaced."""
    if os.path.ismount(out):
        raise ReproError(f"'{out}' is the root of a file system: choose a folder inside it with --out")
    try:
        if any(out.iterdir()):
            raise ReproError(f"'{out}' is not empty: remove it, or choose another folder with --out")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ReproError(f"cannot write the store '{out}': {error.strerror}") from error


def _publish(staging: StagingArea, out: Path) -> None:
    """Move the complete store to `out`."""
    with suppress(FileNotFoundError):
        out.rmdir()  # an empty folder; Windows does not replace folders
    os.replace(staging.store, out)
    atomic.sync_folder(out.parent)


def _remove(staging: StagingArea) -> None:
    """Remove the content of the staging area of a store that was moved; the plan last: `already_published` reads it."""
    for path in sorted(set(staging.path.iterdir()) - {staging.lock}, key=lambda path: path == staging.plan):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    with suppress(PermissionError):  # Windows removes no open file; there the lock is removed when it is released
        staging.lock.unlink(missing_ok=True)


@contextmanager
def _report_kept_shards(staging: StagingArea) -> Iterator[None]:
    """Add to errors how many finished shards are kept."""
    try:
        yield
    except (OSError, ReproError, Stopped) as error:
        kept = staging.count_finished()
        shards = "1 shard is" if kept == 1 else f"{kept:,} shards are"
        resume = f"; {shards} kept in '{staging.path}': run the same command again to resume" if kept else ""
        if isinstance(error, Stopped):
            raise Stopped(error.signal, f"stopped{resume or '; no incomplete files are left'}") from error
        reason = error.strerror or error if isinstance(error, OSError) else error
        kind = "cannot write the store: " if isinstance(error, OSError) else ""
        raise ReproError(f"{kind}{reason}{resume}") from error


@contextmanager
def _lock(staging: StagingArea, out: Path, on_note: Callable[[str], None]) -> Iterator[None]:
    """Lock the staging area; on exit remove its folder if it is empty."""
    busy = (
        f"another `repro prepare` is writing '{out}': wait until it has finished, or choose another folder with --out"
    )
    try:
        with locks.exclusive(staging.lock, busy, on_note):
            yield
    finally:
        with suppress(OSError):
            staging.path.rmdir()


def _check_plan(staging: StagingArea, plan: dict[str, Any], out: Path) -> None:
    started = _read_plan(staging)
    if started is not None and staging.count_finished():
        differing = [key for key in {**started, **plan} if started.get(key) != plan.get(key) and key not in REPLACEABLE]
        if differing:
            changes = ", ".join(f"{key} was {started.get(key)} and is now {plan.get(key)}" for key in differing)
            raise ReproError(
                f"'{out}' was started with other settings ({changes}): use the same settings, or remove "
                f"'{staging.path}' to start again"
            )
    atomic.write_json(staging.plan, plan)


def _read_plan(staging: StagingArea) -> dict[str, Any] | None:
    """Return the plan of the staging area; None if there is none."""
    try:
        plan: dict[str, Any] = json.loads(staging.plan.read_bytes())
        return plan
    except (OSError, ValueError):
        return None
