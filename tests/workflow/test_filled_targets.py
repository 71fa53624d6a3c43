"""Every target that needs a run is filled by an experiment, by both recipes: on records as complete runs leave them."""

import hashlib
import json
from pathlib import Path

import pytest
from made_records import data_record, write_json, write_retrieval, write_run

from repro.baselines.settings import BaselineSettings
from repro.paper.baselines import RECIPE
from repro.paper.datasets import DATASET_SIZES
from repro.paper.experiments import PARTS, find_experiment
from repro.paper.targets import Target, load_targets
from repro.paper.variants import find_variant
from repro.records.file_names import predictions_name
from repro.records.reading import read_records
from repro.records.runs import Records
from repro.records.schema import DataRecord, EvaluationRecord
from repro.report.measurements import measure
from repro.training.settings import Settings
from repro.workflow.stages import Kind, Stage, Workspace, experiment

TARGETS = [target for target in load_targets() if target.kind != "invariant" and not target.published_by_others]
# The labels of ILSVRC-2012's test images are not public.
PRIVATE = {
    "table2-5cnns-top5-test", "table2-7cnns-top5-test", "beats-previous-2012-top5", "val-test-difference",
}  # fmt: skip


def official(dataset: str) -> DataRecord:
    size = DATASET_SIZES[dataset]
    return data_record(dataset, "", [f"class {index}" for index in range(size.classes)], **size.images)


DATA = {dataset: official(dataset) for dataset in ("ilsvrc2010", "ilsvrc2012", "fall2009", "fall2011", "cifar10")}


def checksum(folder: Path) -> str:
    """A checksum in place of that of the run's weights."""
    return hashlib.sha256(str(folder).encode()).hexdigest()


def write_training(settings: Settings | BaselineSettings, dataset: str, folder: Path) -> None:
    """A run that is as long as its recipe and learns."""
    if isinstance(settings, BaselineSettings):
        path = write_run(
            folder.parent / "new", settings.variant, RECIPE, settings.scale, settings.seed, data=DATA[dataset],
            epochs=settings.method.epochs, kind="baseline",
        )  # fmt: skip
        path.rename(folder)
        return
    configuration = settings.configure(10, dataset)
    path = write_run(
        folder.parent / "new", settings.variant, settings.recipe, settings.scale, settings.seed, data=DATA[dataset],
        epochs=configuration.epochs, level=15, settings={"lr": configuration.recipe.lr},
        devices=(settings.devices or "cuda:0").split(","),
        init_from=settings.init_from and {"run": settings.init_from.name, "weights": checksum(settings.init_from)},
        ended={"reason": "epochs", "epochs": configuration.epochs, "weights": checksum(folder)},
    )  # fmt: skip
    path.rename(folder)


def write_result(stage: Stage, trained: dict[str, Settings | BaselineSettings]) -> None:
    """An evaluation, or a retrieval, of runs that were trained before."""
    assert stage.result
    assert stage.store
    data, split = DATA[stage.store.name], stage.words[stage.words.index("--split") + 1]
    runs = [Path(word) for word in stage.words[1 : stage.words.index("--data")]]
    settings = [trained[str(run)] for run in runs]
    first, images = settings[0], data.images[split]
    recipe = RECIPE if isinstance(first, BaselineSettings) else first.recipe
    if stage.kind == Kind.RETRIEVE:
        counts = {"images": images, "searched": data.images["train"]}
        write_retrieval(runs[0].parent, first.variant, recipe, first.scale, data=data, split=split, **counts)
        return
    views = int(stage.words[stage.words.index("--views") + 1])
    stage.result.parent.mkdir(parents=True, exist_ok=True)
    record = EvaluationRecord(
        runs=tuple(run.name for run in runs), variant=first.variant, recipe=recipe, scale=first.scale,
        seeds=tuple(each.seed for each in settings), data=data, split=split, views=views, images=images,
        classes=len(data.classes), top1_error=40.0, top5_error=18.0, top1_interval=(39, 41), top5_interval=(17, 19),
        predictions=predictions_name(split, views, False),
    )  # fmt: skip
    write_json(stage.result, record, {})


def complete_records(name: str, recipe: str, tmp_path: Path) -> Records:
    """The records of everything that an experiment trains and evaluates at the paper's scale."""
    stores = tmp_path / "stores"
    for dataset, size in DATASET_SIZES.items():
        (stores / dataset).mkdir(parents=True, exist_ok=True)
        manifest = {"dataset": dataset, "splits": {split: {} for split in size.images}}
        (stores / dataset / "manifest.json").write_text(json.dumps(manifest))
    trained: dict[str, Settings | BaselineSettings] = {}
    out = tmp_path / f"{name}-{recipe}"
    for stage in experiment(name, Workspace(out, stores, "paper", recipe)):
        assert stage.result
        if stage.settings:
            assert stage.store
            trained[str(stage.result.parent)] = stage.settings
            write_training(stage.settings, stage.store.name, stage.result.parent)
        else:
            write_result(stage, trained)
    return read_records(out)


def filled(target: Target, records: Records, recipe: str) -> bool:
    """Whether the records hold what decides on `target`: in its scope, by this recipe and from enough seeds."""
    return any(
        each.scope == target.scope
        and each.recipe == find_variant("alexnet" if "cnns" in target.variant else target.variant).recipe_for(recipe)
        and (each.n if each.over == "seeds" else 1) >= target.min_seeds
        for each in measure(target, records)
    )


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_complete_experiments_leave_only_the_private_labels_missing(recipe: str, tmp_path: Path) -> None:
    missing = {target.id for target in TARGETS}
    for part in PARTS:
        if part.name != "catsdogs":  # not in the paper
            records = complete_records(part.name, recipe, tmp_path)
            missing -= {target.id for target in TARGETS if filled(target, records, recipe)}
    assert missing == PRIVATE


@pytest.mark.parametrize("target", TARGETS, ids=[target.id for target in TARGETS])
def test_every_target_has_an_experiment_that_trains_its_nets(target: Target) -> None:
    assert target.dataset
    nets = [net for net in (target.variant, target.baseline) if net]
    assert find_experiment(nets, target.dataset)
