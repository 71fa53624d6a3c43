"""Pre-training that differs from the paper's takes a net out of the paper's scope, and the report says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_records import data_record, write_run

from repro.paper.datasets import DATASET_SIZES
from repro.records.reading import read_records
from repro.records.schema import DataRecord
from repro.report.measurements.pretraining import pretraining_changes

CHAIN = (
    ("alexnet", "ilsvrc2012", 91),
    ("conv6-fall2009", "fall2009", 7),
    ("conv6-fall2011", "fall2011", 9),
    ("conv6-pretrained", "ilsvrc2012", 54),
)


def official(dataset: str) -> DataRecord:
    size = DATASET_SIZES[dataset]
    return data_record(dataset, dataset, [f"class {index}" for index in range(size.classes)], **size.images)


def write_chain(folder: Path, **changes: dict[str, Any]) -> None:
    """The runs of the chain at the paper's scale, each from the one before, with `changes` by variant."""
    before = None
    for variant, dataset, epochs in CHAIN:
        settings = {"data": official(dataset), "epochs": epochs} | changes.get(variant.replace("-", "_"), {})
        write_run(
            folder, variant, scale="paper", done=1, weights=False, **settings,
            init_from=before and {"run": before, "weights": f"checksum of {before}"},
            ended={"reason": "epochs", "epochs": settings["epochs"], "weights": f"checksum of {variant}"},
        )  # fmt: skip
        before = variant


def changes_of(folder: Path, variant: str = "conv6-pretrained") -> tuple[str, ...]:
    records = read_records(folder)
    return pretraining_changes(next(run for run in records.runs if run.variant == variant), records)


def test_the_authors_chain_is_the_papers(tmp_path: Path) -> None:
    write_chain(tmp_path)
    assert changes_of(tmp_path) == ()
    assert changes_of(tmp_path, "alexnet") == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"conv6_fall2011": {"data": data_record("folder", "caltech100")}}, ("pre-trained on caltech100",)),
        ({"conv6_fall2009": {"data": data_record("folder", "caltech100")}}, ("pre-trained on caltech100",)),
        ({"alexnet": {"data": data_record("folder", "caltech100")}}, ("pre-trained on caltech100",)),
        ({"conv6_fall2011": {"epochs": 2}}, ("pre-trained with 2 epochs",)),
        (
            {"conv6_fall2009": {"data": data_record("folder", "mine")}, "conv6_fall2011": {"epochs": 1}},
            ("pre-trained with 1 epoch", "pre-trained on mine"),
        ),
    ],
)
def test_every_stage_of_the_chain_is_compared(tmp_path: Path, changed: dict[str, Any], words: tuple[str, ...]) -> None:
    write_chain(tmp_path, **changed)
    assert changes_of(tmp_path) == words


def test_another_network_to_start_from_is_named(tmp_path: Path) -> None:
    write_chain(tmp_path)
    skipped = tmp_path / "skipped"
    origin = {"run": "alexnet", "weights": "checksum of alexnet"}
    write_run(skipped, "conv6-pretrained", scale="paper", done=1, weights=False, data=official("ilsvrc2012"),
              init_from=origin)  # fmt: skip
    records = read_records(tmp_path)
    (run,) = (run for run in records.runs if run.folder.parent == skipped)
    assert pretraining_changes(run, records) == ("starting from alexnet",)


def test_pre_training_without_records_is_not_taken_for_the_papers(tmp_path: Path) -> None:
    write_run(tmp_path, "conv6-pretrained", done=1, weights=False, init_from={"run": "x", "weights": "unknown"})
    assert changes_of(tmp_path) == ("pre-training not recorded",)


def test_a_net_that_its_user_fine_tuned_is_left_to_its_context(tmp_path: Path) -> None:
    write_run(tmp_path, "alexnet", done=1, weights=False, init_from={"run": "x", "weights": "unknown"})
    assert changes_of(tmp_path, "alexnet") == ()
