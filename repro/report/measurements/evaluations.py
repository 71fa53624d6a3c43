"""Errors on a split: a level, or the difference of two."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean

import numpy as np

from repro.paper.intervals import Interval, error_interval, paired_interval, seed_interval
from repro.paper.targets import Measurement, Target
from repro.paper.variants import ENSEMBLES
from repro.records import Evaluation, Records
from repro.report.measurements.context import Context, evaluation_scale

ERROR_MEASURES = ("top1_error", "top5_error", "split_difference")

SPLIT_NAMES = {"val": "validation", "test": "test", "train": "training"}


def from_evaluations(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the measurement of an error, or of a difference of two, in every context, split and number of views."""
    groups: dict[tuple[Context, str, int], dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for evaluation in records.evaluations:
        context = Context(evaluation.recipe, evaluation.data, evaluation_scale(records, evaluation))
        groups[context, evaluation.split, evaluation.views][net_name(records, evaluation)].append(evaluation)
    for (context, split, views), nets in groups.items():
        firsts = one_per_seeds(nets.get(target.variant, ()))
        if target.measure == "split_difference":
            others = one_per_seeds(groups.get((context, "val", views), {}).get(target.variant, ()))
            measurement = split_difference(firsts, others) if split == target.split else None
        elif target.baseline:
            # Views are compared in one direction only: one against ten.
            if target.baseline_views and views != target.views:
                continue
            baseline_views = target.baseline_views or views
            seconds = one_per_seeds(groups.get((context, split, baseline_views), {}).get(target.baseline, ()))
            measurement = error_difference(firsts, seconds, target.measure)
        else:
            measurement = error_level(firsts, target.measure)
        if measurement:
            yield context, replace(measurement, scope=context.scope(split, views))


def net_name(records: Records, evaluation: Evaluation) -> str:
    """Return the name of what was evaluated: its variant, or "5cnns" for an average of five.

    An average whose weights were searched has a name that no target uses, so that it is never compared with the
    paper's averages.
    """
    name = _members_name(records, evaluation)
    if not evaluation.weights:
        return name
    if evaluation.weights_selected_on == evaluation.split:
        return f"{name}, weights selected on these {SPLIT_NAMES.get(evaluation.split, evaluation.split)} images"
    return f"{name}, weights selected on {evaluation.weights_selected_on}"


def _members_name(records: Records, evaluation: Evaluation) -> str:
    if len(evaluation.runs) == 1:
        return evaluation.variant
    members = records.members(evaluation)
    known = len(members) == len(evaluation.runs)
    nets = Counter(run.variant for run in members) if known else Counter({evaluation.variant: len(evaluation.runs)})
    for name, parts in ENSEMBLES.items():
        if dict(parts) == nets:
            return name
    return " + ".join(f"{count} {variant}" for variant, count in nets.items())


def one_per_seeds(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return one evaluation per set of seeds, by seeds."""
    return [each for _, each in sorted({each.seeds: each for each in evaluations}.items())]


def error_level(evaluations: Sequence[Evaluation], metric: str) -> Measurement | None:
    """Return the mean error over seeds, in percent; of a single seed, with the exact interval over images."""
    evaluations = [each for each in evaluations if math.isfinite(each.error(metric)) and each.images > 0]
    if not evaluations:
        return None
    errors = [each.error(metric) for each in evaluations]
    runs = tuple("+".join(each.runs) for each in evaluations)
    if interval := seed_interval(errors):
        return Measurement(fmean(errors), interval, len(errors), "seeds", runs=runs)
    images = evaluations[0].images
    wrong = min(max(round(errors[0] * images / 100), 0), images)
    return Measurement(errors[0], error_interval(wrong, images), images, "images", runs=runs)


def error_difference(firsts: Sequence[Evaluation], seconds: Sequence[Evaluation], metric: str) -> Measurement | None:
    """Return error(first) − error(second) in points: over common seeds, else of one pair, paired by image.

    A net is paired with an average of several if its seed is among the average's.
    """
    finite = [pair for pair in product(firsts, seconds) if all(math.isfinite(each.error(metric)) for each in pair)]
    partners = [(a, b) for a, b in finite if set(a.seeds) <= set(b.seeds) or set(b.seeds) <= set(a.seeds)]
    if not finite:
        return None
    pairs = partners or finite[:1]
    differences = [first.error(metric) - second.error(metric) for first, second in pairs]
    runs = tuple(dict.fromkeys("+".join(each.runs) for pair in pairs for each in pair))
    if interval := seed_interval(differences):
        return Measurement(fmean(differences), interval, len(differences), "seeds", runs=runs)
    interval = _paired_images(*pairs[0], metric)
    return Measurement(differences[0], interval, pairs[0][0].images, "images", runs=runs)


def _paired_images(first: Evaluation, second: Evaluation, metric: str) -> Interval | None:
    one, other = first.wrong(metric), second.wrong(metric)
    if one is None or other is None or not np.array_equal(one[0], other[0]) or not len(one[0]):
        return None
    wrong_one, wrong_other = one[1], other[1]
    return paired_interval(int((wrong_one & ~wrong_other).sum()), int((wrong_other & ~wrong_one).sum()), len(wrong_one))


def split_difference(tests: Sequence[Evaluation], vals: Sequence[Evaluation]) -> Measurement | None:
    """Return |top-5 error on test − on val| of the same nets, in points."""
    pairs = [(test, val) for test in tests for val in vals if test.runs == val.runs]
    if not pairs:
        return None
    differences = [abs(test.top5_error - val.top5_error) for test, val in pairs]
    runs = tuple("+".join(test.runs) for test, _ in pairs)
    return Measurement(fmean(differences), seed_interval(differences), len(pairs), "seeds", runs=runs)
