"""Comparisons that the runs allow beyond the paper's claims: of starting weights, and of recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from repro.paper.targets import Measurement
from repro.records.runs import Evaluation, Records
from repro.report.measurements.context import Context
from repro.report.measurements.evaluations import EvaluationKey, error_level, group_evaluations, nets_difference

METRIC = "top1_error"


@dataclass(frozen=True)
class OwnComparison:
    """The difference of one net's errors, trained in two ways on the same data and evaluated alike.

    Attributes:
        net: name of the net.
        data: the data in words.
        evaluation: split and views in words.
        first: how the first nets were trained.
        second: how the second nets were trained.
        errors: error of both, in percent.
        difference: error of the first minus error of the second, in points.
        seeds: number of seeds of each, the smaller one.
    """

    net: str
    data: str
    evaluation: str
    first: str
    second: str
    errors: tuple[Measurement, Measurement]
    difference: Measurement
    seeds: int


def own_comparisons(records: Records) -> list[OwnComparison]:
    """Return the comparisons of every net that was trained in two ways on the same data."""
    found: list[OwnComparison] = []
    groups = group_evaluations(records)
    for one, other in combinations(groups, 2):
        if not _alike(one, other) or not _differs_in_training(one.context, other.context):
            continue
        for net in groups[one]:
            if net in groups[other]:
                found += _comparison(net, (one, groups[one][net]), (other, groups[other][net]))
    return found


def _alike(one: EvaluationKey, other: EvaluationKey) -> bool:
    return (one.context.data, one.split, one.views) == (other.context.data, other.split, other.views)


def _differs_in_training(one: Context, other: Context) -> bool:
    """Return whether exactly one of recipe and starting weights differs, at the same scale."""
    if one.scale.name != other.scale.name:
        return False
    return (one.recipe != other.recipe) != (one.scale.fine_tuned != other.scale.fine_tuned)


def _comparison(
    net: str, one: tuple[EvaluationKey, Sequence[Evaluation]], other: tuple[EvaluationKey, Sequence[Evaluation]]
) -> Iterator[OwnComparison]:
    (key, firsts), (other_key, seconds) = one, other
    levels = error_level(firsts, METRIC), error_level(seconds, METRIC)
    if levels[0] is None or levels[1] is None:
        return
    views = f"{key.views} view{'s' if key.views > 1 else ''}"
    yield OwnComparison(
        net=net,
        data=f"{key.context.data.description}, {key.context.scale.name} scale",
        evaluation=f"{key.split}, {views}",
        first=_training(key.context),
        second=_training(other_key.context),
        errors=(levels[0], levels[1]),
        difference=nets_difference(firsts, seconds, METRIC),
        seeds=min(len(firsts), len(seconds)),
    )


def _training(context: Context) -> str:
    start = () if context.scale.fine_tuned else ("random weights",)
    return ", ".join((*start, *context.scale.changes, f"recipe {context.recipe}"))
