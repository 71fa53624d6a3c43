"""How many of the training images nearest in fc7 are also nearest in pixels (Sec. 6.1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean

from repro.paper.intervals import seed_interval
from repro.paper.targets import Measurement, Target
from repro.records import Records, Retrieval
from repro.report.measurements.context import Context, retrieval_scale

RETRIEVAL_MEASURES = ("retrieval_overlap",)


def from_retrievals(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the overlap in every context and split: over seeds, or of a single seed over images."""
    groups: dict[tuple[Context, str], dict[int, Retrieval]] = defaultdict(dict)
    for each in sorted(records.retrievals, key=lambda each: each.seed):
        if each.variant == target.variant and math.isfinite(each.overlap.value):
            groups[Context(each.recipe, each.data, retrieval_scale(records, each)), each.split][each.seed] = each
    for (context, split), seeds in groups.items():
        first, values = next(iter(seeds.values())), [each.overlap.value for each in seeds.values()]
        interval = seed_interval(values) or first.overlap.interval
        over, n = ("seeds", len(values)) if len(values) > 1 else ("images", first.images)
        runs = tuple(each.run for each in seeds.values())
        yield context, Measurement(fmean(values), interval, n, over, context.scope(split, 1), runs=runs)
