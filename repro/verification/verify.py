"""`repro verify`: is what was written still what is there?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repro.errors import ReproError
from repro.records import CHECKPOINTS, EVALUATIONS, LOG, RUN, WEIGHTS
from repro.verification.store import verify_store


def verify(path: Path, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read all of a store, of a run or of an average's folder again; return its problems, one line each.

    Each problem names its file; no problems, no lines. `on_progress(done, total)` counts a store's bytes. Raises
    ReproError if there is nothing of these at `path`, or if it cannot be opened.
    """
    run = any((path / name).exists() for name in (RUN, LOG, WEIGHTS, CHECKPOINTS))
    try:
        if run or any(path.glob(EVALUATIONS)):  # an average has no record but its evaluations
            from repro.verification.run import check_evaluations, verify_run  # a store is verified without torch

            return verify_run(path) if run else check_evaluations(path)
        return verify_store(path, on_progress)
    except OSError as error:
        raise ReproError(f"cannot read '{error.filename}': {error.strerror}") from error
