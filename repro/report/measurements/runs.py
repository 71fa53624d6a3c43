"""Quantities of a single run, from its log, its data or its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median

from scipy.stats import norm

from repro.errors import ReproError
from repro.paper.experiments import epochs_to_error
from repro.paper.intervals import seed_interval
from repro.paper.targets import Measurement, Target
from repro.records import EpochRecord, Run
from repro.report.measurements.context import specified
from repro.report.measurements.conv1 import oriented_share, tower_colour_difference
from repro.report.measurements.grid import train_errors

Z = float(norm.ppf(0.975))

RunMeasure = Callable[[Run, str], Measurement | None]


def run_level(target: Target, runs: Sequence[Run]) -> Measurement | None:
    """Return the mean over runs of the target's quantity, or what the target's measure takes in its place."""
    measured = {run.name: RUN_MEASURES[target.measure](run, target.argument) for run in runs}
    known = {name: each for name, each in measured.items() if each and math.isfinite(each.value)}
    if not known:
        return None
    if target.measure in EVERY_RUN:  # "in every run": the run that shows it least
        return min(known.values(), key=lambda each: each.interval[0] if each.interval else -math.inf)
    first = next(iter(known.values()))
    if len(known) == 1 or first.over == "counted":
        return first
    values = [each.value for each in known.values()]
    return Measurement(fmean(values), seed_interval(values), len(values), "seeds", runs=tuple(known))


def finite(log: Iterable[EpochRecord], name: str) -> list[float]:
    """Return the finite values of one field of a log."""
    return [value for epoch in log if math.isfinite(value := getattr(epoch, name))]


def _of_log(read: Callable[[tuple[EpochRecord, ...]], float]) -> RunMeasure:
    """Return the measure of a number that is read from the log of a finished run."""

    def measured(run: Run, _: str) -> Measurement | None:
        return Measurement(read(run.log), runs=(run.name,)) if run.log and run.finished else None

    return measured


def _final_train_error(run: Run, _: str) -> Measurement | None:
    if not run.log or not run.finished:
        return None
    error = run.log[-1].train_top1_error
    return _sampled(run, error, [(error, "train")])


def _overfit_gap(run: Run, _: str) -> Measurement | None:
    """Return validation minus training error after the last epoch, in points."""
    if not run.log or not run.finished:
        return None
    val, train = run.log[-1].val_top1_error, run.log[-1].train_top1_error
    return _sampled(run, val - train, [(val, "val"), (train, "train")])


def _sampled(run: Run, value: float, errors: Sequence[tuple[float, str]]) -> Measurement:
    """Return a sum of errors with the interval that the numbers of images imply (normal approximation)."""
    counts = [run.data.images.get(split, 0) for _, split in errors]
    if not all(counts):
        return Measurement(value, runs=(run.name,))
    variance = sum(error * (100 - error) / images for (error, _), images in zip(errors, counts, strict=True))
    half = Z * math.sqrt(max(variance, 0.0))
    return Measurement(value, (value - half, value + half), min(counts), "images", runs=(run.name,))


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
        complete = run.finished and run.epochs >= specified(run.variant, run.recipe, run.scale).epochs
    except ReproError:  # recorded by another version
        complete = False
    return Measurement(best, runs=(run.name,)) if complete else None


def _epochs_to_converge(log: tuple[EpochRecord, ...]) -> float:
    """Return the first epoch whose validation error is within one point of the run's best."""
    best = min(finite(log, "val_top1_error"), default=math.nan)
    return next((epoch.epoch for epoch in log if epoch.val_top1_error <= best + 1), math.nan)


def _rate_drops(log: tuple[EpochRecord, ...]) -> float:
    return sum(after < before / 5 for before, after in pairwise(finite(log, "lr")))


def _images(run: Run, splits: str) -> Measurement | None:
    counts = [run.data.images[split] for split in splits.split("+") if split in run.data.images]
    return Measurement(sum(counts), over="counted", runs=(run.name,)) if counts else None


def _classes(run: Run, _: str) -> Measurement | None:
    return Measurement(len(run.data.classes), over="counted", runs=(run.name,)) if run.data.classes else None


RUN_MEASURES: dict[str, RunMeasure] = {
    "best_train_error": _best_train_error,
    "final_train_error": _final_train_error,
    "first_train_loss": _of_log(lambda log: log[0].train_loss),
    "overfit_gap": _overfit_gap,
    "epochs": _of_log(lambda log: len(log)),
    "rate_drops": _of_log(_rate_drops),
    "training_days": _of_log(lambda log: sum(finite(log, "seconds")) / 86_400),
    "images_per_second": _of_log(lambda log: median(finite(log, "images_per_second") or [math.nan])),
    "epochs_to_train_error": epochs_to_train_error,
    "epochs_to_converge": _of_log(_epochs_to_converge),
    "images": _images,
    "classes": _classes,
    "tower_colour_difference": tower_colour_difference,
    "oriented_share": oriented_share,
}
DATASET_MEASURES = ("images", "classes")  # on another dataset they are no measurement at all
EVERY_RUN = ("tower_colour_difference", "oriented_share")
