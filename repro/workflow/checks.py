"""Checks of work that is done already: whether it is whole, and what the same command would make now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from repro.baselines.settings import BaselineSettings
from repro.baselines.train import describe as describe_baseline
from repro.data.store import open_store
from repro.errors import ReproError
from repro.records.file_names import RUN
from repro.records.reading import read_checksum, read_evaluation, read_run
from repro.records.runs import Run
from repro.run_folder import differences
from repro.training.train import describe
from repro.verification.run import check_evaluations, verify_run
from repro.workflow.stages import Kind, Stage

AGAIN = "and the same command makes it again"


def check_done(stage: Stage) -> None:
    """Raise ReproError if the result of a stage is damaged or differs from what its command would make now.

    A training must have the settings, the data and the initial weights that `repro train --resume` demands of it; an
    evaluation must be of the same data and weights.
    """
    if stage.result is None or stage.kind in (Kind.PREPARE, Kind.REPORT):
        return
    folder = stage.result.parent
    problems = verify_run(folder) if (folder / RUN).exists() else check_evaluations(folder)
    if problems:
        raise ReproError(
            f"'{folder}' is done, but damaged: {'; '.join(problems)}; remove that evaluation, or the folder if it is "
            f"the log or the weights, {AGAIN}"
        )
    if stage.settings and stage.store:
        _check_training(read_run(folder), stage)
    elif stage.kind == Kind.EVALUATE and stage.store:
        _check_evaluation(stage.result, stage.store)


def _check_training(run: Run, stage: Stage) -> None:
    assert stage.settings
    assert stage.store
    store = open_store(stage.store)
    if isinstance(stage.settings, BaselineSettings):
        expected = describe_baseline(stage.settings, store)
    else:
        expected = describe(stage.settings, store)
    if run.epochs != expected.epochs:
        if not _ended_early(run):
            raise ReproError(
                f"'{run.folder}' is done, but of {run.epochs} epochs, not {expected.epochs}: ask for "
                f"--epochs {run.epochs}, choose another --out, or remove the folder, {AGAIN}"
            )
        expected = replace(expected, epochs=run.epochs, length=run.length)
    if stage.devices > 1 and len(run.devices) != stage.devices:
        raise ReproError(
            f"'{run.folder}' is done, but on {len(run.devices)} device, not on {stage.devices}: choose another --out, "
            f"or remove the folder, {AGAIN}"
        )
    if differing := differences(run, expected):
        raise ReproError(
            f"'{run.folder}' is done, but differs from what is asked for: {'; '.join(differing)}; choose another "
            f"--out, or remove the folder, {AGAIN}"
        )


def _ended_early(run: Run) -> bool:
    """Whether the run reached the training error that was to end it, so that the number of epochs did not matter."""
    return bool(run.log) and run.log[-1].train_top1_error <= (run.until_train_error or -1)


def _check_evaluation(path: Path, store: Path) -> None:
    evaluation = read_evaluation(path)
    if evaluation.data.fingerprint != open_store(store).fingerprint:
        raise ReproError(f"'{path}' is of other data than '{store}': remove it, {AGAIN}")
    found = zip(evaluation.run_folders, evaluation.checksums, strict=False)  # older evaluations have no checksums
    for folder, checksum in found:
        if read_checksum(folder) not in (None, checksum):
            raise ReproError(f"'{path}' is of other weights than '{folder}' has now: remove it, {AGAIN}")
