"""Overfitting: how much more often a net is wrong on new images than on those that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from repro.paper.intervals import Z
from repro.paper.targets import Measurement, Target
from repro.records.runs import Evaluation, Records
from repro.report.measurements.context import Context, learning_changes
from repro.report.measurements.evaluations import evaluation_scope, group_evaluations, sampling_error
from repro.report.measurements.seeds import difference_over_seeds

OVERFITTING_MEASURES = ("overfit_gap",)
METRIC = "top1_error"


@dataclass(frozen=True)
class Gap:
    """The evaluations of one net on new images and on its training images, in test mode with the same views."""

    new: Evaluation
    train: Evaluation

    @property
    def value(self) -> float:
        """The error on new images minus the error on training images, in points."""
        return self.new.error(METRIC) - self.train.error(METRIC)


def from_overfitting(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield by how much the gap of the target's variant exceeds that of its baseline, in every context.

    Both errors of a gap are measured after training, without dropout and augmentation. The error that a log reports for
    the training images is a running one, with both.
    """
    groups = group_evaluations(records)
    for key, nets in groups.items():
        train = groups.get(replace(key, split="train"))
        if key.split == "train" or train is None:
            continue
        gaps = [
            [
                Gap(new, on_train)
                for new in nets.get(net or "", ())
                for on_train in train.get(net or "", ())
                if new.runs == on_train.runs and math.isfinite(new.error(METRIC) - on_train.error(METRIC))
            ]
            for net in (target.variant, target.baseline)
        ]
        if all(gaps):
            used = [each for group in gaps for gap in group for each in (gap.new, gap.train)]
            scope = evaluation_scope(key, records, used)
            changes = (*scope.changes, *learning_changes([run for each in used for run in records.members(each)]))
            measurement = gap_difference(*gaps)
            yield key.context, replace(measurement, scope=replace(scope, changes=tuple(dict.fromkeys(changes))))


def gap_difference(firsts: Sequence[Gap], seconds: Sequence[Gap]) -> Measurement:
    """Return the first net's gap minus the second's: over the seeds of both, or of one pair of nets over images."""
    several = min(len(firsts), len(seconds)) > 1
    if not several:
        pairs = [(first, second) for first in firsts for second in seconds]
        chosen = next((pair for pair in pairs if pair[0].new.seeds == pair[1].new.seeds), pairs[0])
        firsts, seconds = [chosen[0]], [chosen[1]]
    # The new images and the training images are independent samples; on each, the nets are paired by image.
    sampling = math.hypot(
        sampling_error([gap.new for gap in firsts], [gap.new for gap in seconds], METRIC),
        sampling_error([gap.train for gap in firsts], [gap.train for gap in seconds], METRIC),
    )
    first, second = ([gap.value for gap in gaps] for gaps in (firsts, seconds))
    runs = tuple(dict.fromkeys("+".join(gap.new.runs) for gap in (*firsts, *seconds)))
    if several:
        return difference_over_seeds(first, second, sampling, runs)
    difference = first[0] - second[0]
    interval = (difference - Z * sampling, difference + Z * sampling)
    return Measurement(difference, interval, firsts[0].new.images, "images", runs=runs, image_error=sampling)
