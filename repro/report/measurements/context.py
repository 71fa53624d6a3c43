"""Contexts: what two runs must share to be compared, and the order in which contexts are preferred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES, IMAGENET
from repro.paper.experiments import LR_GRIDS
from repro.paper.recipes import CIFAR_FAN_IN
from repro.paper.scales import SCALES
from repro.paper.targets import Scope
from repro.paper.variants import VARIANTS, Configuration, configure
from repro.records.runs import Activations, Evaluation, Records, Retrieval, Run
from repro.records.schema import DataRecord

PAPER_DATASETS = (*IMAGENET, "cifar10")


@dataclass(frozen=True)
class RunScale:
    """Scale of a run, and what its user changed.

    Attributes:
        name: name of the scale.
        epochs: number of epochs if it is not the scale's, else None.
        lr: initial learning rate if it is not the recipe's, else None.
        fine_tuned: the run started from another run's weights although its variant does not require that.
        incomplete_grid: not every learning rate of the declared grid has been tried to its end.
        until: training error in percent at which training ended early; None if it did not.
    """

    name: str
    epochs: int | None = None
    lr: float | None = None
    fine_tuned: bool = False
    incomplete_grid: bool = False
    until: float | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """What differs from the scale, in words; empty if nothing does."""
        words = []
        if self.fine_tuned:
            words.append("fine-tuned")
        if self.lr is not None:
            words.append(f"lr {self.lr:g}")
        if self.epochs is not None:
            words.append(f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}")
        if self.until is not None:
            words.append(f"ended at {self.until:g}% training error")
        if self.incomplete_grid:
            words.append("learning rates of the grid missing")
        return tuple(words)

    @property
    def label(self) -> str:
        """The scale with its changes: "small scale, 10 epochs"."""
        return ", ".join((f"{self.name} scale", *self.changes))

    def __str__(self) -> str:
        return ", ".join((self.name, *self.changes))


@dataclass(frozen=True)
class Context:
    """What two runs must share to be compared."""

    recipe: str
    data: DataRecord
    scale: RunScale

    @property
    def label(self) -> str:
        """The context in words."""
        return f"{self.data.description}, {self.recipe} recipe, {self.scale.label}"

    def scope(self, split: str | None = None, views: int | None = None) -> Scope:
        """Return the scope of a measurement in this context."""
        own_recipe = (f"recipe {self.recipe}",) if self.recipe == CIFAR_FAN_IN.name else ()  # neither text nor program
        changes = (*own_recipe, *self.scale.changes, *data_changes(self.data))
        return Scope(self.data.dataset, split, views, self.scale.name, changes)


def precedence(context: Context) -> tuple[object, ...]:
    """Return a sort key: real images before generated ones, unchanged runs before changed ones, large scales before
    small ones, the authors' recipe before the paper's.
    """
    scales, scale = list(SCALES), context.scale
    return (
        context.data.dataset == "synthetic",
        scale.changes != (),
        scales.index(scale.name) if scale.name in scales else len(scales),
        -context.data.images.get("train", 0),
        context.data.fingerprint,
        str(scale),
        context.recipe != "authors",
    )


def context_of(run: Run) -> Context:
    """Return the context of a run."""
    return Context(run.recipe, run.data, run_scale(run))


@cache
def specified(variant: str, recipe: str, scale: str, dataset: str | None = None) -> Configuration:
    """Return what the paper or the authors' program specifies; raises ReproError for names of another version."""
    return configure(variant, recipe, scale, dataset=dataset)


def fine_tuned(run: Run) -> bool:
    """Return whether a run started from another run's weights although its variant does not require that."""
    variant = VARIANTS.get(run.variant)
    return run.init_from is not None and variant is not None and run.recipe not in variant.starts_from


def run_scale(run: Run) -> RunScale:
    """Return the scale of a run, with what its user changed.

    At the paper's scale 95% of the epochs suffice ("roughly 90"), and any larger number. Where the learning rate is
    to be chosen for speed, the rate, the number of epochs and the training error that ends a run are no changes.
    """
    try:
        expected = specified(run.variant, run.recipe, run.scale, run.data.dataset)
    except ReproError:  # recorded by another version
        return RunScale(run.scale)
    tuned = fine_tuned(run)
    if (run.variant, run.recipe) in LR_GRIDS:
        return RunScale(run.scale, fine_tuned=tuned)
    same_lr = not math.isfinite(run.lr) or math.isclose(run.lr, expected.recipe.lr)
    complete = run.epochs >= 0.95 * expected.epochs if run.scale == "paper" else run.epochs == expected.epochs
    return RunScale(
        run.scale, None if complete else run.epochs, None if same_lr else run.lr, tuned, until=_ended_early(run)
    )  # fmt: skip


def _ended_early(run: Run) -> float | None:
    """Return the training error at which a run ended before its last epoch; None if it did not."""
    early = run.ended is not None and run.ended.reason == "until_train_error"
    return run.until_train_error if early else None


def data_changes(data: DataRecord) -> tuple[str, ...]:
    """Return, in words, where the numbers of images and classes differ from those of the published dataset.

    Datasets whose size the paper only rounds may differ by 1%. Of datasets that the paper does not use, nothing does.
    """
    if data.dataset not in PAPER_DATASETS:
        return ()
    official = DATASET_SIZES[data.dataset]
    words = []
    for split, count in official.images.items():
        present = data.images.get(split, 0)
        if abs(present - count) > (0 if official.exact else 0.01 * count):
            words.append(f"{present:,} of {count:,} {split} images")
    if data.classes and len(data.classes) != official.classes:
        words.append(f"{len(data.classes):,} of {official.classes:,} classes")
    return tuple(words)


AT_CHANCE = "runs at chance"
LEARNED = 0.9  # of the error of guessing: a net above has learned too little for claims on what nets learn


def has_learned(run: Run) -> bool:
    """Return whether a run's last error is well below that of guessing, on the validation images if there are any."""
    if not run.log or len(run.data.classes) < 2:
        return False
    last = run.log[-1]
    error = last.val_top1_error if math.isfinite(last.val_top1_error) else last.train_top1_error
    return error < LEARNED * 100 * (1 - 1 / len(run.data.classes))


def learning_changes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return, in words, how many of the runs have not learned; empty if all have. A run may occur several times."""
    learned = {run.folder: has_learned(run) for run in runs}
    failed = len(learned) - sum(learned.values())
    return (f"{failed} of {len(learned)} {AT_CHANCE}",) if failed else ()


def evaluation_scale(records: Records, evaluation: Evaluation) -> RunScale:
    """Return the scale of an evaluation's runs; of several that differ, a changed one."""
    scales = {run_scale(run) for run in records.members(evaluation)} or {RunScale(evaluation.scale)}
    return min(scales, key=lambda scale: (not scale.changes and scale.name == evaluation.scale, str(scale)))


def scale_of(records: Records, measured: Retrieval | Activations) -> RunScale:
    """Return the scale of the run of a retrieval or of activations."""
    runs = (run_scale(run) for run in records.runs if run.folder == measured.folder)
    return next(runs, RunScale(measured.scale))
