"""The folder of a run that is being trained: lock, `run.json` and log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec

from repro import atomic
from repro.errors import ReproError
from repro.formatting import file_size
from repro.locks import exclusive
from repro.paper.recipes import HeldOut
from repro.records.conversion import finite_number
from repro.records.file_names import LOCK, MEASUREMENTS, RUN, UNTRAINED_ACTIVATIONS, WEIGHTS
from repro.records.reading import read_log, read_run
from repro.records.runs import Run
from repro.records.schema import EndRecord, EpochRecord, RunRecord
from repro.records.writing import to_json, write_record, write_weights


@contextmanager
def locked_run(
    folder: Path, record: RunRecord, resume: bool, checkpoint_bytes: int = atomic.RECORD_BYTES
) -> Iterator[Run]:
    """Create the run in `folder`, or open it to `resume` it, and lock it within the context.

    A run that is resumed with more epochs than it was started with gets them, see `_extend`.

    Raises ReproError if another process is training in `folder`, if it cannot be created, if a checkpoint of
    `checkpoint_bytes` cannot be written to it, if it holds a run and `resume` is not set, or if it holds a run that
    differs from `record` in what decides the result.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReproError(
            f"cannot create the run's folder '{folder}': {error.strerror}; choose another --out"
        ) from error
    with exclusive(folder / LOCK, f"another process is training in '{folder}': wait for it, or stop it"):
        try:
            if not (folder / WEIGHTS).exists():  # before the work, because the first checkpoint is due minutes later
                atomic.check_writable(folder, f"a checkpoint of {file_size(checkpoint_bytes)}", checkpoint_bytes)
            run = _open(folder, record, resume)
        except ReproError:
            _remove_if_empty(folder)
            raise
        yield run


def _open(folder: Path, record: RunRecord, resume: bool) -> Run:
    if not any(not each.name.startswith(".") for each in folder.iterdir()):  # a `run.json` may be incomplete
        write_record(folder / RUN, record)
        return read_run(folder)
    if not resume:
        raise ReproError(f"'{folder}' already holds a run: add --resume to continue it, or choose another --out")
    run = read_run(folder)
    if record.epochs > run.epochs and not differences(run, replace(record, epochs=run.epochs, length=run.length)):
        return _extend(run, record)
    if differing := differences(run, record):
        raise ReproError(f"'{folder}' holds a different run: {'; '.join(differing)}; choose another --out")
    return run


def _extend(run: Run, record: RunRecord) -> Run:
    """Give a run more epochs: a finished one is unfinished again, and continues from its last checkpoint.

    The schedule is defined by the epochs so far, not by their total, so the result is that of a run of as many epochs
    from the start. What was measured of the weights is removed with them. Raises ReproError for a finished run whose
    checkpoints were not kept, and where the result would differ, see `_check_prefix`.
    """
    _check_prefix(run, record)
    if run.finished:
        if not run.checkpoints:
            raise ReproError(
                f"'{run.folder}' is finished after {run.epochs} epochs and has no checkpoint to continue from: train "
                "it again with --keep-checkpoints in another --out"
            )
        _remove_measurements(run)
        run.checksum_path.unlink(missing_ok=True)
        run.weights_path.unlink(missing_ok=True)
    write_record(run.folder / RUN, record)
    return read_run(run.folder)


def _check_prefix(run: Run, record: RunRecord) -> None:
    """Raise ReproError unless the epochs of `run` are the first ones of the longer run that `record` describes."""
    length, anew = _length(run), "train it anew with another --out"
    if length != run.epochs:
        raise ReproError(f"'{run.folder}' ends within an epoch, after {length:g}, and a longer run does not: {anew}")
    held_out = msgspec.convert(record.settings.get("held_out"), HeldOut | None)
    if held_out and held_out.applies(record.epochs) and not held_out.applies(run.epochs):
        raise ReproError(
            f"'{run.folder}' trains on all images from the start, and a run of more than {held_out.epochs} epochs "
            f"holds some of them out at first: {anew}"
        )


def _length(run: RunRecord) -> float:
    """Return the maximum length of a run in epochs; of an older version's, the recipe's if it has as many epochs."""
    if run.length is not None:
        return run.length
    scheduled = finite_number(run.schedule.get("epochs"))
    return scheduled if run.epochs - 1 < scheduled < run.epochs else run.epochs


def finish_run(run: Run, reason: str, weights: bytes) -> None:
    """Record that training ended for `reason` (see `EndRecord`), and write the weights, a safetensors file's content.

    A run that is killed before its weights are written still has the checkpoint from which it is finished. Raises
    ReproError if a file cannot be written.
    """
    ended = EndRecord(reason, len(tuple(read_log(run.log_path))), hashlib.sha256(weights).hexdigest())
    record = RunRecord(**{each.name: getattr(run, each.name) for each in fields(RunRecord)})
    write_record(run.folder / RUN, replace(record, ended=ended))
    write_weights(run.folder, weights)


def _remove_measurements(run: Run) -> None:
    """Remove what was measured of the trained weights; activations of the initial ones stay."""
    for pattern in MEASUREMENTS:
        for path in sorted(run.folder.glob(pattern)):
            if not path.match(UNTRAINED_ACTIVATIONS):
                path.unlink()


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no run could be created."""
    with suppress(OSError):
        if {each.name for each in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def differences(before: RunRecord, now: RunRecord) -> list[str]:
    """Return where two runs' records differ in what decides the result, a phrase each."""
    names = ("variant", "recipe", "scale", "seed", "epochs", "until_train_error", "precision", "init_from", "network")
    old, new = (_comparable(record) for record in (before, now))
    pairs = [(name, old[name], new[name]) for name in names]
    if old["epochs"] == new["epochs"] and None not in (old["length"], new["length"]):  # older versions lack it
        pairs.append(("length in epochs", old["length"], new["length"]))
    pairs += [
        (name, old["settings"][name], value)
        for name, value in new["settings"].items()
        if name not in ("name", "source") and name in old["settings"]  # older versions lack some
    ]
    pairs.append(("data fingerprint", old["data"]["fingerprint"], new["data"]["fingerprint"]))
    return [
        f"its {name} differs" if name == "network" else f"its {name} is {was}, not {is_}"
        for name, was, is_ in pairs
        if was != is_
    ]


def _comparable(record: RunRecord) -> dict[str, Any]:
    """Return the record as it is read from a file, where tuples are lists."""
    content: dict[str, Any] = json.loads(json.dumps(msgspec.to_builtins(record, enc_hook=str)))
    return content


def append_log(run: Run, epoch: EpochRecord) -> None:
    """Append an epoch to the log. Raises ReproError if it cannot be written."""
    try:
        with open(run.log_path, "a", encoding="utf-8") as log:
            log.write(json.dumps(to_json(epoch)) + "\n")
            atomic.sync(log)
    except OSError as error:
        raise ReproError(f"cannot write '{run.log_path}': {error.strerror}; fix that and add --resume") from error


def truncate_log(run: Run, epochs: int) -> None:
    """Keep the first `epochs` lines of the log, which are those that a checkpoint of that epoch includes."""
    if run.log_path.exists():
        lines = run.log_path.read_bytes().splitlines(keepends=True)[:epochs]
        atomic.write(run.log_path, b"".join(lines))
