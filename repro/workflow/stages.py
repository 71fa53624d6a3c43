"""The commands that lead to a result, in order. Each can be typed by hand, and those that are done are skipped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from repro.baselines.settings import BaselineSettings
from repro.data.store import MANIFEST, open_store
from repro.errors import ReproError, unknown
from repro.evaluation.command_lines import command_line, evaluate_argv, retrieve_argv
from repro.paper.baselines import BASELINES
from repro.paper.datasets import IMAGENET
from repro.paper.experiments import EXPERIMENTS, Requirement, epochs_to_error, fastest_lr
from repro.paper.scales import SCALES
from repro.paper.variants import ENSEMBLES, VARIANTS, Configuration, configure, find_variant
from repro.preparation.settings import PrepareSettings
from repro.records.file_names import LOG, WEIGHTS, evaluation_name, retrieval_name, run_name
from repro.records.reading import read_log
from repro.remote import locate
from repro.training.settings import Settings
from repro.workflow.trainings import PlannedTraining, grid_of, members_from_seeds

SMOKE_IMAGES = 30  # generated images per class and split at scale smoke


class Kind(Enum):
    """What a stage does: the command of the same name."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    RETRIEVE = "retrieve"
    REPORT = "report"


@dataclass(frozen=True)
class Stage:
    """One command of a workflow.

    Attributes:
        kind: what it does.
        words: the words of its command line after `repro`.
        result: the file that exists once it is done; None if it is always run.
        settings: settings of a training.
        store: the store of a training, an evaluation or a retrieval.
        devices: number of devices that have to have held the net, for a claim about time; 1 if it does not matter.
        needs: results of other stages that have to exist before it starts.
    """

    kind: Kind
    words: tuple[str, ...]
    result: Path | None = None
    settings: Settings | BaselineSettings | None = None
    store: Path | None = None
    devices: int = 1
    needs: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.result is not None and self.result.exists()

    def check(self) -> None:
        """Raise ReproError if the result is damaged or is not what the command would make now."""
        from repro.workflow.checks import check_done  # imports torch, which a list of commands does not need

        check_done(self)

    def __str__(self) -> str:
        return command_line(self.words)


@dataclass(frozen=True)
class Workspace:
    """Where an experiment's stores and runs are, and how its nets are trained.

    Attributes:
        out: folder of the runs, which are in a folder below it per store, so that runs of one name on two datasets
            are apart.
        stores: folder of the stores, each named as its dataset.
        scale: name of the scale. At scale smoke generated images replace all datasets.
        recipe: name of the recipe, of nets that have it; the others have only one.
        data: a store that replaces those of all ImageNet datasets.
        epochs: maximum number of epochs of each training; None for the scale's.
        devices: devices of each training; None for a GPU if there is one.
        precision: precision of each training.
    """

    out: Path
    stores: Path
    scale: str
    recipe: str = "authors"
    data: Path | None = None
    epochs: int | None = None
    devices: str | None = None
    precision: str = "fp32"

    def check(self) -> None:
        """Raise ReproError for an unknown recipe, a store that would be ignored, or a precision that is emulated."""
        recipes = {name for variant in VARIANTS.values() for name in variant.family.recipes}
        if self.recipe not in recipes:
            raise unknown("recipe", self.recipe, sorted(recipes))
        if self.data and self.scale == "smoke":
            raise ReproError(
                "--data is not used at scale smoke, which prepares generated images: leave one of them out"
            )
        if self.precision != "fp32":
            from repro.models.devices import check_precision, find_devices  # imports torch

            check_precision(self.precision, find_devices(self.devices)[0])

    def configure(self, variant: str) -> Configuration:
        """Return the configuration of a variant by the recipe asked for, or by the only one that it has."""
        return configure(variant, find_variant(variant).recipe_for(self.recipe), self.scale)

    def store(self, dataset: str, image_size: int) -> Path:
        """Return the store that serves for `dataset` with images of `image_size` pixels."""
        if self.scale == "smoke":
            return self.stores / f"synthetic-{image_size}"
        return locate(self.data) if self.data and dataset in IMAGENET else self.stores / dataset

    def resolve(
        self, training: PlannedTraining, until_train_error: float | None = None, epochs: int | None = None
    ) -> ResolvedTraining:
        """Return a planned training with its paths and settings.

        It ends at a training error of `until_train_error` percent, or after `epochs` if they are fewer than the
        workspace's.
        """
        configuration = self.configure(training.variant)
        store = self.store(training.dataset, configuration.scale.image_size)
        origin = self.resolve(training.origin) if training.origin else None
        settings = Settings(
            variant=training.variant,
            recipe=configuration.recipe.name,
            scale=self.scale,
            seed=training.seed,
            epochs=min(filter(None, (epochs, self.epochs)), default=None),
            lr=training.lr,
            devices=self.devices,
            precision=self.precision,
            init_from=origin.folder if origin else None,
            until_train_error=until_train_error,
        )
        image_size = configuration.scale.image_size
        return ResolvedTraining(settings, training.dataset, image_size, store, self.out / store.name, origin)


@dataclass(frozen=True)
class ResolvedTraining:
    """A training with its paths and settings.

    Attributes:
        settings: the run's settings.
        dataset: name of the dataset.
        image_size: side of the store's images in pixels.
        store: path of the store.
        out: folder that the run's folder is in.
        origin: the training whose weights it starts with; None for random weights.
    """

    settings: Settings
    dataset: str
    image_size: int
    store: Path
    out: Path
    origin: ResolvedTraining | None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / self.settings.run_name

    @property
    def weights(self) -> Path:
        """File of the trained weights."""
        return self.folder / WEIGHTS

    def stages(self, after: Sequence[Path] = ()) -> Iterator[Stage]:
        """Yield the stages up to the trained run, which also needs the results `after`.

        Raises ReproError if a store does not exist.
        """
        yield from _store_stages(self.store, self.dataset, self.image_size, self.settings.scale)
        if self.origin:
            yield from self.origin.stages()
        before = (self.origin.weights,) if self.origin else ()
        yield _training(self.settings, self.store, self.out, (*before, *after))

    def errors(self) -> list[float]:
        """Return the training errors of the run so far, in percent, one per epoch."""
        return [epoch.train_top1_error for epoch in read_log(self.folder / LOG)]


def _store_stages(store: Path, dataset: str, image_size: int, scale: str) -> Iterator[Stage]:
    """Yield the stage that prepares generated images at scale smoke. Raises ReproError if another store is missing."""
    if scale == "smoke":
        prepared = PrepareSettings("synthetic", size=image_size, limit_per_class=SMOKE_IMAGES)
        yield Stage(Kind.PREPARE, tuple(prepared.to_argv(store)), store / MANIFEST)
    elif not (store / MANIFEST).exists():
        raise no_store(store, dataset, image_size, scale)


def no_store(store: Path, dataset: str, image_size: int, scale: str) -> ReproError:
    """Return the error for a store that does not exist, with the command that prepares it."""
    from repro.preparation.sources.datasets import DATASETS  # imports NumPy, which is needed only for this error

    official = dataset if dataset in DATASETS else "folder"
    prepare = f"repro prepare {official} --out {store} --size {image_size} --source …"
    # At a smaller scale any store of images will do, such as Imagenette's.
    hint = "; or name a store to use in place of every ImageNet dataset with --data"
    replaceable = dataset in IMAGENET and scale != "paper"
    return ReproError(f"no store at '{store}': {prepare}{hint if replaceable else ''}")


def experiment(name: str, workspace: Workspace) -> Iterator[Stage]:
    """Yield the stages of an experiment of the paper in order, done ones included, each once.

    The fastest learning rate of a grid is read from the logs when its stages are done; until then the first takes its
    place. Raises ReproError for an unknown name, an unsuitable workspace or a store that does not exist.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    workspace.check()
    seen: set[Path | None] = set()
    for requirement in EXPERIMENTS[name].requirements:
        adapted = replace(workspace, recipe=requirement.recipe or workspace.recipe)
        if requirement.devices > 1 and workspace.scale == "paper" and workspace.devices is None:
            adapted = replace(adapted, devices=",".join(f"cuda:{number}" for number in range(requirement.devices)))
        for stage in _stages_of(requirement, adapted):
            if stage.result not in seen:
                seen.add(stage.result)
                timed = stage.kind == Kind.TRAIN and adapted.devices != workspace.devices
                yield replace(stage, devices=requirement.devices) if timed else stage


def _stages_of(requirement: Requirement, workspace: Workspace) -> Iterator[Stage]:
    """Yield the stages of one requirement: its stores, the runs of its members, and their evaluations."""
    if requirement.net in BASELINES:
        yield from _baseline_stages(requirement, workspace)
        return
    yield from _grid(requirement, workspace)
    lr, until = None, None
    if requirement.lrs:
        lr = _fastest(requirement, workspace)
        until = requirement.until_train_error if len(requirement.lrs) > 1 else None
    runs = [workspace.resolve(training, until) for training in members_from_seeds(requirement, lr, workspace.recipe)]
    several = grid_of(requirement) if len(requirement.lrs) > 1 else ()
    chosen_from = [workspace.resolve(training).weights for training in several]
    for run in runs:
        yield from run.stages(chosen_from)
    split = _split(runs[0].store, requirement.split)
    for run in runs if requirement.retrieve else ():
        words = retrieve_argv(run.folder, run.store, split)
        result = run.folder / retrieval_name(split)
        yield Stage(Kind.RETRIEVE, words, result, store=run.store, needs=(run.weights,))
    for members in [runs] if requirement.net in ENSEMBLES else [[run] for run in runs]:
        folder = _folder_of_average(members) if len(members) > 1 else None
        for views in requirement.views:
            yield _evaluation([run.folder for run in members], members[0].store, split, views, folder)


def _baseline_stages(requirement: Requirement, workspace: Workspace) -> Iterator[Stage]:
    """Yield the stages of a baseline: its store, its run and its evaluation."""
    settings = BaselineSettings(requirement.net, workspace.scale)
    image_size = SCALES[workspace.scale].image_size
    store = workspace.store(requirement.dataset, image_size)
    yield from _store_stages(store, requirement.dataset, image_size, workspace.scale)
    out = workspace.out / store.name
    yield _training(settings, store, out)
    split = _split(store, requirement.split)
    for views in requirement.views:
        yield _evaluation([out / settings.run_name], store, split, views)


def _training(settings: Settings | BaselineSettings, store: Path, out: Path, after: Sequence[Path] = ()) -> Stage:
    """Return the stage that trains a run in its folder below `out`, once the results `after` exist."""
    words = (*settings.to_argv(store, out, launcher=()), "--resume")
    needs = (store / MANIFEST, *after)
    return Stage(Kind.TRAIN, words, out / settings.run_name / WEIGHTS, settings, store, needs=needs)


def _evaluation(runs: Sequence[Path], store: Path, split: str, views: int, folder: Path | None = None) -> Stage:
    """Return the stage that evaluates a run in its folder, or the average of several in `folder`."""
    words = evaluate_argv(runs, store, split, views)
    result = (folder or runs[0]) / evaluation_name(split, views)
    return Stage(Kind.EVALUATE, words, result, store=store, needs=tuple(run / WEIGHTS for run in runs))


def _folder_of_average(members: Sequence[ResolvedTraining]) -> Path:
    first = members[0]
    nets = "+".join(dict.fromkeys(run.settings.variant for run in members))
    seeds = [run.settings.seed for run in members]
    return first.out / run_name(nets, first.settings.recipe, first.settings.scale, seeds)


def _grid(requirement: Requirement, workspace: Workspace) -> Iterator[Stage]:
    """Yield the trainings of a grid. Each ends after at most as many epochs as the fastest before it took."""
    if len(requirement.lrs) < 2:
        return  # the only learning rate is trained with the other seeds
    grid, until = grid_of(requirement), requirement.until_train_error
    for index, training in enumerate(grid):
        before = (epochs_to_error(workspace.resolve(each).errors(), until) for each in grid[:index])
        fastest = min(filter(None, before), default=None)
        earlier = [workspace.resolve(each).weights for each in grid[:index]]
        yield from workspace.resolve(training, until, math.ceil(fastest) if fastest else None).stages(earlier)


def _fastest(requirement: Requirement, workspace: Workspace) -> float:
    """Return the learning rate of a grid that reaches the training error first, by the logs so far."""
    grid = grid_of(requirement)
    errors = [workspace.resolve(training).errors() for training in grid]
    return fastest_lr(dict(zip(requirement.lrs, errors, strict=True)), requirement.until_train_error)


def _split(store: Path, wanted: str) -> str:
    """Return the split to evaluate on: val of a store that lacks the wanted one, or its labels."""
    try:
        splits = open_store(store).splits
        return wanted if wanted in splits and splits[wanted].labelled else "val"
    except ReproError:  # it is not prepared yet, or the stage that reads it reports what is wrong
        return wanted


def demo(out: Path) -> Iterator[Stage]:
    """Yield the stages of the demo: both recipes on generated images, with one view and ten, and the report."""
    store, runs = out / "store", out / "runs"
    # The text's recipe only shows its slow start: at this scale a run was still at chance after 60 epochs.
    yield Stage(Kind.PREPARE, tuple(PrepareSettings("synthetic").to_argv(store)), store / MANIFEST)
    for recipe, epochs in (("authors", 20), ("paper", 4)):
        settings = Settings("alexnet", recipe, "smoke", epochs=epochs)
        yield _training(settings, store, runs)
        for views in (1, 10):
            yield _evaluation([runs / settings.run_name], store, "test", views)
    yield Stage(Kind.REPORT, ("report", "--runs", str(runs), "--out", str(out / "report"), "--compare"))
