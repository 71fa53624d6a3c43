"""Which commands lead to a result, in order; each can be typed by hand, and one that is done is skipped."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.errors import ReproError, unknown
from repro.paper.datasets import IMAGENET
from repro.paper.experiments import EXPERIMENTS, Requirement, epochs_to_error, fastest_lr
from repro.paper.variants import ENSEMBLES, Variant, configure, find_variant
from repro.records import LOG, RUN, WEIGHTS, evaluation_name, read_log, read_run, retrieval_name, run_name


@dataclass(frozen=True)
class Stage:
    """One command, as words after `repro`."""

    words: tuple[str, ...]
    result: Path | None = None  # the file that exists once it is done
    epochs: int | None = None  # of a training

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.result is not None and self.result.exists()

    def check(self) -> None:
        """Raise ReproError if a training or an evaluation that is done is damaged, or was shorter than asked for."""
        from repro.verification.run import (  # and torch: a list of commands need not wait for it
            check_evaluations,
            verify_run,
        )

        if self.result is None or self.words[0] == "prepare":
            return
        folder = self.result.parent
        problems = verify_run(folder) if (folder / RUN).exists() else check_evaluations(folder)
        if problems:
            raise ReproError(
                f"'{folder}' is done, but damaged: {'; '.join(problems)}; remove that evaluation, or the folder if it "
                "is the log or the weights, and the same command makes it again"
            )
        if self.epochs and (fewer := _epochs_of(folder)) < self.epochs:
            raise ReproError(
                f"'{folder}' is done, but of {fewer} epochs, not {self.epochs}: ask for --epochs {fewer}, choose "
                "another --out, or remove the folder, and the same command makes it again"
            )

    def __str__(self) -> str:
        return shlex.join(("repro", *self.words))


@dataclass(frozen=True)
class Workspace:
    """Where an experiment's stores and runs are, and how its nets are trained.

    Stores are at `stores`/<data set>, or `data` stands in for all the ImageNet ones. At scale smoke generated
    images stand in for everything. Runs go to `out`/<store's name>, so that nets of one name on two data sets
    keep apart. No training is longer than `epochs`.
    """

    out: Path
    stores: Path
    scale: str
    recipe: str = "authors"
    data: Path | None = None
    epochs: int | None = None
    options: tuple[str, ...] = ()

    def store(self, dataset: str, size: int) -> Path:
        """The store that serves for `dataset` with images of `size` pixels."""
        if self.scale == "smoke":
            return self.stores / f"synthetic-{size}"
        return self.data if self.data and dataset in IMAGENET else self.stores / dataset

    def recipe_of(self, variant: Variant) -> str:
        """The recipe asked for, or the only one that the variant has."""
        return self.recipe if self.recipe in variant.family.recipes else next(iter(variant.family.recipes))

    def run(
        self, store: Path, variant: str, seeds: Sequence[int], lr: float | None = None, tuned: bool = False
    ) -> Path:
        """The folder of a run, or of an average."""
        recipe = self.recipe_of(find_variant(variant.split("+")[0]))
        return self.out / store.name / run_name(variant, recipe, self.scale, seeds, lr, tuned)


def experiment(name: str, workspace: Workspace) -> Iterator[Stage]:
    """The stages of an experiment of the paper in order, done ones included, each once.

    Lazy: which rate a grid's winner is, is read from the logs once its stages are done; until then the first rate
    stands for it. Raises ReproError for an unknown name or a store that is not there.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    seen: set[Path | None] = set()
    for need in EXPERIMENTS[name].requirements:
        for stage in _need(need, workspace if need.recipe is None else replace(workspace, recipe=need.recipe)):
            if stage.result not in seen:
                seen.add(stage.result)
                yield stage


def _need(need: Requirement, workspace: Workspace) -> Iterator[Stage]:
    """The stages of one need: its data, the runs of its members, their evaluations."""
    members = ENSEMBLES.get(need.net, ((need.net, need.seeds),))
    runs: list[Path] = []
    for variant, seeds in members:
        if need.lrs:
            yield from _grid(need, workspace)
        lr = fastest_lr(_courses(need, workspace), need.until_train_error) if need.lrs else None
        until = need.until_train_error if len(need.lrs) > 1 else None
        for seed in range(seeds):
            runs.append((yield from _training(variant, seed, need.dataset, workspace, lr, need.pretrained_on, until)))
    store = _store(members[0][0], need.dataset, workspace)
    groups = [runs] if need.net in ENSEMBLES else [[run] for run in runs]
    split = _split(store, need.split)
    for run in runs if need.retrieve else ():
        search = ("retrieve", str(run), "--data", str(store), "--split", split)
        yield Stage(search, run / retrieval_name(split))
    for group in groups:
        for views in need.views:
            words = ("evaluate", *map(str, group), "--data", str(store), "--split", split, "--views", str(views))
            folder = group[0]
            if len(group) > 1:
                nets = "+".join(variant for variant, _ in members)
                folder = workspace.run(store, nets, [seed for _, seeds in members for seed in range(seeds)])
            yield Stage(words, folder / evaluation_name(split, views))


def _store(variant: str, dataset: str, workspace: Workspace) -> Path:
    configuration = configure(variant, workspace.recipe_of(find_variant(variant)), workspace.scale)
    return workspace.store(dataset, configuration.scale.image_size)


def _training(
    variant: str,
    seed: int,
    dataset: str,
    workspace: Workspace,
    lr: float | None = None,
    tuned_from: str | None = None,
    until: float | None = None,
    epochs: int | None = None,
) -> Generator[Stage, None, Path]:
    """The stages up to one trained run, the runs that it begins from first; returns its folder.

    It ends at a training error of `until` percent, or after `epochs`; None for neither.
    """
    chosen = find_variant(variant)
    store = _store(variant, dataset, workspace)
    if workspace.scale == "smoke":
        size = configure(variant, workspace.recipe_of(chosen), "smoke").scale.image_size
        few = ("--size", str(size), "--limit-per-class", "30")
        yield Stage(("prepare", "synthetic", "--out", str(store), *few), store / "manifest.json")
    elif not (store / "manifest.json").exists():
        size = configure(variant, workspace.recipe_of(chosen), workspace.scale).scale.image_size
        from repro.preparation.sources.datasets import DATASETS  # and NumPy: only to say what helps

        official = dataset if dataset in DATASETS else "folder"
        raise ReproError(f"no store at '{store}': repro prepare {official} --out {store} --size {size} --source …")
    words = ["train", "--variant", variant, "--recipe", workspace.recipe_of(chosen), "--scale", workspace.scale]
    words += ["--seed", str(seed), "--data", str(store), "--out", str(workspace.out / store.name)]
    words += ["--lr", str(lr)] if lr else []
    words += ["--until-train-error", f"{until:g}"] if until else []
    shorter = min(filter(None, (epochs, workspace.epochs)), default=None)
    words += ["--epochs", str(shorter)] if shorter else []
    if tuned_from:
        before = yield from _training(variant, seed, tuned_from, workspace)
        words += ["--init-from", str(before)]
    elif chosen.begins_from:
        before = yield from _training(chosen.begins_from, seed, find_variant(chosen.begins_from).dataset, workspace)
        words += ["--init-from", str(before)]
    folder = workspace.run(store, variant, [seed], lr, tuned_from is not None)
    length = shorter or configure(variant, workspace.recipe_of(chosen), workspace.scale).epochs
    yield Stage((*words, *workspace.options, "--resume"), folder / WEIGHTS, length)
    return folder


def _grid(need: Requirement, workspace: Workspace) -> Iterator[Stage]:
    """A run at each rate; of several, none goes on for longer than the fastest before it took."""
    if len(need.lrs) == 1:
        yield from _training(need.net, 0, need.dataset, workspace, need.lrs[0], need.pretrained_on)
        return
    for number, rate in enumerate(need.lrs):
        courses = _courses(need, workspace)
        before = [
            reached for each in need.lrs[:number] if (reached := epochs_to_error(courses[each], need.until_train_error))
        ]
        limit = math.ceil(min(before)) if before else None
        yield from _training(
            need.net, 0, need.dataset, workspace, rate, need.pretrained_on, need.until_train_error, limit
        )


def _courses(need: Requirement, workspace: Workspace) -> dict[float, list[float]]:
    """The training errors so far, in percent by epoch, of seed 0 at each rate of the grid."""
    store = _store(need.net, need.dataset, workspace)

    def errors(rate: float) -> list[float]:
        folder = workspace.run(store, need.net, [0], rate, need.pretrained_on is not None)
        return [epoch.train_top1_error for epoch in read_log(folder / LOG)]

    return {rate: errors(rate) for rate in need.lrs}


def _epochs_of(folder: Path) -> float:
    """How long a run was to be; infinite if it came to the training error that was to end it."""
    run = read_run(folder)
    reached = run.log and run.log[-1].train_top1_error <= (run.until_train_error or -1)
    return math.inf if reached else run.epochs


def _split(store: Path, wanted: str) -> str:
    """The split to evaluate on: a stand-in's val where it has no test."""
    try:
        splits = json.loads((store / "manifest.json").read_bytes())["splits"]
    except (OSError, ValueError, KeyError):
        return wanted
    return wanted if wanted in splits else "val"


def demo(out: Path) -> Iterator[Stage]:
    """Everything on the built-in data: both recipes, one view and ten, and the report."""
    store, runs = out / "store", out / "runs"
    yield Stage(("prepare", "synthetic", "--out", str(store)), store / "manifest.json")
    for recipe in ("authors", "paper"):
        run = runs / f"alexnet-{recipe}-smoke-seed0"
        choice = ("--variant", "alexnet", "--recipe", recipe, "--scale", "smoke", "--epochs", "20")
        place = ("--data", str(store), "--out", str(runs), "--resume")
        yield Stage(("train", *choice, *place), run / WEIGHTS)
        for views in (1, 10):
            words = ("evaluate", str(run), "--data", str(store), "--split", "test", "--views", str(views))
            yield Stage(words, run / evaluation_name("test", views))
    yield Stage(("report", "--runs", str(runs), "--out", str(out / "report"), "--compare"))
