"""The words of the report: what was reproduced, what these runs can and cannot show, and how to fill the gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.paper.experiments import LR_GRIDS, PARTS
from repro.paper.targets import MATCH, MISMATCH, NOT_COMPARABLE, Target, Verdict
from repro.paper.variants import ENSEMBLES, VARIANTS, configure
from repro.report.measure import (
    MEASURES,
    NAMES_OF_SPLITS,
    RETRIEVAL_MEASURES,
    context_of,
    precedence,
    run_scale,
)
from repro.report.records import Records, Run

DATASETS = {name: DATASET_SIZES[name].title for name in ("ilsvrc2010", "ilsvrc2012", "fall2009", "cifar10")}


def headline(verdicts: Sequence[Verdict]) -> str:
    """How the claims stand, in two sentences."""
    computed = [each for each in verdicts if each.target.kind == "invariant"]
    measured = [each for each in verdicts if each.target.kind != "invariant"]
    counts = Counter(each.verdict for each in measured)
    comparable = counts[MATCH] + counts[MISMATCH]
    hold = sum(each.verdict == MATCH for each in computed)
    words = f"{hold} of the {len(computed)} claims that follow from the architecture alone hold. "
    if comparable:
        return words + (
            f"Of the {len(measured)} that need a run, {comparable} were measured as in the paper, and "
            f"{counts[MATCH]} of them match."
        )
    if counts[NOT_COMPARABLE]:
        return words + (
            f"None of the {len(measured)} that need a run was measured on the paper's own data at its scale; "
            f"{counts[NOT_COMPARABLE]} were measured elsewhere, where only the direction of an effect counts."
        )
    return words + f"None of the {len(measured)} that need a run has been measured yet."


def result(verdicts: Mapping[str, Sequence[Verdict]]) -> str:
    """The error of the paper's own net, as the runs have it, in one sentence; empty if none was evaluated."""
    measurement = verdicts["table1-cnn-top1"][0].measurement
    if measurement is None or measurement.scope is None:
        return ""
    scope = measurement.scope
    views = "the centre patch" if scope.views == 1 else f"{scope.views} views"
    seeds = f", mean of {measurement.n} seeds" if measurement.over == "seeds" else ""
    return (
        f"On {measurement.where}, {scope.scale} scale, the net is wrong on {measurement.value:.1f}% of the "
        f"{NAMES_OF_SPLITS.get(scope.split or '', scope.split)} images ({views}, recipe {measurement.recipe}{seeds})."
    )


@dataclass(frozen=True)
class Limitations:
    """What the runs of one data set and scale can and cannot show."""

    place: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]


def limitations(records: Records) -> list[Limitations]:
    """For each data set and scale that has runs: what follows from them, and what does not."""
    notes = []
    ordered = sorted(records.runs, key=lambda run: precedence(context_of(run)))
    places = dict.fromkeys((run.data, run_scale(run)) for run in ordered)
    for data, scale in places:
        runs = [run for run in records.runs if (run.data, run_scale(run)) == (data, scale)]
        seeds: dict[tuple[str, str], set[int]] = {}
        for run in runs:
            seeds.setdefault((run.variant, run.recipe), set()).add(run.seed)
        can, cannot = [], []
        whole = scale == "paper" and data.scope in DATASETS
        if whole:
            can.append(f"The paper's numbers on {DATASETS[data.scope]}: same images, same size of net and patch.")
        else:
            can.append("That the pipeline works from images to verdicts, and that the net learns.")
            can.append("The direction of an effect: whether a change of net or recipe helps here.")
            cannot.append(f"Any error of the paper.{_difference(runs[0])}")
            cannot.append("The size of an effect on ImageNet: small effects there may vanish or turn here.")
        if max(map(len, seeds.values())) < 2:
            cannot.append("What another seed would give: each net was trained once, so intervals speak of images only.")
        else:
            can.append("How far results spread over seeds, where a net was trained more than once.")
        if data.classes and len(data.classes) <= 10:
            cannot.append(
                f"Much in top-5 error: with {len(data.classes)} classes five guesses are nearly always enough."
            )
        if data.dataset == "synthetic":
            cannot.append("Anything about photographs: these images are generated to be learned quickly.")
        if unfinished := [run.name for run in runs if not run.finished]:
            cannot.append(f"The end of {len(unfinished)} unfinished {_plural('run', len(unfinished))}.")
        notes.append(Limitations(f"{data.description}, {scale} scale", tuple(can), tuple(cannot)))
    return notes


def _difference(run: Run) -> str:
    """How a run's images and scale differ from the paper's, as a sentence; empty for a run of another version."""
    words = [] if run.data.dataset in DATASETS else ["the images are not the paper's"]
    try:
        ours, papers = (configure(run.variant, run.recipe, scale) for scale in (run.scale, "paper"))
    except ReproError:
        return ""
    if ours.scale.crop_size != papers.scale.crop_size:
        words.append(f"patches have {ours.scale.crop_size} pixels instead of {papers.scale.crop_size}")
    if ours.scale.width != papers.scale.width:
        words.append(f"layers {ours.scale.width:g} of their width")
    if run.epochs < papers.epochs:
        words.append(f"training takes {run.epochs} epochs instead of {papers.epochs}")
    sentence = "; ".join(words)
    return f" {sentence[:1].upper()}{sentence[1:]}." if words else ""


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def commands(target: Target, records: Records) -> list[str]:
    """The commands that would measure `target` where the paper did; empty if this version offers no such run.

    STORE is the prepared data set, STORES a folder of such, RUNS the folder of runs. Runs that are there already
    are not trained again.
    """
    nets = list(dict.fromkeys(name for name in (target.variant, target.baseline) if name))
    offered = all(name in VARIANTS or name in ENSEMBLES for name in nets)
    if target.dataset is None or target.measure not in MEASURES or not offered:
        return []
    rate_is_chosen = {net for net, _ in LR_GRIDS}
    if any(name in ENSEMBLES or name in rate_is_chosen or VARIANTS[name].begins_from for name in nets):
        return _whole_experiment(nets, target)
    steps = [f"repro prepare {target.dataset} --out STORE"]
    for name in nets:
        steps += [step for _, step in _trainings(name, target, records) if step]
    if target.measure in RETRIEVAL_MEASURES:
        for folder, _ in _trainings(target.variant, target, records):
            steps.append(f"repro retrieve RUNS/{folder} --data STORE --split {target.split}")
    elif target.split:
        views = {target.variant: [target.views]}
        views.setdefault(target.baseline or target.variant, []).append(target.baseline_views or target.views)
        for name, counts in views.items():
            paths = " ".join(f"RUNS/{folder}" for folder, _ in _trainings(name, target, records))
            for count in dict.fromkeys(counts):
                steps.append(f"repro evaluate {paths} --data STORE --split {target.split} --views {count}")
    return steps


def _whole_experiment(nets: Sequence[str], target: Target) -> list[str]:
    """What fills a gap that takes many runs, one after the other: the experiment that holds them all."""
    for experiment in PARTS:
        needs = [need for need in experiment.requirements if need.dataset == target.dataset]
        if not set(nets) <= {need.net for need in needs}:
            continue
        datasets = [target.dataset]
        for need in needs:
            for variant, _ in ENSEMBLES.get(need.net, ((need.net, 1),)):
                before = VARIANTS[variant].begins_from
                while before:
                    datasets.append(VARIANTS[before].dataset)
                    before = VARIANTS[before].begins_from
        steps = [f"repro prepare {dataset} --out STORES/{dataset}" for dataset in dict.fromkeys(datasets)]
        steps.append(f"repro run {experiment.name} --scale {target.scale} --stores STORES --out RUNS")
        if target.split and all(need.split != target.split for need in needs):
            folders = [folder for folder, _ in _trainings(target.variant, target, Records())]
            paths = " ".join(f"RUNS/{target.dataset}/{folder}" for folder in folders)
            steps.append(f"repro evaluate {paths} --data STORES/{target.dataset} --split {target.split}")
        return steps
    return []


def _trainings(name: str, target: Target, records: Records) -> list[tuple[str, str]]:
    """The runs of a net or an average of nets: each one's folder, and the command that trains what is lacking."""
    trainings = []
    for variant, seeds in ENSEMBLES.get(name, ((name, 1),)):
        for seed in range(seeds):
            folder = f"{variant}-authors-{target.scale}-seed{seed}"
            begun = [run for run in records.runs if run.folder.name == folder and run.data.scope == target.dataset]
            step = f"repro train --variant {variant} --scale {target.scale} --seed {seed} --data STORE"
            if before := VARIANTS[variant].begins_from:
                step += f" --init-from RUNS/{before}-authors-{target.scale}-seed{seed}"
            if target.measure == "seconds_per_epoch" and name == target.baseline:
                step += " --devices cuda:0,cuda:1"
            if any(run.finished for run in begun):
                step = ""
            elif begun:
                step += " --resume"
            trainings.append((folder, step))
    return trainings


def strict_note(verdicts: Sequence[Verdict]) -> str:
    """What a strict check would say of the mismatches."""
    mismatches = [each for each in verdicts if each.verdict == MISMATCH]
    known = [each for each in mismatches if not each.fails_strict]
    if not mismatches:
        return "No claim is contradicted."
    which = "All" if len(known) == len(mismatches) else f"{len(known)} of the"
    return (
        f"{which} {len(mismatches)} mismatches are contradictions inside the paper itself, explained with the "
        f"claim; a strict check does not count them."
    )
