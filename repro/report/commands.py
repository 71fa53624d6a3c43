"""The commands that would measure a target where the paper did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from repro.evaluation.command_lines import command_line, evaluate_argv, retrieve_argv
from repro.paper.baselines import BASELINES
from repro.paper.experiments import LR_GRIDS, PARTS, Experiment, find_experiment, trains
from repro.paper.targets import Target
from repro.paper.variants import ENSEMBLES, VARIANTS, ancestors_of, members_of
from repro.preparation.settings import PrepareSettings
from repro.records.runs import Records, Run
from repro.report.measurements import MEASURES
from repro.report.measurements.context import data_changes
from repro.report.measurements.overfitting import OVERFITTING_MEASURES
from repro.report.measurements.retrieval import RETRIEVAL_MEASURES
from repro.training.settings import Settings

STORE, STORES, RUNS = Path("STORE"), Path("STORES"), Path("RUNS")


@dataclass(frozen=True)
class _Training:
    """A run's folder, and the command that trains it; empty if the run is finished."""

    folder: Path
    command: str


def commands(target: Target, records: Records) -> list[str]:
    """Return the commands that would measure `target` where the paper did; none if this version offers no such run.

    STORE stands for the prepared dataset, STORES for a folder of such, RUNS for the folder of runs. Runs that are
    finished are not trained again, unfinished ones are resumed.
    """
    nets = list(dict.fromkeys(name for name in (target.variant, target.baseline) if name))
    offered = all(name in VARIANTS or name in ENSEMBLES or name in BASELINES for name in nets)
    if target.dataset is None or target.measure not in MEASURES or not offered:
        return []
    lr_is_chosen = {net for net, _ in LR_GRIDS}
    fall = target.dataset in ("fall2009", "fall2011")
    several = (*ENSEMBLES, *BASELINES, *lr_is_chosen)
    if fall or any(name in several or ancestors_of(name) for name in nets):
        return _experiment(nets, target)
    trainings = {name: _trainings(name, target, records) for name in nets}
    steps = [_prepare(target.dataset, STORE)]
    steps += [each.command for runs in trainings.values() for each in runs if each.command]
    for name, runs in trainings.items():
        steps += [command_line(argv) for run in runs for argv in _evaluations(name, run.folder, target)]
    return steps


def _prepare(dataset: str, store: Path) -> str:
    return command_line(PrepareSettings(dataset).to_argv(store))


def _evaluations(net: str, run: Path, target: Target) -> Iterator[Sequence[str]]:
    """Yield the commands that evaluate a run of `net`, without `repro`."""
    if target.split is None or target.views is None:
        return
    if target.measure in RETRIEVAL_MEASURES:
        yield retrieve_argv(run, STORE, target.split)
        return
    splits = (target.split, "train") if target.measure in OVERFITTING_MEASURES else (target.split,)
    for count in _views_of(net, target):
        for split in splits:
            yield evaluate_argv([run], STORE, split, count)


def experiment_command(experiment: Experiment, scale: str = "paper") -> str:
    """Return the command that runs an experiment on prepared datasets."""
    return command_line(("run", experiment.name, "--scale", scale, "--stores", str(STORES), "--out", str(RUNS)))


def experiment_of(target: Target) -> Experiment | None:
    """Return the experiment whose runs measure `target`, if there is one: first of those that evaluate as it needs."""
    if target.dataset is None:
        return None
    nets = list(dict.fromkeys(name for name in (target.variant, target.baseline) if name))
    measuring = [each for each in PARTS if _measures(each, nets, target)]
    return measuring[0] if measuring else find_experiment(nets, target.dataset)


def _measures(experiment: Experiment, nets: Sequence[str], target: Target) -> bool:
    """Return whether an experiment trains all `nets` and measures them as the target needs."""
    assert target.dataset is not None
    for net in nets:
        trained = [each for each in experiment.requirements if trains(each, net, target.dataset)]
        if target.measure == "seconds_per_epoch":
            trained = [each for each in trained if net == target.variant or each.devices > 1]
        if target.measure in RETRIEVAL_MEASURES:
            trained = [each for each in trained if each.retrieve]
        elif target.split is not None:
            trained = [each for each in trained if each.split == target.split]
            if not set(_views_of(net, target)) <= {count for each in trained for count in each.views}:
                return False
        if not trained:
            return False
    return True


def _views_of(net: str, target: Target) -> list[int]:
    """Return the numbers of views with which a target needs the evaluations of `net`."""
    if target.views is None:
        return []
    views = [target.views] if net == target.variant else []
    if net == target.baseline:
        views.append(target.baseline_views or target.views)
    return list(dict.fromkeys(views))


def _experiment(nets: Sequence[str], target: Target) -> list[str]:
    """Return the commands of the experiment that trains all `nets`, for targets that need many runs in sequence."""
    assert target.dataset is not None
    experiment = find_experiment(nets, target.dataset)
    if experiment is None:
        return []
    datasets = [target.dataset]
    for each in experiment.requirements:
        ancestors = [before for variant, _ in members_of(each.net) for before in ancestors_of(variant)]
        datasets += [each.dataset, *(before.dataset for before in ancestors)]
    steps = [_prepare(dataset, STORES / dataset) for dataset in dict.fromkeys(datasets)]
    steps.append(experiment_command(experiment, target.scale))
    if target.split and target.views and all(each.split != target.split for each in experiment.requirements):
        runs = [RUNS / target.dataset / run.folder.name for run in _trainings(target.variant, target, Records())]
        steps.append(command_line(evaluate_argv(runs, STORES / target.dataset, target.split, target.views)))
    return steps


@lru_cache(maxsize=2)  # every claim asks for them
def _runs_by_folder_name(records: Records) -> Mapping[str, Sequence[Run]]:
    found: dict[str, list[Run]] = defaultdict(list)
    for run in records.runs:
        found[run.folder.name].append(run)
    return found


def _trainings(name: str, target: Target, records: Records) -> list[_Training]:
    """Return the runs of a net, from as many seeds as the target needs, or of an ensemble."""
    trainings = []
    for variant, seeds in members_of(name, target.min_seeds):
        for seed in range(seeds):
            devices = "cuda:0,cuda:1" if target.measure == "seconds_per_epoch" and name == target.baseline else None
            settings = Settings(variant, scale=target.scale, seed=seed, devices=devices)
            command = command_line(settings.to_argv(STORE, RUNS, launcher=()))
            named = _runs_by_folder_name(records).get(settings.run_name, ())
            present = [run for run in named if run.data.dataset == target.dataset and not data_changes(run.data)]
            if any(run.finished for run in present):
                command = ""
            elif present:
                command += " --resume"
            trainings.append(_Training(RUNS / settings.run_name, command))
    return trainings
