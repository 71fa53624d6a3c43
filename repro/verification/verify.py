"""`repro verify`: check that a store or a run is undamaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repro.errors import ReproError
from repro.records.file_names import CHECKPOINTS, EVALUATIONS, LOG, RUN, WEIGHTS
from repro.remote import remote_url
from repro.verification.store import verify_store


def verify(path: Path, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Check the store, the run or the ensemble's folder at `path`; return its problems. A run may be its `run.json`.

    A store may be in an object store; all of it is then downloaded, piece by piece.

    Each problem is a line that names the file; an undamaged one has none. `on_progress(done, total)` receives the
    number of bytes of a store. Raises ReproError if `path` holds none of these, or cannot be read.
    """
    if path.name == RUN and path.is_file():
        path = path.parent
    run = any((path / name).exists() for name in (RUN, LOG, WEIGHTS, CHECKPOINTS))
    try:
        if remote_url(path):
            return verify_store(path, on_progress)
        if run or any(path.glob(EVALUATIONS)):  # the folder of an ensemble has evaluations only
            from repro.verification.run import check_evaluations, verify_run  # needs torch, a store does not

            return verify_run(path) if run else check_evaluations(path)
        return verify_store(path, on_progress)
    except OSError as error:
        raise ReproError(f"cannot read '{error.filename or path}': {error.strerror}") from error
