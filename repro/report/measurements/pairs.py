"""Quantities of two runs, variant against baseline, from their logs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product, takewhile
from statistics import fmean, stdev

from repro.paper.experiments import LR_GRIDS, epochs_to_error
from repro.paper.intervals import seed_interval, welch_interval
from repro.paper.targets import Measurement, Target
from repro.records.runs import Records, Run
from repro.report.measurements.context import Context, context_of, learning_changes
from repro.report.measurements.grid import build_grid, select_runs, speed_ratio
from repro.report.measurements.runs import RUN_MEASURES, epochs_to_train_error, finite, run_level
from repro.report.measurements.seeds import difference_over_seeds, mean_of


def from_runs(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the measurement of a quantity of runs in every context: a level, or variant against baseline."""
    groups: dict[Context, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in records.runs:
        groups[context_of(run)][run.variant].append(run)
    for context, variants in groups.items():
        firsts, seconds = (select_runs(variants.get(net or "", ())) for net in (target.variant, target.baseline))
        scale = context.scale
        nets = (target.variant, target.baseline)
        if all((net, context.recipe) in LR_GRIDS for net in nets):
            grids = [build_grid(variants.get(net or "", ())) for net in nets]
            measurement = speed_ratio(*grids)
            scale = replace(scale, incomplete_grid=not all(each and each.complete for each in grids))
        elif target.baseline:
            measurement = run_difference(target, firsts, seconds)
        else:
            measurement = run_level(target, firsts)
        if measurement and math.isfinite(measurement.value):
            used = [run for run in (*firsts, *seconds) if run.name in measurement.runs]
            scope = replace(context, scale=scale).scope()
            yield context, replace(measurement, scope=replace(scope, changes=(*scope.changes, *learning_changes(used))))


def run_difference(target: Target, firsts: Sequence[Run], seconds: Sequence[Run]) -> Measurement | None:
    """Return variant against baseline: over the seeds of both, or of one pair of runs."""
    if target.measure in PAIR_MEASURES:
        alike = [(a, b) for a, b in product(firsts, seconds) if a.log and b.log]
        pairs = [(a, b) for a, b in alike if a.seed == b.seed] or alike[:1]
        compared = [PAIR_MEASURES[target.measure](first, second) for first, second in pairs]
        known = [each for each in compared if each and math.isfinite(each.value)]
        if len(known) < 2:
            return known[0] if known else None
        return _mean_ratio(known) if target.kind == "ratio" else mean_of(known)
    single = RUN_MEASURES[target.measure]
    measured = [
        [each for run in runs if (each := single(run, target.argument)) and math.isfinite(each.value)]
        for runs in (firsts, seconds)
    ]
    if not all(measured):
        return None
    if min(map(len, measured)) < 2:
        return _minus(measured[0][0], measured[1][0])
    first, second = ([each.value for each in group] for group in measured)
    sampling = math.hypot(*(max(each.image_error for each in group) for group in measured))
    runs = (name for group in measured for each in group for name in each.runs)
    return difference_over_seeds(first, second, sampling, runs)


def _minus(first: Measurement, second: Measurement) -> Measurement:
    """Return first − second; independent intervals around their values add in squares."""
    value, runs = first.value - second.value, first.runs + second.runs
    if first.interval is None or second.interval is None:
        return Measurement(value, runs=runs)
    half = math.hypot(first.interval[1] - first.value, second.interval[1] - second.value)
    return Measurement(value, (value - half, value + half), first.n, first.over, runs=runs)


def _mean_ratio(ratios: Sequence[Measurement]) -> Measurement:
    """Return the geometric mean of independent ratios, which vary evenly on a logarithmic scale."""
    logs = [math.log(each.value) for each in ratios]
    interval = seed_interval(logs)
    assert interval
    return Measurement(
        math.exp(fmean(logs)), (math.exp(interval[0]), math.exp(interval[1])), len(logs), "seeds",
        runs=tuple(name for each in ratios for name in each.runs), deviation=stdev(logs),
    )  # fmt: skip


def _seconds_difference(first: Run, second: Run) -> Measurement | None:
    """Return seconds per epoch of a one-device run minus a two-device run, without the first epoch (warm-up)."""
    if len(first.devices) != 1 or len(second.devices) != 2:
        return None
    a, b = (finite(run.log[1:], "seconds") for run in (first, second))
    interval = welch_interval(a, b)
    value = fmean(a) - fmean(b) if a and b else math.nan
    return Measurement(value, interval, min(len(a), len(b)), "epochs", runs=(first.name, second.name))


def _common_error_difference(first: Run, second: Run) -> Measurement | None:
    """Return the epochs that the first takes, minus the second's, to the training error that both reach."""
    if not first.finished or not second.finished:
        return None
    lows = [min(finite(run.log, "train_top1_error"), default=math.nan) for run in (first, second)]
    if not all(map(math.isfinite, lows)):
        return None
    one, other = (epochs_to_train_error(run, str(max(lows))) for run in (first, second))
    return _minus(one, other) if one and other else None


def _convergence_ratio(first: Run, second: Run) -> Measurement | None:
    """Return the ratio of the epochs to the validation error that both reach before the learning rate first drops.

    At one learning rate the number of epochs measures the nets; after a drop it would measure the schedule.
    """
    if not first.finished or not second.finished:
        return None
    errors = [_val_errors_before_drop(run) for run in (first, second)]
    if not all(errors):
        return None
    level = max(map(min, errors))
    one, other = (epochs_to_error(each, level) for each in errors)
    return Measurement(one / other, runs=(first.name, second.name)) if one and other else None


def _val_errors_before_drop(run: Run) -> list[float]:
    constant = takewhile(lambda epoch: epoch.lr == run.log[0].lr, run.log)
    return [error if math.isfinite(error := epoch.val_top1_error) else 100.0 for epoch in constant]


PAIR_MEASURES: dict[str, Callable[[Run, Run], Measurement | None]] = {
    "seconds_per_epoch": _seconds_difference,
    "epochs_to_common_train_error": _common_error_difference,
    "epochs_to_common_val_error": _convergence_ratio,
}
