"""Records are read as far as possible: damaged, incomplete, older and newer ones."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from made_records import data_record, epoch_record, write_evaluation, write_run
from safetensors.numpy import save_file

from repro.errors import ReproError
from repro.records.file_names import LOG, RUN, WEIGHTS
from repro.records.reading import check_epoch, read_records, read_run
from repro.records.schema import EndRecord
from repro.records.writing import to_json

LINE = to_json(epoch_record())


def test_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    path = write_run(tmp_path, done=4, weights=False)
    with (path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 5, "train_lo')
    (run,) = read_records(tmp_path).runs
    assert [epoch.epoch for epoch in run.log] == [1, 2, 3, 4]
    assert not run.finished


def test_a_repeated_epoch_counts_once(tmp_path: Path) -> None:
    path = write_run(tmp_path, done=2)
    with (path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"epoch": 2, "train_loss": 0.5}) + "\n")
    (run,) = read_records(tmp_path).runs
    assert [(epoch.epoch, epoch.train_loss) for epoch in run.log][1] == (2, 0.5)
    assert math.isnan(run.log[1].lr)


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", '"a word"', "true"])
def test_values_that_are_not_finite_numbers_become_nan(tmp_path: Path, value: str) -> None:
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
        (
            '{"format": 2}',
            "its format is 2, this version reads 1: it was written by a newer version of repro, update this one",
        ),
        ('{"format": 1, "variant": "alexnet"}', "missing required field `recipe`"),
        (b"\xff\xfe", "left out"),
    ],
)
def test_a_record_that_cannot_be_read_is_left_out_and_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    write_run(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    records = read_records(tmp_path)
    assert len(records.runs) == 1
    (problem,) = records.problems
    assert problem.startswith("bad/run.json was left out: ")
    assert message in problem


def test_conv1_of_weights_that_are_missing_damaged_or_not_finite(tmp_path: Path) -> None:
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


def test_searched_weights_without_the_split_they_were_selected_on(tmp_path: Path) -> None:
    write_evaluation(tmp_path, seeds=(0, 1), weights=[0.5, 0.5])
    records = read_records(tmp_path)
    assert not records.evaluations
    (problem,) = records.problems
    assert problem.endswith("was left out: it has no 'weights_selected_on'")


def test_an_evaluation_of_other_weights_than_its_runs_have_now_is_left_out_and_named(tmp_path: Path) -> None:
    """Whether the runs' weights are there or, as of published runs, only their checksum."""
    old, new, other = ("0" * 64, "1" * 64, "2" * 64)
    for seed, checksum in enumerate((new, other)):
        run = write_run(tmp_path, seed=seed, ended={"reason": "epochs", "epochs": 30, "weights": checksum})
    (run / WEIGHTS).unlink()
    write_evaluation(tmp_path, seeds=(0,), views=1, checksums=[old])
    write_evaluation(tmp_path, seeds=(0,), views=10, checksums=[new])
    write_evaluation(tmp_path, seeds=(1,), views=1)  # an older version's, without checksums
    write_evaluation(tmp_path, seeds=(0, 1), views=1, checksums=[new, old])
    write_evaluation(tmp_path, seeds=(0, 1), views=10, checksums=[new, other])
    write_evaluation(tmp_path, seeds=(2, 3), checksums=[old, old])  # of runs that are not there
    records = read_records(tmp_path)
    assert [(each.seeds, each.views) for each in records.evaluations] == [
        ((0,), 10), ((1,), 1), ((0, 1), 10), ((2, 3), 10),
    ]  # fmt: skip
    name = "alexnet-authors-small-seed"
    assert records.problems == (
        f"{name}0/evaluation-val-1.json was left out: it is of other weights than '{name}0' has now",
        f"{name}s0+1/evaluation-val-1.json was left out: it is of other weights than '{name}1' has now",
    )
    edit(tmp_path / f"{name}1" / RUN, ended=None)  # it is trained for more epochs
    assert [each.seeds for each in read_records(tmp_path).evaluations] == [(0,), (1,), (2, 3)]


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


def test_runs_below_a_folder_named_checkpoints_are_read(tmp_path: Path) -> None:
    write_run(tmp_path / "checkpoints" / "runs")
    write_run(tmp_path / "other").rename(tmp_path / "other" / "checkpoints")  # a run of that name
    assert len(read_records(tmp_path).runs) == 2
    assert len(read_records(tmp_path / "checkpoints").runs) == 1


PUBLISHED = Path(__file__).parents[2] / "outputs" / "reference" / "runs"


def edit(path: Path, **changes: object) -> None:
    """Replace values of a JSON file; those given as ... are removed."""
    content = json.loads(path.read_bytes()) | changes
    path.write_bytes(json.dumps({name: value for name, value in content.items() if value is not ...}).encode())


def test_the_error_for_a_newer_format_says_so(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    edit(path / RUN, format=2)
    with pytest.raises(ReproError, match=r"its format is 2, this version reads 1: it was written by a newer version"):
        read_run(path)


def test_a_run_that_records_that_it_has_not_ended_is_not_finished(tmp_path: Path) -> None:
    """Even if its log is complete and its weights are there."""
    path = write_run(tmp_path, epochs=3, weights=True)
    assert read_run(path).finished
    edit(path / RUN, ended=None)
    assert not read_run(path).finished
    edit(path / RUN, ended={"reason": "until_train_error", "epochs": 2})
    assert read_run(path).ended == EndRecord("until_train_error", 2)


PLATEAU = {"lr": 0.1, "schedule": {"drops": 3, "patience": 2}}


@pytest.mark.parametrize(
    ("errors", "changes", "reason"),
    [
        ([50, 40, 30], {"epochs": 3}, "epochs"),
        ([50, 40, 30], {"epochs": 5}, None),
        ([50, 40, 24], {"epochs": 5, "until_train_error": 25.0}, "until_train_error"),
        ([50, 40, 26], {"epochs": 5, "until_train_error": 25.0}, None),
        ([50, 40, 24], {"epochs": 3, "until_train_error": 25.0}, "epochs"),
        ([50, 40, 30, 30, 31], {"epochs": 90, "settings": PLATEAU}, "plateau"),
        ([50, 40, 30, 30, 29], {"epochs": 90, "settings": PLATEAU}, None),
        ([50, 40, 30, 31], {"epochs": 90, "settings": PLATEAU}, None),
        ([], {"epochs": 3}, None),
    ],
)
def test_how_a_run_of_an_older_version_ended(
    tmp_path: Path, errors: list[float], changes: dict[str, object], reason: str | None
) -> None:
    """By its log; the weights may not have been published."""
    path = write_run(tmp_path, done=0, weights=False)
    edit(path / RUN, ended=..., **changes)
    lines = [  # the learning rate drops after each of the first epochs, three times
        epoch_record(
            number, lr=0.1 * 0.1 ** min(number - 1, 3), train_top1_error=error, val_top1_error=error, val_top5_error=1.0
        )
        for number, error in enumerate(errors, 1)
    ]
    (path / LOG).write_text("".join(json.dumps(to_json(line)) + "\n" for line in lines))
    run = read_run(path)
    assert run.ended == (EndRecord(reason, len(errors)) if reason else None)
    assert run.finished == (reason is not None)


def test_an_older_run_with_weights_is_finished(tmp_path: Path) -> None:
    path = write_run(tmp_path, done=2, epochs=30)
    edit(path / RUN, ended=...)
    assert read_run(path).ended == EndRecord("unknown", 2)
    edit(path / RUN, settings=PLATEAU)
    assert read_run(path).ended == EndRecord("plateau", 2)


def test_a_runs_own_folder_can_be_read_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path)
    write_evaluation(tmp_path)
    monkeypatch.chdir(path)
    records = read_records(Path())
    assert [run.variant for run in records.members(records.evaluations[0])] == ["alexnet"]


def test_every_published_run_is_finished() -> None:
    records = read_records(PUBLISHED)
    assert records.problems == ()
    assert len(records.runs) >= 37
    assert [run.name for run in records.runs if not run.finished] == []
    assert not any(run.has_weights for run in records.runs)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "epoch is missing"),
        ('{"epoch": 1}', "step is missing"),
        ("[]", "it is not a JSON object"),
        (json.dumps(LINE | {"train_loss": math.nan}), "train_loss is nan, not a finite number"),
        (json.dumps(LINE | {"val_top5_error": math.inf}), "val_top5_error is inf, not a finite number"),
        (json.dumps(LINE | {"seconds": None}), "Expected `float`, got `null` - at `$.seconds`"),
        (json.dumps(LINE | {"step": "70"}), "Expected `int`, got `str` - at `$.step`"),
    ],
)  # fmt: skip
def test_a_line_of_a_log_is_checked_field_by_field(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_epoch(line)
