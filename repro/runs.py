"""A run's folder and the records in it; imports no torch.

<out>/<variant>-<recipe>-<scale>-seed<k>/
    run.json              everything needed to run it again; written first, never changed
    log.jsonl             a line per epoch
    checkpoints/          until the run is finished
    weights.safetensors.sha256   its checksum, as `sha256sum -c` reads it
    weights.safetensors   written last: a run that has it is finished
    evaluation-<split>-<views>.json, predictions-<split>-<views>.npz
    the same with -searched        of an average by searched weights
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import repro
from repro import atomic
from repro.data.store import Store
from repro.errors import ReproError

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run's folder with its `run.json`."""

    path: Path
    record: dict[str, Any]

    @property
    def weights(self) -> Path:
        """Where the trained weights are, once the run is finished."""
        return self.path / "weights.safetensors"

    @property
    def weights_checksum(self) -> Path:
        """Where the weights' SHA-256 is; runs of an older version have none."""
        return self.path / "weights.safetensors.sha256"

    @property
    def log(self) -> Path:
        """The log, a JSON line per epoch."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"


def run_name(
    variant: str, recipe: str, scale: str, seeds: Sequence[int], lr: float | None = None, tuned: bool = False
) -> str:
    """The folder's name for a run, or for the average of several.

    `lr` is named where it is not the recipe's own; `tuned` says that the run began with the weights of another
    although its variant does not call for that.
    """
    label = "seed" if len(seeds) == 1 else "seeds"
    extras = (f"-lr{lr:g}" if lr else "") + ("-tuned" if tuned else "")
    return f"{variant}-{recipe}-{scale}{extras}-{label}{'+'.join(map(str, seeds))}"


def is_new(path: Path) -> bool:
    """Whether nothing has been written into the folder `path`: at most a beginning of `run.json`, by one killed."""
    return all(each.name.startswith(".") for each in path.iterdir())


def create(path: Path, record: dict[str, Any]) -> Run:
    """Begin a run in the new folder `path` with its `run.json`. Raises ReproError if that is not possible."""
    try:
        atomic.make_folder(path)
        atomic.write_json(path / "run.json", record)
    except ReproError:
        if not any(path.iterdir()):
            path.rmdir()
        raise
    return Run(path, record)


def open_run(path: Path) -> Run:
    """The run in the folder `path`. Raises ReproError if there is none."""
    try:
        record = json.loads((path / "run.json").read_bytes())
    except FileNotFoundError:
        raise ReproError(f"no run at '{path}': it has no run.json; `repro train` makes runs") from None
    except (OSError, ValueError) as error:
        raise ReproError(f"'{path / 'run.json'}' cannot be read ({error}): train the run again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ReproError(f"'{path / 'run.json'}' is not a run's record of format {FORMAT}")
    return Run(path, record)


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Make the folder `path` if need be, and keep every other process from training in it.

    Raises ReproError if one does already, or if the folder cannot be made. The folder itself is locked, before
    anything is in it: of two processes that begin the same run at the same moment, one is refused.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ReproError(f"cannot make the run's folder '{path}': {error.strerror}; choose another --out") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReproError(f"another process is training in '{path}': wait for it, or stop it") from None
        yield
    finally:
        os.close(held)


def append_log(run: Run, record: dict[str, Any]) -> None:
    """Add an epoch's line to the log."""
    try:
        with open(run.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(record, allow_nan=False) + "\n")
            log.flush()
            os.fsync(log.fileno())
    except OSError as error:
        raise ReproError(f"cannot write '{run.log}': {error.strerror}; mend that and add --resume") from error


def cut_log(run: Run, epochs: int) -> None:
    """Keep the lines of the first `epochs` epochs: what a checkpoint of that time knows."""
    if run.log.exists():
        lines = run.log.read_bytes().splitlines(keepends=True)[:epochs]
        atomic.write(run.log, b"".join(lines))


def data_record(store: Store) -> dict[str, Any]:
    """What a run's record says of its data."""
    return {
        "dataset": store.dataset,
        "name": store.path.resolve().name,
        "path": str(store.path),
        "fingerprint": store.fingerprint,
        "size": store.size,
        "classes": [asdict(info) for info in store.classes],
        "images": {name: len(split) for name, split in store.splits.items()},
    }


def provenance() -> dict[str, Any]:
    """With what and where something was computed."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {
        "versions": {"repro": repro.__version__, **versions, "python": platform.python_version()},
        "machine": {"platform": platform.platform(), "processor": _processor(), "cpus": os.cpu_count()},
        "git_revision": _git_revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The commit of the checkout that runs, "+changes" added if it differs from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True)
        folder, _, revision = top.stdout.strip().partition("\n")
        if top.returncode != 0 or Path(folder) != Path(__file__).resolve().parents[1]:
            return None
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    return revision + ("+changes" if status.stdout.strip() else "")
