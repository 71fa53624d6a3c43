"""Quantities of two runs, variant against baseline, from their logs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean

from repro.paper.experiments import LR_GRIDS
from repro.paper.intervals import seed_interval, welch_interval
from repro.paper.targets import Measurement, Target
from repro.records import Records, Run
from repro.report.measurements.context import Context, context_of
from repro.report.measurements.grid import build_grid, select_runs, speed_ratio
from repro.report.measurements.runs import DATASET_MEASURES, RUN_MEASURES, epochs_to_train_error, finite, run_level


def from_runs(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the measurement of a quantity of runs in every context: a level, or variant against baseline."""
    groups: dict[Context, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in records.runs:
        groups[context_of(run)][run.variant].append(run)
    for context, variants in groups.items():
        if target.measure in DATASET_MEASURES and context.data.dataset != target.dataset:
            continue
        firsts = select_runs(variants.get(target.variant, ()))
        scale = context.scale
        nets = (target.variant, target.baseline)
        if all((net, context.recipe) in LR_GRIDS for net in nets):
            grids = [build_grid(variants.get(net or "", ())) for net in nets]
            measurement = speed_ratio(*grids)
            scale = replace(scale, incomplete_grid=not all(each and each.complete for each in grids))
        elif target.baseline:
            measurement = run_difference(target, firsts, select_runs(variants.get(target.baseline, ())))
        else:
            measurement = run_level(target, firsts)
        if measurement and math.isfinite(measurement.value):
            yield context, replace(measurement, scope=replace(context, scale=scale).scope())


def run_difference(target: Target, firsts: Sequence[Run], seconds: Sequence[Run]) -> Measurement | None:
    """Return variant against baseline: over the seeds that both have, else one run against one."""
    alike = [(a, b) for a, b in product(firsts, seconds) if a.log and b.log]
    pairs = [(a, b) for a, b in alike if a.seed == b.seed] or alike[:1]
    if target.measure in PAIR_MEASURES:
        compared = [PAIR_MEASURES[target.measure](first, second) for first, second in pairs]
        known = [each for each in compared if each]
    else:
        single = RUN_MEASURES[target.measure]
        both = [(single(first, target.argument), single(second, target.argument)) for first, second in pairs]
        combine = _ratio if target.kind == "ratio" else _minus
        known = [combine(first, second) for first, second in both if first and second]
    known = [each for each in known if math.isfinite(each.value)]
    if len(known) < 2:
        return known[0] if known else None
    runs = tuple(dict.fromkeys(name for each in known for name in each.runs))
    values = [each.value for each in known]
    if target.kind == "ratio":  # ratios vary evenly on a logarithmic scale
        logs = seed_interval([math.log(value) for value in values])
        assert logs
        centre = math.exp(fmean(math.log(value) for value in values))
        return Measurement(centre, (math.exp(logs[0]), math.exp(logs[1])), len(values), "seeds", runs=runs)
    return Measurement(fmean(values), seed_interval(values), len(values), "seeds", runs=runs)


def _minus(first: Measurement, second: Measurement) -> Measurement:
    """Return first − second; independent intervals around their values add in squares."""
    value, runs = first.value - second.value, first.runs + second.runs
    if first.interval is None or second.interval is None:
        return Measurement(value, runs=runs)
    half = math.hypot(first.interval[1] - first.value, second.interval[1] - second.value)
    return Measurement(value, (value - half, value + half), first.n, first.over, runs=runs)


def _ratio(first: Measurement, second: Measurement) -> Measurement:
    return Measurement(first.value / second.value if second.value > 0 else math.nan, runs=first.runs + second.runs)


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
    lows = [min(finite(run.log, "train_top1_error"), default=math.nan) for run in (first, second)]
    if not all(map(math.isfinite, lows)):
        return None
    one, other = (epochs_to_train_error(run, str(max(lows))) for run in (first, second))
    return _minus(one, other) if one and other else None


PAIR_MEASURES: dict[str, Callable[[Run, Run], Measurement | None]] = {
    "seconds_per_epoch": _seconds_difference,
    "epochs_to_common_train_error": _common_error_difference,
}
