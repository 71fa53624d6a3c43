"""Records that are damaged, half-written or from elsewhere are left out and named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_records import data_record, write_evaluation, write_run
from safetensors.numpy import save_file

from repro.records import read_records


def test_a_half_written_last_line_is_not_there_yet(tmp_path: Path) -> None:
    path = write_run(tmp_path, done=4, weights=False)
    with (path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 5, "train_lo')
    (run,) = read_records(tmp_path).runs
    assert [epoch.epoch for epoch in run.log] == [1, 2, 3, 4]
    assert not run.finished


def test_an_epoch_done_again_counts_once(tmp_path: Path) -> None:
    path = write_run(tmp_path, done=2)
    with (path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"epoch": 2, "train_loss": 0.5}) + "\n")
    (run,) = read_records(tmp_path).runs
    assert [(epoch.epoch, epoch.train_loss) for epoch in run.log][1] == (2, 0.5)
    assert math.isnan(run.log[1].lr)


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", '"a word"', "true"])
def test_numbers_that_are_none(tmp_path: Path, value: str) -> None:
    path = write_run(tmp_path, done=1)
    with (path / "log.jsonl").open("a") as log:
        log.write(f'{{"epoch": 2, "train_loss": {value}}}\n')
    records = read_records(tmp_path)
    assert math.isnan(records.runs[0].log[-1].train_loss)
    assert records.problems == (f"{path.name}: the loss is not finite after epoch 1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "left out"),
        ("[]", "left out"),
        ("{}", "it has no 'format'"),
        ('{"format": 2}', "its format is 2, this version reads 1"),
        ('{"format": 1, "variant": "alexnet"}', "missing required field `recipe`"),
        (b"\xff\xfe", "left out"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    write_run(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    records = read_records(tmp_path)
    assert len(records.runs) == 1
    (problem,) = records.problems
    assert problem.startswith("bad/run.json was left out: ")
    assert message in problem


def test_weights_that_are_missing_damaged_or_not_finite(tmp_path: Path) -> None:
    path = write_run(tmp_path, weights=False)
    (run,) = read_records(tmp_path).runs
    assert run.conv1() is None
    (path / "weights.safetensors").write_bytes(b"no weights")
    assert run.conv1() is None
    for kernels in (np.full((48, 3, 11, 11), np.nan), np.zeros((1, 3, 11, 11)), np.zeros((48, 1, 11, 11))):
        save_file({"conv1.weight": kernels}, path / "weights.safetensors")
        assert run.conv1() is None


def test_predictions_that_are_missing_or_damaged(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path)
    (evaluation,) = read_records(tmp_path).evaluations
    assert evaluation.wrong("top1_error") is not None
    (path / "predictions-val-10.npz").write_bytes(b"PK damaged")
    assert evaluation.wrong("top1_error") is None
    np.savez(path / "predictions-val-10.npz", labels=np.zeros(3))
    assert evaluation.wrong("top1_error") is None
    (path / "predictions-val-10.npz").unlink()
    assert evaluation.wrong("top1_error") is None


def test_searched_weights_without_word_of_the_images(tmp_path: Path) -> None:
    write_evaluation(tmp_path, seeds=(0, 1), weights=[0.5, 0.5])
    records = read_records(tmp_path)
    assert not records.evaluations
    (problem,) = records.problems
    assert problem.endswith("was left out: it has no 'weights_selected_on'")


def test_a_missing_class_list_and_checkpoints(tmp_path: Path) -> None:
    path = write_run(tmp_path, data=data_record(classes=[]))
    record = json.loads((path / "run.json").read_text())
    del record["data"]["classes"]
    (path / "run.json").write_text(json.dumps(record))
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "run.json").write_text("{")
    records = read_records(tmp_path)
    assert records.runs[0].data.classes == ()
    assert not records.problems
