"""What the runs of a report can and cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.paper.tolerances import MIN_SEEDS
from repro.paper.variants import configure
from repro.records.runs import Records, Run
from repro.records.schema import NET, DataRecord
from repro.report.measurements.context import PAPER_DATASETS, RunScale, context_of, data_changes, precedence, run_scale
from repro.report.table import distinct

DATASETS = {name: DATASET_SIZES[name].title for name in ("ilsvrc2010", "ilsvrc2012", "fall2009", "cifar10")}


@dataclass(frozen=True)
class Limitations:
    """What the runs on one dataset at one scale can and cannot show."""

    context: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]


def limitations(records: Records) -> list[Limitations]:
    """Return what can and cannot be concluded from the runs of nets, by dataset and scale."""
    groups: dict[tuple[DataRecord, RunScale], list[Run]] = {}
    nets = (run for run in records.runs if run.kind == NET)
    for run in sorted(nets, key=lambda run: precedence(context_of(run))):
        groups.setdefault((run.data, run_scale(run)), []).append(run)
    headings = [f"{data.description}, {scale.label}" for data, scale in groups]
    stores = [f"store {data.fingerprint[:8]}" if data.fingerprint else "" for data, _ in groups]
    return [
        _limitations(heading, data, scale, runs)
        for heading, ((data, scale), runs) in zip(distinct(headings, stores), groups.items(), strict=True)
    ]


def _limitations(heading: str, data: DataRecord, scale: RunScale, runs: Sequence[Run]) -> Limitations:
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in runs:
        seeds.setdefault((run.variant, run.recipe), set()).add(run.seed)
    can, cannot = [], []
    if scale == RunScale("paper") and data.dataset in DATASETS and not data_changes(data):
        can.append(f"The paper's numbers on {DATASETS[data.dataset]}: same images, same size of net and crop.")
    else:
        can.append("That the pipeline works from images to verdicts, and that the net learns.")
        can.append("The direction of an effect within one net, such as that of averaging ten views.")
        cannot.append(f"Any error of the paper.{_difference(runs[0])}")
        cannot.append("The size of an effect on ImageNet: small effects there may vanish or reverse here.")
    if sum(len(each) >= MIN_SEEDS for each in seeds.values()) > 1:
        can.append("The direction of an effect of a net or recipe, for those with at least three seeds.")
    else:
        cannot.append("Which net or recipe is better: that needs three seeds of each.")
    if max(map(len, seeds.values())) < 2:
        cannot.append(
            "Variation over seeds: each net was trained once, so intervals cover the sampling of images only."
        )
    else:
        can.append("Variation over seeds, where a net was trained more than once.")
    if data.classes and len(data.classes) <= 10:
        cannot.append(f"Much in top-5 error: with {len(data.classes)} classes five guesses nearly always suffice.")
    if data.dataset == "synthetic":
        cannot.append("Anything about photographs: these images are generated to be learned quickly.")
    if unfinished := sum(not run.finished for run in runs):
        cannot.append(f"The end of {unfinished} unfinished {'run' if unfinished == 1 else 'runs'}.")
    return Limitations(heading, tuple(can), tuple(cannot))


def _difference(run: Run) -> str:
    """Return how a run's images and scale differ from the paper's; empty for a run of another version."""
    parts = []
    if run.data.dataset not in DATASETS:
        pretraining = run.data.dataset in PAPER_DATASETS
        parts.append("the paper gives no error on these images" if pretraining else "the images are not the paper's")
    try:
        scales, dataset = (run.scale, "paper"), run.data.dataset
        ours, papers = (configure(run.variant, run.recipe, scale, dataset=dataset) for scale in scales)
    except ReproError:
        return ""
    if ours.scale.crop_size != papers.scale.crop_size:
        parts.append(f"crops have {ours.scale.crop_size} pixels instead of {papers.scale.crop_size}")
    if ours.scale.width != papers.scale.width:
        parts.append(f"layers have {ours.scale.width:g} of their width")
    if run.epochs < papers.epochs:
        epochs = f"{run.epochs} epoch{'s' if run.epochs != 1 else ''}"
        parts.append(f"training takes {epochs} instead of {papers.epochs:g}")
    sentence = "; ".join(parts)
    return f" {sentence[:1].upper()}{sentence[1:]}." if parts else ""
