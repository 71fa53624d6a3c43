"""From records to measurements: how each target's quantity is read off the runs.

A quantity is measured in every context that has runs for it: one recipe, one data set, one scale. `measure`
gives the contexts' measurements in an order fixed by scope alone, never by what they say: the target's own
scope first, then as `precedence` has it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from statistics import fmean, median

import numpy as np
from scipy.stats import norm

from repro.errors import ReproError
from repro.paper.experiments import LR_GRIDS, Requirement, epochs_to_error, fastest_lr
from repro.paper.intervals import Interval, error_interval, paired_interval, seed_interval, welch_interval
from repro.paper.scales import SCALES
from repro.paper.targets import Measurement, Scope, Target
from repro.paper.variants import ENSEMBLES, VARIANTS, Configuration, configure
from repro.report.conv1_filters import colourfulness, oriented, towers
from repro.report.records import Data, Epoch, Evaluation, Records, Retrieval, Run

Z = float(norm.ppf(0.975))
NAMES_OF_SPLITS = {"val": "validation", "test": "test", "train": "training"}


@dataclass(frozen=True)
class Context:
    """What two runs must share to be held against each other."""

    recipe: str
    data: Data
    scale: str


def measure(target: Target, records: Records) -> list[Measurement]:
    """Every measurement of `target` that the records hold, the one to judge by first."""
    if target.measure in ERROR_MEASURES:
        found = _from_evaluations(target, records)
    elif target.measure in RETRIEVAL_MEASURES:
        found = _from_retrievals(target, records)
    elif target.measure in RUN_MEASURES or target.measure in PAIR_MEASURES:
        found = _from_runs(target, records)
    else:
        found = []  # nothing that this version records tells it
    return [measurement for _, measurement in sorted(found, key=lambda each: _rank(target, *each))]


def _rank(target: Target, data: Data, measurement: Measurement) -> tuple[object, ...]:
    scope = measurement.scope
    assert scope is not None
    return (
        scope != target.scope,
        scope.dataset != target.dataset,
        scope.split != target.split,
        scope.views != target.views,
        *precedence(Context(measurement.recipe, data, scope.scale)),
    )


def precedence(context: Context) -> tuple[object, ...]:
    """A sort key: real images before generated ones, whole runs before shortened ones, large before small, the
    authors' recipe before the text's.
    """
    scales, scale = list(SCALES), context.scale.split()[-1]
    return (
        context.data.dataset == "synthetic",
        context.scale != scale,
        scales.index(scale) if scale in scales else len(scales),
        -context.data.images.get("train", 0),
        context.data.fingerprint,
        context.scale,
        context.recipe != "authors",
    )


def context_of(run: Run) -> Context:
    """The context of a run."""
    return Context(run.recipe, run.data, run_scale(run))


def scale_of(records: Records, evaluation: Evaluation) -> str:
    """The scale of an evaluation's runs, see `run_scale`; of several, one that is not as meant."""
    scales = {run_scale(run) for run in records.members(evaluation)} or {evaluation.scale}
    return min(scales, key=lambda scale: (scale == evaluation.scale, scale))


@cache
def _meant(variant: str, recipe: str, scale: str) -> Configuration:
    return configure(variant, recipe, scale)


def fine_tuned(run: Run) -> bool:
    """Whether a run began with another's weights where the paper's did not."""
    variant = VARIANTS.get(run.variant)
    return run.init_from and variant is not None and variant.begins_from is None


def run_scale(run: Run) -> str:
    """A run's scale; "10-epoch small" if its user chose another number of epochs than the scale's.

    At the paper's scale "roughly 90" epochs will do, and any more. A run that began with another's weights where
    the paper's did not is "fine-tuned", one at another rate than the recipe's "rate-0.02". Where the rate is to be
    chosen for speed, neither rate nor epochs matter.
    """
    try:
        meant = _meant(run.variant, run.recipe, run.scale)
    except ReproError:  # a run of another version
        return run.scale
    if fine_tuned(run):
        return f"fine-tuned {run.scale}"
    if (run.variant, run.recipe) in LR_GRIDS:
        return run.scale
    if math.isfinite(run.lr) and not math.isclose(run.lr, meant.recipe.lr):
        return f"rate-{run.lr:g} {run.scale}"
    whole = run.epochs >= 0.95 * meant.epochs if run.scale == "paper" else run.epochs == meant.epochs
    return run.scale if whole else f"{run.epochs}-epoch {run.scale}"


def one_per_seed(runs: Iterable[Run]) -> list[Run]:
    """One run of each seed, in the seeds' order: a finished one before others, the one that got furthest."""
    ordered = sorted(runs, key=lambda run: (run.seed, run.finished, len(run.log), run.started))
    return list({run.seed: run for run in ordered}.values())


@dataclass(frozen=True)
class Grid:
    """The runs of a net whose rate is chosen for speed: by rate, ascending, one of each seed.

    `fastest_lr` is the rate that counts, chosen by the lowest seed of each rate, as `repro run` does it.
    """

    need: Requirement
    rates: Mapping[float, tuple[Run, ...]]
    fastest_lr: float

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs at the fastest rate."""
        return self.rates[self.fastest_lr]

    @property
    def complete(self) -> bool:
        """Whether every declared rate has come to the error, or to its end."""
        return all(
            # By the log's length, because records may be published without weights.
            any(len(run.log) >= run.epochs or self.crossing(run) is not None for run in self.rates.get(rate, ()))
            for rate in self.need.lrs
        )

    def crossing(self, run: Run) -> float | None:
        """The epoch at which a run comes to the error that decides."""
        return epochs_to_error(train_errors(run), self.need.until_train_error)


def train_errors(run: Run) -> list[float]:
    """Training error by epoch, in percent."""
    return [epoch.train_top1_error for epoch in run.log]


def grid(runs: Iterable[Run]) -> Grid | None:
    """The grid of a net whose rate is chosen; None without a run that has begun."""
    by_rate: dict[float, list[Run]] = defaultdict(list)
    for run in runs:
        if run.log:
            by_rate[run.lr].append(run)
    if not by_rate:
        return None
    rates = {rate: tuple(one_per_seed(by_rate[rate])) for rate in sorted(by_rate)}
    first = next(iter(rates.values()))[0]
    need = LR_GRIDS[first.variant, first.recipe]
    # Of rates that are equally fast the first of the declared ones counts, which is the one that `repro run` trained.
    ordered = dict.fromkeys(rate for rate in (*need.lrs, *rates) if rate in rates)
    return Grid(
        need, rates, fastest_lr({rate: train_errors(rates[rate][0]) for rate in ordered}, need.until_train_error)
    )


def select_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs of a net that count: one of each seed, at the fastest rate where that is to be chosen."""
    runs = list(runs)
    if runs and (runs[0].variant, runs[0].recipe) in LR_GRIDS:
        found = grid(runs)
        return list(found.runs) if found else []
    return one_per_seed(runs)


def entry(records: Records, evaluation: Evaluation) -> str:
    """The name under which an evaluation stands in the tables: its variant, or "5cnns" for such an average.

    An average by searched weights says so in its name, and so is never taken for the paper's: no target is about it.
    """
    name = _entry(records, evaluation)
    if not evaluation.weights:
        return name
    if evaluation.weights_selected_on == evaluation.split:
        return f"{name}, weights selected on these {NAMES_OF_SPLITS.get(evaluation.split, evaluation.split)} images"
    return f"{name}, weights selected on {evaluation.weights_selected_on}"


def _entry(records: Records, evaluation: Evaluation) -> str:
    if len(evaluation.runs) == 1:
        return evaluation.variant
    members = records.members(evaluation)
    known = len(members) == len(evaluation.runs)
    nets = Counter(run.variant for run in members) if known else Counter({evaluation.variant: len(evaluation.runs)})
    for name, parts in ENSEMBLES.items():
        if dict(parts) == nets:
            return name
    return " + ".join(f"{count} {variant}" for variant, count in nets.items())


def latest(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """One evaluation for each set of seeds, in the seeds' order."""
    return [each for _, each in sorted({each.seeds: each for each in evaluations}.items())]


# Errors on a split: a level, or the difference of two.


def _from_evaluations(target: Target, records: Records) -> list[tuple[Data, Measurement]]:
    groups: dict[tuple[Context, str, int], dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for evaluation in records.evaluations:
        context = Context(evaluation.recipe, evaluation.data, scale_of(records, evaluation))
        groups[context, evaluation.split, evaluation.views][entry(records, evaluation)].append(evaluation)
    found = []
    for (context, split, views), entries in groups.items():
        scope = Scope(context.data.scope, split, views, context.scale)
        firsts = latest(entries.get(target.variant, ()))
        if target.measure == "split_difference":
            others = latest(groups.get((context, "val", views), {}).get(target.variant, ()))
            measurement = _split_difference(firsts, others) if split == target.split else None
        elif target.baseline:
            # Views are compared with views only in one direction: one against ten.
            if target.baseline_views and views != target.views:
                continue
            second_views = target.baseline_views or views
            seconds = latest(groups.get((context, split, second_views), {}).get(target.baseline, ()))
            measurement = error_difference(firsts, seconds, target.measure)
        else:
            measurement = error_level(firsts, target.measure)
        if measurement:
            found.append((context.data, _placed(measurement, scope, context)))
    return found


def _placed(measurement: Measurement, scope: Scope, context: Context) -> Measurement:
    return replace(measurement, scope=scope, recipe=context.recipe, where=context.data.description)


def error_level(evaluations: Sequence[Evaluation], metric: str) -> Measurement | None:
    """The mean error over seeds, in percent; the exact interval of the images if there is one seed only."""
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
    """error(first) − error(second) in points: over seeds that both have, else of one pair, image by image.

    A net belongs to the average of several if its seed is among theirs.
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


def _split_difference(tests: Sequence[Evaluation], vals: Sequence[Evaluation]) -> Measurement | None:
    """|top-5 error on test − on val| of the same nets, in points."""
    pairs = [(test, val) for test in tests for val in vals if test.runs == val.runs]
    if not pairs:
        return None
    differences = [abs(test.top5_error - val.top5_error) for test, val in pairs]
    runs = tuple("+".join(test.runs) for test, _ in pairs)
    return Measurement(fmean(differences), seed_interval(differences), len(pairs), "seeds", runs=runs)


# What lies near to what in fc7.


def _from_retrievals(target: Target, records: Records) -> list[tuple[Data, Measurement]]:
    groups: dict[tuple[Context, str], dict[int, Retrieval]] = defaultdict(dict)
    for each in sorted(records.retrievals, key=lambda each: each.seed):
        if each.variant == target.variant and math.isfinite(each.overlap[0]):
            groups[Context(each.recipe, each.data, retrieval_scale(records, each)), each.split][each.seed] = each
    found = []
    for (context, split), seeds in groups.items():
        first, values = next(iter(seeds.values())), [each.overlap[0] for each in seeds.values()]
        interval = seed_interval(values) or first.overlap[1]
        over, n = ("seeds", len(values)) if len(values) > 1 else ("images", first.images)
        runs = tuple(each.run for each in seeds.values())
        measurement = Measurement(fmean(values), interval, n, over, runs=runs)
        found.append((context.data, _placed(measurement, Scope(context.data.scope, split, 1, context.scale), context)))
    return found


def retrieval_scale(records: Records, retrieval: Retrieval) -> str:
    """The scale of a retrieval's run, see `run_scale`."""
    return next((run_scale(run) for run in records.runs if run.folder == retrieval.folder), retrieval.scale)


# Quantities of a run: its log, its data, its weights.


def _from_runs(target: Target, records: Records) -> list[tuple[Data, Measurement]]:
    groups: dict[Context, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in records.runs:
        groups[context_of(run)][run.variant].append(run)
    found = []
    for context, variants in groups.items():
        if target.measure in OF_DATA and context.data.dataset != target.dataset:
            continue
        firsts = select_runs(variants.get(target.variant, ()))
        scale = context.scale
        pair = (target.variant, target.baseline)
        if all((net, context.recipe) in LR_GRIDS for net in pair):
            grids = [grid(variants.get(net or "", ())) for net in pair]
            measurement = speed_ratio(*grids) if all(grids) else None
            scale = scale if all(each and each.complete for each in grids) else f"incomplete-grid {scale}"
        elif target.baseline:
            measurement = _pairs(target, firsts, select_runs(variants.get(target.baseline, ())))
        else:
            measurement = _levels(target, firsts)
        if measurement and math.isfinite(measurement.value):
            scope = Scope(context.data.scope, None, None, scale)
            found.append((context.data, _placed(measurement, scope, context)))
    return found


def _levels(target: Target, runs: Sequence[Run]) -> Measurement | None:
    measured = {run.name: RUN_MEASURES[target.measure](run, target.argument) for run in runs}
    known = {name: each for name, each in measured.items() if each and math.isfinite(each.value)}
    if not known:
        return None
    if target.measure in EVERY_RUN:  # "in every run": the run that shows it least
        return min(known.values(), key=lambda each: each.interval[0] if each.interval else -math.inf)
    first = next(iter(known.values()))
    if len(known) == 1 or first.over == "counted":
        return first
    values = [each.value for each in known.values()]
    return Measurement(fmean(values), seed_interval(values), len(values), "seeds", runs=tuple(known))


def _pairs(target: Target, firsts: Sequence[Run], seconds: Sequence[Run]) -> Measurement | None:
    """Variant against baseline: seed by seed where two or more are shared, else one run against one."""
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
    if target.kind == "ratio":  # ratios spread evenly on a logarithmic scale
        logs = seed_interval([math.log(value) for value in values])
        assert logs
        centre = math.exp(fmean(math.log(value) for value in values))
        return Measurement(centre, (math.exp(logs[0]), math.exp(logs[1])), len(values), "seeds", runs=runs)
    return Measurement(fmean(values), seed_interval(values), len(values), "seeds", runs=runs)


def _minus(first: Measurement, second: Measurement) -> Measurement:
    """first − second; independent intervals around their values add up in squares."""
    value, runs = first.value - second.value, first.runs + second.runs
    if first.interval is None or second.interval is None:
        return Measurement(value, runs=runs)
    half = math.hypot(first.interval[1] - first.value, second.interval[1] - second.value)
    return Measurement(value, (value - half, value + half), first.n, first.over, runs=runs)


def _ratio(first: Measurement, second: Measurement) -> Measurement:
    return Measurement(first.value / second.value if second.value > 0 else math.nan, runs=first.runs + second.runs)


def speed_ratio(first: Grid | None, second: Grid | None) -> Measurement | None:
    """How many times as many epochs the first net takes as the second, each at its fastest rate.

    The geometric means' ratio, with Welch's interval on logarithms: the nets' trainings are independent, and epochs
    spread evenly on a logarithmic scale. A run that ended without coming to the error makes the ratio a bound; one
    that is still going on and has not come to it is left out.
    """
    if first is None or second is None:
        return None
    logs, short, names = [], [], []
    for each in (first, second):
        reached = {run: each.crossing(run) for run in each.runs}
        counted = [run for run, epoch in reached.items() if epoch is not None or run.finished]
        if not counted:
            return None
        short.append(any(reached[run] is None for run in counted))
        logs.append([math.log(reached[run] or len(run.log)) for run in counted])
        names += [run.name for run in counted]
    if all(short):
        return None
    value = math.exp(fmean(logs[0]) - fmean(logs[1]))
    if any(short):
        return Measurement(value, runs=tuple(names), bound=1 if short[0] else -1)
    interval = welch_interval(*logs)
    seeds = min(map(len, logs))
    ends = (math.exp(interval[0]), math.exp(interval[1])) if interval else None
    return Measurement(value, ends, seeds, "seeds" if ends else "runs", runs=tuple(names))


RunMeasure = Callable[[Run, str], Measurement | None]


def _finite(log: Iterable[Epoch], name: str) -> list[float]:
    return [value for epoch in log if math.isfinite(value := getattr(epoch, name))]


def _of_log(read: Callable[[tuple[Epoch, ...]], float]) -> RunMeasure:
    """A number read off the log of a finished run."""

    def measured(run: Run, _: str) -> Measurement | None:
        return Measurement(read(run.log), runs=(run.name,)) if run.log and run.finished else None

    return measured


def _final_train_error(run: Run, _: str) -> Measurement | None:
    if not run.log or not run.finished:
        return None
    return _sampled(run, run.log[-1].train_top1_error, [(run.log[-1].train_top1_error, "train")])


def _overfit_gap(run: Run, _: str) -> Measurement | None:
    """Validation minus training error at the end, in points."""
    if not run.log or not run.finished:
        return None
    val, train = run.log[-1].val_top1_error, run.log[-1].train_top1_error
    return _sampled(run, val - train, [(val, "val"), (train, "train")])


def _sampled(run: Run, value: float, errors: Sequence[tuple[float, str]]) -> Measurement:
    """A sum of errors with the interval that the number of images gives it (normal approximation)."""
    counts = [run.data.images.get(split, 0) for _, split in errors]
    if not all(counts):
        return Measurement(value, runs=(run.name,))
    variance = sum(error * (100 - error) / images for (error, _), images in zip(errors, counts, strict=True))
    half = Z * math.sqrt(max(variance, 0.0))
    return Measurement(value, (value - half, value + half), min(counts), "images", runs=(run.name,))


def _epochs_to_train_error(run: Run, level: str) -> Measurement | None:
    reached = epochs_to_error(train_errors(run), float(level))
    return None if reached is None else Measurement(reached, runs=(run.name,))


def _best_train_error(run: Run, enough: str) -> Measurement | None:
    """The lowest training error; of a run that was cut short, only if it is `enough` already."""
    best = min(_finite(run.log, "train_top1_error"), default=math.nan)
    if enough and best <= float(enough):
        return Measurement(best, runs=(run.name,))
    try:
        whole = run.finished and run.epochs >= _meant(run.variant, run.recipe, run.scale).epochs
    except ReproError:  # a run of another version
        whole = False
    return Measurement(best, runs=(run.name,)) if whole else None


def _epochs_to_converge(log: tuple[Epoch, ...]) -> float:
    """The first epoch whose validation error is within one point of the run's best."""
    best = min(_finite(log, "val_top1_error"), default=math.nan)
    return next((epoch.epoch for epoch in log if epoch.val_top1_error <= best + 1), math.nan)


def _rate_drops(log: tuple[Epoch, ...]) -> float:
    return sum(after < before / 5 for before, after in pairwise(_finite(log, "lr")))


def _images(run: Run, splits: str) -> Measurement | None:
    counts = [run.data.images[split] for split in splits.split("+") if split in run.data.images]
    return Measurement(sum(counts), over="counted", runs=(run.name,)) if counts else None


def _classes(run: Run, _: str) -> Measurement | None:
    return Measurement(len(run.data.classes), over="counted", runs=(run.name,)) if run.data.classes else None


def _tower_colour_difference(run: Run, _: str) -> Measurement | None:
    kernels = run.conv1()
    if kernels is None or len(kernels) < 4:
        return None
    first, second = (colourfulness(tower) for tower in towers(kernels))
    if first.mean() < second.mean():  # which tower it is, is chance (Sec. 6.1)
        first, second = second, first
    return Measurement(
        float(first.mean() - second.mean()), welch_interval(first.tolist(), second.tolist()), len(kernels),
        "kernels", runs=(run.name,),
    )  # fmt: skip


def _oriented_share(run: Run, _: str) -> Measurement | None:
    kernels = run.conv1()
    if kernels is None:
        return None
    count = int(oriented(kernels).sum())
    interval = error_interval(count, len(kernels))
    return Measurement(100 * count / len(kernels), interval, len(kernels), "kernels", runs=(run.name,))


def _seconds_difference(first: Run, second: Run) -> Measurement | None:
    """Seconds per epoch of a one-device run minus a two-device run; the first epoch warms up."""
    if len(first.devices) != 1 or len(second.devices) != 2:
        return None
    a, b = (_finite(run.log[1:], "seconds") for run in (first, second))
    interval = welch_interval(a, b)
    value = fmean(a) - fmean(b) if a and b else math.nan
    return Measurement(value, interval, min(len(a), len(b)), "epochs", runs=(first.name, second.name))


def _common_error_difference(first: Run, second: Run) -> Measurement | None:
    """Epochs that the first takes, minus those of the second, to the training error that both reach."""
    lows = [min(_finite(run.log, "train_top1_error"), default=math.nan) for run in (first, second)]
    if not all(map(math.isfinite, lows)):
        return None
    one, other = (_epochs_to_train_error(run, str(max(lows))) for run in (first, second))
    return _minus(one, other) if one and other else None


ERROR_MEASURES = ("top1_error", "top5_error", "split_difference")

RUN_MEASURES: dict[str, RunMeasure] = {
    "best_train_error": _best_train_error,
    "final_train_error": _final_train_error,
    "first_train_loss": _of_log(lambda log: log[0].train_loss),
    "overfit_gap": _overfit_gap,
    "epochs": _of_log(lambda log: len(log)),
    "rate_drops": _of_log(_rate_drops),
    "training_days": _of_log(lambda log: sum(_finite(log, "seconds")) / 86_400),
    "images_per_second": _of_log(lambda log: median(_finite(log, "images_per_second") or [math.nan])),
    "epochs_to_train_error": _epochs_to_train_error,
    "epochs_to_converge": _of_log(_epochs_to_converge),
    "images": _images,
    "classes": _classes,
    "tower_colour_difference": _tower_colour_difference,
    "oriented_share": _oriented_share,
}
PAIR_MEASURES: dict[str, Callable[[Run, Run], Measurement | None]] = {
    "seconds_per_epoch": _seconds_difference,
    "epochs_to_common_train_error": _common_error_difference,
}
RETRIEVAL_MEASURES = ("retrieval_overlap",)
OF_DATA = ("images", "classes")  # of another data set they are no measurement at all
EVERY_RUN = ("tower_colour_difference", "oriented_share")
MEASURES = (*ERROR_MEASURES, *RETRIEVAL_MEASURES, *RUN_MEASURES, *PAIR_MEASURES)
