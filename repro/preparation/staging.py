"""A store under construction: beside its place, locked, and there for the same command to go on with.

.NAME.partial/plan.json   what is being made; another plan is refused
.NAME.partial/lock        held while `repro prepare` is at work
.NAME.partial/store/      becomes NAME when it is complete
.NAME.partial/notes/      on the shards that are finished
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import atomic
from repro.errors import ReproError, Stopped


@dataclass(frozen=True)
class StagingArea:
    """Where a store is built, and what was found there."""

    path: Path

    @classmethod
    def of(cls, out: Path) -> StagingArea:
        """The site of the store that is to be at `out`."""
        return cls(out.with_name(f".{out.name}.partial"))

    @property
    def plan(self) -> Path:
        """The plan's file: it is written after the folders below were made, and taken away last."""
        return self.path / "plan.json"

    @property
    def store(self) -> Path:
        """The store to be."""
        return self.path / "store"

    @property
    def notes(self) -> Path:
        """Notes on its shards."""
        return self.path / "notes"

    def finished(self) -> int:
        """How many shards are finished."""
        return sum(1 for _ in self.notes.rglob("*.json"))


@contextmanager
def staging_area(out: Path, plan: dict[str, Any]) -> Iterator[StagingArea]:
    """Build a store within this; it takes its place at `out` if all goes well.

    If not, finished shards are kept for the same plan to go on with; where there are none, nothing stays behind.
    Raises ReproError if `out` is not vacant or cannot be written, if another process is building it, or if another
    plan was begun there.
    """
    site = StagingArea.of(out)
    made = [parent for parent in site.path.parents if not parent.exists()]
    try:
        site.path.mkdir(parents=True, exist_ok=True)
        with _locked(site.path / "lock", out):
            try:
                _check_vacant(out)
                site.store.mkdir(exist_ok=True)
                site.notes.mkdir(exist_ok=True)
                _check_plan(site, plan, out)
                with _told_what_is_kept(site):
                    yield site
                site.store.rename(out)
                atomic.sync_folder(out.parent)
                _clear(site)
            except BaseException:
                if not site.finished():
                    shutil.rmtree(site.path, ignore_errors=True)
                raise
    except BaseException as error:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise ReproError(f"cannot write the store '{out}': {error.strerror or error}") from error
        raise


def already_published(out: Path, plan: dict[str, Any]) -> bool:
    """Has the store of this plan taken its place at `out`, and its site was left behind? The site is cleared then.

    That is how a process leaves it that is killed at the very end. Raises ReproError if one is still at work there.
    """
    site = StagingArea.of(out)
    if _begun(site) != plan or site.store.exists() or not (out / "manifest.json").exists():
        return False
    with _locked(site.path / "lock", out):
        _clear(site)
    return True


def _clear(site: StagingArea) -> None:
    """Remove what is left of a staging area once its store is in place; the plan last: `already_published` reads it."""
    for path in sorted(site.path.iterdir(), key=lambda path: path == site.plan):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    site.path.rmdir()


@contextmanager
def _told_what_is_kept(site: StagingArea) -> Iterator[None]:
    try:
        yield
    except (OSError, ReproError, Stopped) as error:
        kept = site.finished()
        again = f"; {kept:,} shards are kept in '{site.path}', and the same command goes on from there" if kept else ""
        if isinstance(error, Stopped):
            raise Stopped(error.signal, f"stopped{again or '; nothing half-made was left behind'}") from error
        reason = error.strerror or error if isinstance(error, OSError) else error
        kind = "cannot write the store: " if isinstance(error, OSError) else ""
        raise ReproError(f"{kind}{reason}{again}") from error


@contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    busy = ReproError(f"another `repro prepare` is at work on '{out}': wait for it, or name another folder with --out")
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        # The one who held the lock before may have finished, and taken the locked file away.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise busy
        yield


def _check_vacant(out: Path) -> None:
    with suppress(FileNotFoundError):
        if any(out.iterdir()):
            raise ReproError(f"'{out}' is not empty: remove it, or name another folder with --out")


def _check_plan(site: StagingArea, plan: dict[str, Any], out: Path) -> None:
    begun = _begun(site)
    if begun is not None and site.finished():
        differing = [key for key in {**begun, **plan} if begun.get(key) != plan.get(key)]
        if differing:
            changes = ", ".join(f"{key} {begun.get(key)} and now {plan.get(key)}" for key in differing)
            raise ReproError(
                f"'{out}' was begun as another store ({changes}): go on as it was begun, or remove '{site.path}'"
            )
    atomic.write_json(site.plan, plan)


def _begun(site: StagingArea) -> dict[str, Any] | None:
    """The plan that was begun; None if none was."""
    try:
        begun: dict[str, Any] = json.loads(site.plan.read_bytes())
        return begun
    except (OSError, ValueError):
        return None
