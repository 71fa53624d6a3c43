"""From records to measurements: the quantity of each target, in every context that has runs for it.

One module per kind of measurement: errors on a split (`evaluations`), overfitting (`overfitting`), quantities of one
run (`runs`) or of two (`pairs`), Figure 1's grids (`grid`), the kernels of conv1 (`conv1`) and nearest neighbours
(`retrieval`).
"""

from __future__ import annotations

from dataclasses import replace

from repro.paper.targets import Measurement, Target
from repro.records.runs import Records
from repro.report.measurements.context import Context, precedence
from repro.report.measurements.evaluations import ERROR_MEASURES, from_evaluations
from repro.report.measurements.overfitting import OVERFITTING_MEASURES, from_overfitting
from repro.report.measurements.pairs import PAIR_MEASURES, from_runs
from repro.report.measurements.retrieval import RETRIEVAL_MEASURES, from_retrievals
from repro.report.measurements.runs import RUN_MEASURES

MEASURES = (*ERROR_MEASURES, *OVERFITTING_MEASURES, *RETRIEVAL_MEASURES, *RUN_MEASURES, *PAIR_MEASURES)


def measure(target: Target, records: Records) -> list[Measurement]:
    """Return every measurement of `target` that the records hold, the one that counts first.

    The order depends on scope alone, never on the values: the target's own scope first, then by `precedence`.
    """
    if target.measure in ERROR_MEASURES:
        found = list(from_evaluations(target, records))
    elif target.measure in OVERFITTING_MEASURES:
        found = list(from_overfitting(target, records))
    elif target.measure in RETRIEVAL_MEASURES:
        found = list(from_retrievals(target, records))
    elif target.measure in RUN_MEASURES or target.measure in PAIR_MEASURES:
        found = list(from_runs(target, records))
    else:
        found = []
    return [
        replace(measurement, recipe=context.recipe, where=context.data.description)
        for context, measurement in sorted(found, key=lambda each: _rank(target, *each))
    ]


def _rank(target: Target, context: Context, measurement: Measurement) -> tuple[object, ...]:
    scope = measurement.scope
    assert scope is not None
    return (
        scope != target.scope,
        scope.dataset != target.dataset,
        scope.split != target.split,
        scope.views != target.views,
        scope.changes != (),
        *precedence(context),
    )
