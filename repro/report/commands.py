"""The commands that would measure a target where the paper did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.paper.experiments import LR_GRIDS, PARTS
from repro.paper.targets import Target
from repro.paper.variants import ENSEMBLES, VARIANTS, ancestors_of, members_of
from repro.records import Records
from repro.report.measurements import MEASURES
from repro.report.measurements.retrieval import RETRIEVAL_MEASURES


@dataclass(frozen=True)
class _Training:
    """A run's folder, and the command that trains it; empty if the run is finished."""

    folder: str
    command: str


def commands(target: Target, records: Records) -> list[str]:
    """Return the commands that would measure `target` where the paper did; none if this version offers no such run.

    STORE stands for the prepared dataset, STORES for a folder of such, RUNS for the folder of runs. Runs that are
    finished are not trained again, unfinished ones are resumed.
    """
    nets = list(dict.fromkeys(name for name in (target.variant, target.baseline) if name))
    offered = all(name in VARIANTS or name in ENSEMBLES for name in nets)
    if target.dataset is None or target.measure not in MEASURES or not offered:
        return []
    lr_is_chosen = {net for net, _ in LR_GRIDS}
    if any(name in ENSEMBLES or name in lr_is_chosen or ancestors_of(name) for name in nets):
        return _experiment(nets, target)
    steps = [f"repro prepare {target.dataset} --out STORE"]
    for name in nets:
        steps += [training.command for training in _trainings(name, target, records) if training.command]
    if target.measure in RETRIEVAL_MEASURES:
        for training in _trainings(target.variant, target, records):
            steps.append(f"repro retrieve RUNS/{training.folder} --data STORE --split {target.split}")
    elif target.split:
        views = {target.variant: [target.views]}
        views.setdefault(target.baseline or target.variant, []).append(target.baseline_views or target.views)
        for name, counts in views.items():
            paths = " ".join(f"RUNS/{training.folder}" for training in _trainings(name, target, records))
            for count in dict.fromkeys(counts):
                steps.append(f"repro evaluate {paths} --data STORE --split {target.split} --views {count}")
    return steps


def _experiment(nets: Sequence[str], target: Target) -> list[str]:
    """Return the commands of the experiment that trains all `nets`, for targets that need many runs in sequence."""
    for experiment in PARTS:
        needs = [need for need in experiment.requirements if need.dataset == target.dataset]
        if not set(nets) <= {need.net for need in needs}:
            continue
        datasets = [target.dataset]
        for need in needs:
            for variant, _ in members_of(need.net):
                datasets += [before.dataset for before in ancestors_of(variant)]
        steps = [f"repro prepare {dataset} --out STORES/{dataset}" for dataset in dict.fromkeys(datasets)]
        steps.append(f"repro run {experiment.name} --scale {target.scale} --stores STORES --out RUNS")
        if target.split and all(need.split != target.split for need in needs):
            folders = [training.folder for training in _trainings(target.variant, target, Records())]
            paths = " ".join(f"RUNS/{target.dataset}/{folder}" for folder in folders)
            steps.append(f"repro evaluate {paths} --data STORES/{target.dataset} --split {target.split}")
        return steps
    return []


def _trainings(name: str, target: Target, records: Records) -> list[_Training]:
    """Return the runs of a net or of an ensemble."""
    trainings = []
    for variant, seeds in members_of(name):
        for seed in range(seeds):
            folder = f"{variant}-authors-{target.scale}-seed{seed}"
            present = [run for run in records.runs if run.folder.name == folder and run.data.scope == target.dataset]
            command = f"repro train --variant {variant} --scale {target.scale} --seed {seed} --data STORE"
            if before := VARIANTS[variant].begins_from:
                command += f" --init-from RUNS/{before}-authors-{target.scale}-seed{seed}"
            if target.measure == "seconds_per_epoch" and name == target.baseline:
                command += " --devices cuda:0,cuda:1"
            if any(run.finished for run in present):
                command = ""
            elif present:
                command += " --resume"
            trainings.append(_Training(folder, command))
    return trainings
