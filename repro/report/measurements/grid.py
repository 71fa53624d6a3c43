"""Figure 1's grids of learning rates (Sec. 3.1), and which runs of a net count."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from repro.paper.experiments import LR_GRIDS, Requirement, epochs_to_error, fastest_lr
from repro.paper.intervals import seed_factor, welch_interval
from repro.paper.targets import Measurement
from repro.records.runs import Run


@dataclass(frozen=True)
class Grid:
    """The runs of a net whose learning rate is chosen for speed.

    Attributes:
        requirement: the declared grid, and the training error that decides.
        runs_by_lr: one run per seed by learning rate, both ascending.
        fastest_lr: the learning rate that counts, chosen on the lowest seed of each rate, as `repro run` does.

    The seed that chooses the learning rate does not count towards the result: it was selected for being fast.
    """

    requirement: Requirement
    runs_by_lr: Mapping[float, tuple[Run, ...]]
    fastest_lr: float

    @property
    def fastest(self) -> tuple[Run, ...]:
        """All runs at the fastest learning rate; the first one chose it."""
        return self.runs_by_lr[self.fastest_lr]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs at the fastest learning rate that count; the one that chose it only if no other has ended."""
        others = (run for run in self.fastest[1:] if run.finished or self.epochs_taken(run) is not None)
        return tuple(others) or self.fastest[:1]

    @property
    def complete(self) -> bool:
        """Whether a run at every declared learning rate has reached the error, or its last epoch."""
        return all(
            any(run.finished or self.epochs_taken(run) is not None for run in self.runs_by_lr.get(lr, ()))
            for lr in self.requirement.lrs
        )

    def as_fast(self, lr: float) -> bool:
        """Return whether the run that tried a learning rate may be as fast as those at the fastest one.

        True if its epochs lie within the 95% prediction interval of one more run at the fastest rate, on a logarithmic
        scale. A rate that was tried from one seed is then not distinguishable from it.
        """
        taken = [self.epochs_taken(run) for run in (self.runs_by_lr[lr][0], *self.runs)]
        if None in taken or len(self.runs) < 2:
            return False
        tried, *fastest = (math.log(epochs) for epochs in taken if epochs)
        half = seed_factor(len(fastest)) * stdev(fastest) * math.sqrt(len(fastest) + 1)
        return abs(tried - fmean(fastest)) <= half

    def epochs_taken(self, run: Run) -> float | None:
        """Return the epoch at which a run reaches the error that decides, interpolated; None if it does not."""
        return epochs_to_error(train_errors(run), self.requirement.until_train_error)


def train_errors(run: Run) -> list[float]:
    """Return the training error of each epoch, in percent."""
    return [epoch.train_top1_error for epoch in run.log]


def one_per_seed(runs: Iterable[Run]) -> list[Run]:
    """Return one run per seed, by seed: one that has ended before others, then the one with the most epochs."""
    ordered = sorted(runs, key=lambda run: (run.seed, run.finished, len(run.log), run.started))
    return list({run.seed: run for run in ordered}.values())


def build_grid(runs: Iterable[Run]) -> Grid | None:
    """Return the grid of a net; None if no run has completed an epoch."""
    by_lr: dict[float, list[Run]] = defaultdict(list)
    for run in runs:
        if run.log:
            by_lr[run.lr].append(run)
    if not by_lr:
        return None
    runs_by_lr = {lr: tuple(one_per_seed(by_lr[lr])) for lr in sorted(by_lr)}
    first = next(iter(runs_by_lr.values()))[0]
    requirement = LR_GRIDS[first.variant, first.recipe]
    # Of learning rates that are equally fast the first declared one counts: the one that `repro run` trained.
    ordered = dict.fromkeys(lr for lr in (*requirement.lrs, *runs_by_lr) if lr in runs_by_lr)
    errors = {lr: train_errors(runs_by_lr[lr][0]) for lr in ordered}
    return Grid(requirement, runs_by_lr, fastest_lr(errors, requirement.until_train_error))


def select_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the runs of a net that count: one per seed, at the fastest learning rate where that is to be chosen."""
    runs = list(runs)
    if runs and (runs[0].variant, runs[0].recipe) in LR_GRIDS:
        found = build_grid(runs)
        return list(found.runs) if found else []
    return one_per_seed(runs)


def speed_ratio(first: Grid | None, second: Grid | None) -> Measurement | None:
    """Return the ratio of the epochs that two nets take, each at its fastest learning rate.

    The ratio of the geometric means over the runs that count, with Welch's interval on logarithms: the runs of the two
    nets are independent, and numbers of epochs vary evenly on a logarithmic scale. A run that ended without reaching
    the error makes the ratio a bound; one that is unfinished and has not reached it is left out.
    """
    if first is None or second is None:
        return None
    logs, short, names = [], [], []
    for each in (first, second):
        reached = {run: each.epochs_taken(run) for run in each.runs}
        counted = [run for run, epoch in reached.items() if epoch is not None or run.finished]
        if not counted:
            return None
        short.append(any(reached[run] is None for run in counted))
        logs.append([math.log(reached[run] or len(run.log)) for run in counted])
        names += [run.name for run in counted]
    if all(short):
        return None
    value = math.exp(fmean(logs[0]) - fmean(logs[1]))
    seeds = min(map(len, logs))
    over = "seeds" if seeds > 1 else "runs"
    if any(short):
        return Measurement(value, n=seeds, over=over, runs=tuple(names), bound=1 if short[0] else -1)
    interval = welch_interval(logs[0], logs[1])
    if interval is None:
        return Measurement(value, n=seeds, over=over, runs=tuple(names))
    ends = (math.exp(interval[0]), math.exp(interval[1]))
    return Measurement(value, ends, seeds, over, runs=tuple(names), deviation=math.hypot(*map(stdev, logs)))
