"""Lenient reading: records of older versions, of unfinished runs and of damaged files are read as far as possible."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from repro.errors import ReproError
from repro.records.conversion import convert, read_json, read_record
from repro.records.file_names import ACTIVATIONS, CHECKPOINTS, EVALUATIONS, LOG, RETRIEVALS, RUN, WEIGHTS_CHECKSUM
from repro.records.runs import Activations, Evaluation, Records, Retrieval, Run, by_folder
from repro.records.schema import ActivationsRecord, EndRecord, EpochRecord, EvaluationRecord, RetrievalRecord, RunRecord


def read_run(folder: Path) -> Run:
    """Return the run in `folder`, or that of a `run.json`. Raises ReproError if there is none that can be read.

    The run's folder is `folder` as it was given, but absolute if it would otherwise have no name, as "." and "..".
    """
    folder = folder.parent if folder.name == RUN else folder
    folder = folder.resolve() if folder.name in ("", "..") else folder
    path = folder / RUN
    try:
        return _read_run(path, folder.name)
    except (FileNotFoundError, NotADirectoryError):
        what = f"it has no {RUN}" if folder.is_dir() or not folder.exists() else f"it is a file, and not a {RUN}"
        raise ReproError(f"no run at '{folder}': {what}; `repro train` makes runs") from None
    except (OSError, ValueError) as error:
        raise ReproError(f"'{path}' cannot be read ({error})") from error


def read_checksum(folder: Path) -> str | None:
    """Return the checksum that was written with the weights of the run in `folder`; None if there is none.

    Runs of older versions have none. Raises OSError if it cannot be read.
    """
    path = folder / WEIGHTS_CHECKSUM
    return path.read_text(encoding="utf-8", errors="replace").partition(" ")[0] if path.exists() else None


def read_evaluation(path: Path) -> Evaluation:
    """Return the evaluation at `path`. Raises OSError or ValueError if it cannot be read."""
    return Evaluation(folder=path.parent, **vars(read_record(path, EvaluationRecord)))


def read_retrieval(path: Path) -> Retrieval:
    """Return the retrieval at `path`. Raises OSError or ValueError if it cannot be read."""
    return Retrieval(folder=path.parent, **vars(read_record(path, RetrievalRecord)))


def read_activations(path: Path) -> Activations:
    """Return the activations at `path`. Raises OSError or ValueError if they cannot be read."""
    return Activations(folder=path.parent, **vars(read_record(path, ActivationsRecord)))


def read_records(folders: Path | Sequence[Path]) -> Records:
    """Return every run and all that was measured of them below one or several folders; none of those that do not exist.

    With several folders the name of a run starts with that of its folder, with as many parents as make it unique. A
    record in two of the folders, one of which contains the other, is read once. What cannot be read is left out, and so
    is an evaluation of other weights than its runs have now.
    """
    runs: list[Run] = []
    evaluations: dict[str, Evaluation] = {}
    retrievals: list[Retrieval] = []
    activations: list[Activations] = []
    problems: list[str] = []
    found: dict[Path, tuple[Path, str]] = {}
    for folder, label in _labels([folders] if isinstance(folders, Path) else folders).items():
        if not folder.is_dir():
            problems.append(f"there is no folder {folder}")
        for path in sorted(folder.rglob("*.json")):
            name = (PurePosixPath(label) / path.relative_to(folder).as_posix()).as_posix()
            found.setdefault(path.resolve(), (path, name))
    for path, name in found.values():
        if path.parent.name == CHECKPOINTS and (path.parents[1] / RUN).exists():
            continue
        try:
            if path.name == RUN:
                runs.append(_read_run(path, name.removesuffix(RUN).rstrip("/") or "."))
            elif path.match(EVALUATIONS):
                evaluations[name] = read_evaluation(path)
            elif path.match(RETRIEVALS):
                retrievals.append(read_retrieval(path))
            elif path.match(ACTIVATIONS):
                activations.append(read_activations(path))
        except (OSError, ValueError) as error:
            problems.append(f"{name} was left out: {error}")
    found_runs = by_folder(runs)
    for name, evaluation in list(evaluations.items()):
        if retrained := evaluation.retrained(found_runs):
            problems.append(f"{name} was left out: it is of other weights than '{retrained[0].name}' has now")
            del evaluations[name]
    for run in runs:
        if run.log and not math.isfinite(run.log[-1].train_loss):
            problems.append(f"{run.name}: the loss is not finite after epoch {_last_finite(run)}")
    return Records(tuple(runs), tuple(evaluations.values()), tuple(retrievals), tuple(activations), tuple(problems))


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the prefix of the names of the runs in each folder: empty for one, ends of their paths for several."""
    parts = {folder.resolve().parts: folder for folder in reversed(folders)}
    if len(parts) < 2:
        return dict.fromkeys(parts.values(), "")
    length = next(n for n in range(1, 1 + max(map(len, parts))) if len({each[-n:] for each in parts}) == len(parts))
    return {folder: "/".join(each[-length:]) for each, folder in reversed(parts.items())}


def _last_finite(run: Run) -> int:
    return max((epoch.epoch for epoch in run.log if math.isfinite(epoch.train_loss)), default=0)


def _read_run(path: Path, name: str) -> Run:
    content = read_json(path)
    log = tuple(read_log(path.parent / LOG))
    run = Run(folder=path.parent, name=name, log=log, **vars(convert(content, RunRecord)))
    return run if "ended" in content else dataclasses.replace(run, ended=_derive_end(run))


def _derive_end(run: Run) -> EndRecord | None:
    """Return how a run of an older version ended, which did not record it."""
    reason = end_reason(run, run.log)
    if reason is None and run.has_weights:
        reason = "plateau" if run.log and "patience" in run.schedule else "unknown"
    elif reason is None and _plateau_ended(run):
        reason = "plateau"
    return EndRecord(reason, len(run.log)) if reason else None


def end_reason(record: RunRecord, log: Sequence[EpochRecord]) -> str | None:
    """Return why training ends after the last epoch of `log`, see `EndRecord`; None if the log does not show it."""
    if not log:
        return None
    if log[-1].epoch >= record.epochs:
        return "epochs"
    until = record.until_train_error
    return "until_train_error" if until is not None and log[-1].train_top1_error <= until else None


def _plateau_ended(run: Run) -> bool:
    """Return whether the validation error has not improved for `patience` epochs at the lowest learning rate."""
    try:
        patience, drops = int(run.schedule["patience"]), int(run.schedule["drops"])
    except (KeyError, TypeError, ValueError):
        return False
    lowest = [epoch for epoch in run.log if math.isclose(epoch.lr, run.lr * 0.1**drops)]
    if len(lowest) < patience:
        return False
    before = run.log[: len(run.log) - patience]
    best = min((epoch.val_top1_error for epoch in before), default=math.nan)
    return all(epoch.val_top1_error >= best for epoch in run.log[-patience:])


def read_log(path: Path) -> Iterator[EpochRecord]:
    """Yield the epochs of a log in order, each once: of an epoch that was repeated, the last line.

    Lines that cannot be read, such as an incomplete last one, are skipped; so is a log that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    epochs: dict[int, EpochRecord] = {}
    for line in lines:
        try:
            epoch = convert(json.loads(line), EpochRecord)
        except ValueError:
            continue
        epochs[epoch.epoch] = epoch
    yield from (epochs[number] for number in sorted(epochs))


def check_epoch(line: str | bytes) -> EpochRecord:
    """Return the epoch of a complete line of a log. Raises ValueError that names the field that is missing or wrong."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    for each in dataclasses.fields(EpochRecord):
        if each.name not in content and each.name != "note":
            raise ValueError(f"{each.name} is missing")
        value = content.get(each.name)
        if each.metadata.get("null") and value is None:
            content[each.name] = math.nan
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{each.name} is {value}, not a finite number")
    return msgspec.convert(content, EpochRecord)
