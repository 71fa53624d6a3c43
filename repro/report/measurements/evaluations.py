"""Errors on a split: a level, or the difference of two."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

import numpy as np

from repro.paper.baselines import BASELINES, RECIPE
from repro.paper.intervals import (
    Interval,
    Z,
    error_interval,
    image_error,
    paired_interval,
    seed_interval,
)
from repro.paper.targets import Measurement, Scope, Target
from repro.paper.variants import ensemble_of
from repro.records.runs import Evaluation, Records
from repro.report.measurements.context import Context, RunScale, data_changes, evaluation_scale
from repro.report.measurements.pretraining import pretraining_changes
from repro.report.measurements.seeds import difference_over_seeds, mean_of, mean_over_seeds

ERROR_MEASURES = ("top1_error", "top5_error", "split_difference", "next_four_gain")

SPLIT_NAMES = {"val": "validation", "test": "test", "train": "training"}


@dataclass(frozen=True)
class EvaluationKey:
    """What evaluations must share to be compared."""

    context: Context
    split: str
    views: int


Groups = Mapping[EvaluationKey, Mapping[str, Sequence[Evaluation]]]


@lru_cache(maxsize=2)  # every target asks for them
def group_evaluations(records: Records) -> Groups:
    """Return the evaluations by what they share, then by net; of each net one per set of seeds."""
    groups: dict[EvaluationKey, dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for evaluation in records.evaluations:
        context = Context(evaluation.recipe, evaluation.data, evaluation_scale(records, evaluation))
        key = EvaluationKey(context, evaluation.split, evaluation.views)
        groups[key][net_name(records, evaluation)].append(evaluation)
    return {key: {net: one_per_seeds(each) for net, each in nets.items()} for key, nets in groups.items()}


def from_evaluations(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the measurement of an error, or of a difference of two, in every context, split and number of views.

    Errors on the training images, which no such target is about, are left out.
    """
    groups = group_evaluations(records)
    for key, nets in groups.items():
        if key.split == "train" or (target.measure == "top5_error" and not key.context.data.has_top5_error):
            continue
        firsts, seconds = nets.get(target.variant, ()), baseline_evaluations(target, groups, key)
        if target.measure == "split_difference":
            measurement = split_difference(firsts, seconds)
        elif target.measure == "next_four_gain":
            measurement = next_four_gain(firsts)
        elif target.baseline:
            measurement = error_difference(target, firsts, seconds)
        else:
            measurement = error_level(firsts, target.measure)
        if measurement:
            used = [each for each in (*firsts, *seconds) if _run_names([each])[0] in measurement.runs]
            yield key.context, replace(measurement, scope=evaluation_scope(key, records, used))


def baseline_evaluations(target: Target, groups: Groups, key: EvaluationKey) -> Sequence[Evaluation]:
    """Return the evaluations that those of the target's variant under `key` are compared with, if any."""
    if target.measure == "split_difference":
        val = replace(key, split="val")
        return groups.get(val, {}).get(target.variant, ()) if key.split == target.split else ()
    # Views are compared in one direction only: one against ten.
    if target.baseline is None or (target.baseline_views and key.views != target.views):
        return ()
    baseline_key = replace(key, views=target.baseline_views or key.views)
    if target.baseline in BASELINES:  # whatever the recipe of the net, and what was changed in its training
        context = replace(key.context, recipe=RECIPE, scale=RunScale(key.context.scale.name))
        baseline_key = replace(baseline_key, context=context)
    return groups.get(baseline_key, {}).get(target.baseline, ())


def evaluation_scope(key: EvaluationKey, records: Records, evaluations: Iterable[Evaluation]) -> Scope:
    """Return the scope of a measurement from `evaluations`, with what differs from the paper's images and training."""
    scope = key.context.scope(key.split, key.views)
    changes = list(scope.changes)
    for each in evaluations:
        images = each.data.images.get(each.split, 0)
        if each.images != images:
            changes.append(f"evaluated on {each.images:,} of {images:,} {each.split} images")
        members = records.members(each)
        if len(members) < len(each.runs):
            changes.append("training not recorded")
        for data in {run.data for run in members}:
            if data.dataset != each.data.dataset:
                changes.append(f"trained on {data.label}")
            changes += data_changes(data)
        for run in members:
            changes += pretraining_changes(run, records)
    return replace(scope, changes=tuple(dict.fromkeys(changes)))


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
    if name := ensemble_of(nets):
        return name
    return " + ".join(f"{count} {variant}" for variant, count in nets.items())


def one_per_seeds(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return one evaluation per set of seeds, by seeds. The order in which the runs of an average are named is none."""

    def members(evaluation: Evaluation) -> list[tuple[str, int]]:
        mixed = "+" in evaluation.variant  # seeds of different nets are told apart by the names of their runs
        names = evaluation.runs if mixed else [""] * len(evaluation.seeds)
        return sorted(zip(names, evaluation.seeds, strict=False))

    return [each for _, each in sorted({tuple(members(each)): each for each in evaluations}.items())]


def error_level(evaluations: Sequence[Evaluation], metric: str) -> Measurement | None:
    """Return the mean error over seeds, in percent; of a single seed, with the exact interval over images."""
    evaluations = [each for each in evaluations if math.isfinite(each.error(metric)) and each.images > 0]
    if not evaluations:
        return None
    errors = [each.error(metric) for each in evaluations]
    mean, images = fmean(errors), min(each.images for each in evaluations)
    runs = _run_names(evaluations)
    if len(errors) == 1:
        wrong = min(max(round(mean * images / 100), 0), images)
        return Measurement(mean, error_interval(wrong, images), images, "images", runs=runs)
    return mean_over_seeds(errors, binomial_error(mean, images), runs, rates=True)


def error_difference(target: Target, firsts: Sequence[Evaluation], seconds: Sequence[Evaluation]) -> Measurement | None:
    """Return error(first) − error(second) in points; None if either is missing."""
    firsts, seconds = (
        [each for each in evaluations if math.isfinite(each.error(target.measure)) and each.images > 0]
        for evaluations in (firsts, seconds)
    )
    if not firsts or not seconds:
        return None
    if target.baseline == target.variant:
        return _views_difference(firsts, seconds, target.measure)
    if target.within_net:
        return _ensemble_difference(firsts, seconds, target.measure)
    return nets_difference(firsts, seconds, target.measure)


def nets_difference(firsts: Sequence[Evaluation], seconds: Sequence[Evaluation], metric: str) -> Measurement:
    """Return the difference of two nets: over the seeds of both, or of one pair of nets, paired by image.

    With at least two seeds of each the nets are independent samples (Welch). One pair, of the same seed if there is
    one, says only how these two nets differ.
    """
    if min(len(firsts), len(seconds)) > 1:
        first, second = ([each.error(metric) for each in evaluations] for evaluations in (firsts, seconds))
        sampling = sampling_error(firsts, seconds, metric)
        return difference_over_seeds(first, second, sampling, _run_names([*firsts, *seconds]))
    pairs = [(first, second) for first in firsts for second in seconds]
    return _one_pair(*next((pair for pair in pairs if pair[0].seeds == pair[1].seeds), pairs[0]), metric)


def _views_difference(firsts: Sequence[Evaluation], seconds: Sequence[Evaluation], metric: str) -> Measurement | None:
    """Return the difference of two numbers of views: over nets, or of one net, paired by image."""
    pairs = [(first, second) for first in firsts for second in seconds if first.runs == second.runs]
    if len(pairs) < 2:
        return _one_pair(*pairs[0], metric) if pairs else None
    differences = [first.error(metric) - second.error(metric) for first, second in pairs]
    sampling = sampling_error([first for first, _ in pairs], [second for _, second in pairs], metric)
    return mean_over_seeds(differences, sampling, _run_names([first for first, _ in pairs]))


def _ensemble_difference(nets: Sequence[Evaluation], averages: Sequence[Evaluation], metric: str) -> Measurement | None:
    """Return the mean error of an average's nets minus that of the average, paired by image.

    The nets of one average are not independent of it, nor of each other through it: one average is one observation,
    whose interval covers the sampling of the images only.
    """
    found = []
    for average in averages:
        members = [net for net in nets if set(net.runs) <= set(average.runs)]
        if len(members) == 1:
            found.append(_one_pair(members[0], average, metric))
        elif members:
            value = fmean(net.error(metric) for net in members) - average.error(metric)
            sampling = sampling_error(members, [average], metric)
            interval = (value - Z * sampling, value + Z * sampling)
            runs = _run_names([*members, average])
            found.append(Measurement(value, interval, average.images, "images", runs=runs, image_error=sampling))
    if len(found) < 2:
        return found[0] if found else None
    return mean_of(found)


def _one_pair(first: Evaluation, second: Evaluation, metric: str) -> Measurement:
    """Return the difference of two evaluations, paired by image; without an interval if they cannot be paired."""
    difference = first.error(metric) - second.error(metric)
    wrong = wrong_answers([first, second], metric)
    interval, sampling = None, 0.0
    if wrong is not None:
        only_first, only_second = (wrong[0] & ~wrong[1]).sum(), (wrong[1] & ~wrong[0]).sum()
        interval = paired_interval(int(only_first), int(only_second), wrong.shape[1])
        sampling = image_error(wrong[:1], wrong[1:])
    runs = _run_names([first, second])
    return Measurement(difference, interval, first.images, "images", runs=runs, image_error=sampling)


def sampling_error(firsts: Sequence[Evaluation], seconds: Sequence[Evaluation], metric: str) -> float:
    """Return the standard error of mean(first) − mean(second) from the sampling of the images, in points.

    Paired by image where all were evaluated on the same images; otherwise that of independent images, which is larger.
    """
    wrong = wrong_answers([*firsts, *seconds], metric)
    if wrong is not None:
        return image_error(wrong[: len(firsts)], wrong[len(firsts) :])
    return math.hypot(
        *(
            binomial_error(fmean(each.error(metric) for each in group), min(each.images for each in group))
            for group in (firsts, seconds)
        )
    )


def binomial_error(error: float, images: int) -> float:
    """Return the standard error of an `error` in percent on independent images."""
    return math.sqrt(max(error * (100 - error), 0.0) / images)


def wrong_answers(evaluations: Sequence[Evaluation], metric: str) -> np.ndarray | None:
    """Return which answers are wrong, [evaluations, images] bool; None if they are not known or of other images."""
    answers = [each.wrong(metric) for each in evaluations]
    known = [answer for answer in answers if answer is not None and len(answer[0])]
    if len(known) < len(evaluations) or any(not np.array_equal(known[0][0], labels) for labels, _ in known):
        return None
    return np.stack([wrong for _, wrong in known])


def _run_names(evaluations: Iterable[Evaluation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys("+".join(each.runs) for each in evaluations))


def split_difference(tests: Sequence[Evaluation], vals: Sequence[Evaluation]) -> Measurement | None:
    """Return |top-5 error on test − on val| of the same nets, in points."""
    pairs = [(test, val) for test in tests for val in vals if test.runs == val.runs]
    if not pairs:
        return None
    differences = [abs(test.top5_error - val.top5_error) for test, val in pairs]
    runs = tuple("+".join(test.runs) for test, _ in pairs)
    return Measurement(fmean(differences), seed_interval(differences), len(pairs), "seeds", runs=runs)


def next_four_gain(evaluations: Sequence[Evaluation]) -> Measurement | None:
    """Return how much more often than chance the next four answers hold the label where the first is wrong, in points.

    Chance is that of four different classes drawn from the others. None with fewer than six classes, where one of
    five answers may be right by necessity, and without a wrong answer.
    """
    found: dict[str, tuple[float, Interval, int]] = {}
    for each in evaluations:
        classes = len(each.data.classes)
        errors = (each.top1_error, each.top5_error)
        if classes < 6 or not all(map(math.isfinite, errors)):
            continue
        wrong, missed = (round(error * each.images / 100) for error in errors)
        if wrong:
            chance = 100 * 4 / (classes - 1)
            low, high = error_interval(wrong - missed, wrong)
            value = 100 * (wrong - missed) / wrong - chance
            found["+".join(each.runs)] = value, (low - chance, high - chance), wrong
    if not found:
        return None
    values, intervals, images = zip(*found.values(), strict=True)
    if len(values) == 1:
        return Measurement(values[0], intervals[0], images[0], "images", runs=tuple(found))
    sampling = max((high - low) / (2 * Z) for low, high in intervals)  # the seeds share the images
    return mean_over_seeds(values, sampling, found)
