"""Quantities of a single run, from its log, its data or its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from repro.errors import ReproError
from repro.paper.experiments import epochs_to_error
from repro.paper.intervals import Z
from repro.paper.targets import Measurement, Target
from repro.records.runs import Run
from repro.records.schema import EpochRecord
from repro.report.measurements.context import specified
from repro.report.measurements.conv1 import oriented_share, tower_colour_difference
from repro.report.measurements.evaluations import binomial_error
from repro.report.measurements.grid import train_errors
from repro.report.measurements.seeds import mean_of

RunMeasure = Callable[[Run, str], Measurement | None]


def run_level(target: Target, runs: Sequence[Run]) -> Measurement | None:
    """Return the mean over runs of the target's quantity, or what the target's measure takes in its place."""
    measured = [RUN_MEASURES[target.measure](run, target.argument) for run in runs]
    known = [each for each in measured if each and math.isfinite(each.value)]
    if not known:
        return None
    if target.measure in EVERY_RUN:  # "in every run": the run that shows it least
        return min(known, key=lambda each: each.interval[0] if each.interval else -math.inf)
    return known[0] if len(known) == 1 else mean_of(known, rates=target.unit == "%")


def finite(log: Iterable[EpochRecord], name: str) -> list[float]:
    """Return the finite values of one field of a log."""
    return [value for epoch in log if math.isfinite(value := getattr(epoch, name))]


def _of_log(read: Callable[[tuple[EpochRecord, ...]], float]) -> RunMeasure:
    """Return the measure of a number that is read from the log of a run that has ended."""

    def measured(run: Run, _: str) -> Measurement | None:
        return Measurement(read(run.log), runs=(run.name,)) if run.log and run.finished else None

    return measured


def final_error(run: Run, split: str) -> Measurement | None:
    """Return the "train" or "val" error of the last epoch, with the interval that the number of images implies."""
    if not run.log or not run.finished:
        return None
    error, images = getattr(run.log[-1], f"{split}_top1_error"), run.data.images.get(split, 0)
    if not images:
        return Measurement(error, runs=(run.name,))
    sampling = binomial_error(error, images)
    interval = (max(error - Z * sampling, 0.0), min(error + Z * sampling, 100.0))
    return Measurement(error, interval, images, "images", runs=(run.name,), image_error=sampling)


def epochs_to_train_error(run: Run, level: str) -> Measurement | None:
    """Return the epoch at which the training error reaches `level` percent; None if it does not."""
    reached = epochs_to_error(train_errors(run), float(level))
    return None if reached is None else Measurement(reached, runs=(run.name,))


def _best_train_error(run: Run, sufficient: str) -> Measurement | None:
    """Return the lowest training error; of a run that was cut short, only if it is `sufficient` already."""
    best = min(finite(run.log, "train_top1_error"), default=math.nan)
    if sufficient and best <= float(sufficient):
        return Measurement(best, runs=(run.name,))
    try:
        expected = specified(run.variant, run.recipe, run.scale, run.data.dataset).epochs
        complete = run.finished and run.epochs >= expected
    except ReproError:  # recorded by another version
        complete = False
    return Measurement(best, runs=(run.name,)) if complete else None


def _training_days(run: Run, _: str) -> Measurement | None:
    """Return the duration of a run of whose epochs none is missing; NaN if one has no duration."""
    if run.ended is None or len(run.log) != run.ended.epochs:
        return None
    return Measurement(sum(epoch.seconds for epoch in run.log) / 86_400, runs=(run.name,))


RUN_MEASURES: dict[str, RunMeasure] = {
    "best_train_error": _best_train_error,
    "final_train_error": lambda run, _: final_error(run, "train"),
    "first_train_error": _of_log(lambda log: log[0].train_top1_error),
    "training_days": _training_days,
    "images_per_second": _of_log(lambda log: median(finite(log, "images_per_second") or [math.nan])),
    "epochs_to_train_error": epochs_to_train_error,
    "tower_colour_difference": tower_colour_difference,
    "oriented_share": oriented_share,
}
EVERY_RUN = ("tower_colour_difference", "oriented_share")
