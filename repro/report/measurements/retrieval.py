"""The training images nearest in fc7, in pixels and by binary codes (Sec. 6.1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from repro.paper.intervals import Z
from repro.paper.targets import Measurement, Target
from repro.records.runs import Records, Retrieval
from repro.records.schema import Estimate
from repro.report.measurements.context import Context, scale_of
from repro.report.measurements.seeds import mean_over_seeds


def _overlap(retrieval: Retrieval) -> Estimate:
    """Return the share of the images nearest in fc7 that are also nearest in pixels, in percent."""
    return retrieval.overlap


def _codes_gain(retrieval: Retrieval) -> Estimate:
    """Return the share of the images nearest by codes that are of the same class, minus that by pixels, in points.

    The interval takes the two shares as independent. On the same images they are not; the true interval is shorter.
    """
    codes, pixels = retrieval.precision["codes"], retrieval.precision["pixels"]
    gain = codes.value - pixels.value
    below = math.hypot(codes.value - codes.interval[0], pixels.interval[1] - pixels.value)
    above = math.hypot(codes.interval[1] - codes.value, pixels.value - pixels.interval[0])
    return Estimate(gain, (gain - below, gain + above))


RETRIEVAL_MEASURES: dict[str, Callable[[Retrieval], Estimate]] = {
    "retrieval_overlap": _overlap,
    "retrieval_codes_gain": _codes_gain,
}


def from_retrievals(target: Target, records: Records) -> Iterator[tuple[Context, Measurement]]:
    """Yield the target's quantity in every context and split: over seeds, or of a single seed over images."""
    quantity = RETRIEVAL_MEASURES[target.measure]
    groups: dict[tuple[Context, str], dict[int, Retrieval]] = defaultdict(dict)
    for each in sorted(records.retrievals, key=lambda each: each.seed):
        if each.variant == target.variant and math.isfinite(quantity(each).value):
            groups[Context(each.recipe, each.data, scale_of(records, each)), each.split][each.seed] = each
    for (context, split), seeds in groups.items():
        retrievals = list(seeds.values())
        scope = context.scope(split, 1)
        changes = dict.fromkeys(change for each in retrievals for change in retrieval_changes(each))
        measurement = _measurement(retrievals, quantity)
        yield context, replace(measurement, scope=replace(scope, changes=(*scope.changes, *changes)))


def _measurement(retrievals: Sequence[Retrieval], quantity: Callable[[Retrieval], Estimate]) -> Measurement:
    estimates, first = [quantity(each) for each in retrievals], retrievals[0]
    values = [each.value for each in estimates]
    runs = tuple(each.run for each in retrievals)
    if len(values) == 1:
        return Measurement(values[0], estimates[0].interval, first.images, "images", runs=runs)
    sampling = max((each.interval[1] - each.interval[0]) / 2 / Z for each in estimates)
    return mean_over_seeds(values, sampling, runs)


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
