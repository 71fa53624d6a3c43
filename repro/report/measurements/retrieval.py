"""How many of the training images nearest in fc7 are also nearest in pixels (Sec. 6.1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from repro.paper.intervals import Z, seed_interval
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
        retrievals = list(seeds.values())
        scope = context.scope(split, 1)
        changes = dict.fromkeys(change for each in retrievals for change in retrieval_changes(each))
        yield context, replace(_overlap(retrievals), scope=replace(scope, changes=(*scope.changes, *changes)))


def _overlap(retrievals: Sequence[Retrieval]) -> Measurement:
    values, first = [each.overlap.value for each in retrievals], retrievals[0]
    runs = tuple(each.run for each in retrievals)
    if len(values) == 1:
        return Measurement(values[0], first.overlap.interval, first.images, "images", runs=runs)
    sampling = max((each.overlap.interval[1] - each.overlap.interval[0]) / 2 / Z for each in retrievals)
    return Measurement(
        fmean(values), seed_interval(values, sampling), len(values), "seeds", runs=runs, deviation=stdev(values),
        image_error=sampling,
    )  # fmt: skip


def retrieval_changes(retrieval: Retrieval) -> tuple[str, ...]:
    """Return, in words, what keeps a retrieval from being evidence on the paper's claims.

    That neighbours in fc7 are not those in pixels is a finding only if they are better ones: those of a net with random
    weights overlap little with those in pixels too.
    """
    words = []
    counts = {retrieval.split: retrieval.images, "train": retrieval.searched}
    for split, count in counts.items():
        if count != retrieval.data.images.get(split, 0):
            words.append(f"{count:,} of {retrieval.data.images.get(split, 0):,} {split} images")
    fc7, pixels = (retrieval.precision[space].interval for space in ("fc7", "pixels"))
    if not fc7[0] > pixels[1]:
        words.append("neighbours in fc7 no better than in pixels")
    return tuple(words)
