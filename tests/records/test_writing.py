"""Records are written by their schema and refused where they do not conform to it."""

import json
import math
from pathlib import Path

import pytest
from made_records import data_record, epoch_record

from repro.records.file_names import RUN
from repro.records.reading import check_epoch, read_run
from repro.records.schema import DataRecord, EndRecord, RunRecord
from repro.records.writing import to_json, write_record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = RunRecord(
        variant="alexnet", recipe="paper", scale="small", seed=3, epochs=9, devices=("cpu", "cpu"),
        settings={"lr": 0.1}, data=data_record(), ended=EndRecord("epochs", 9, "abc"),
    )  # fmt: skip
    write_record(tmp_path / RUN, record)
    run = read_run(tmp_path)
    assert all(getattr(run, name) == value for name, value in vars(record).items())
    assert list(json.loads((tmp_path / RUN).read_text()))[-4:] == ["versions", "machine", "git_revision", "started"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_writer_refuses_numbers_that_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        to_json(epoch_record(train_loss=value))
    with pytest.raises(ValueError, match="Out of range float"):
        to_json(epoch_record(val_top1_error=math.inf))


def test_without_a_val_split_its_errors_are_null() -> None:
    content = to_json(epoch_record())
    assert (content["val_top1_error"], content["val_top5_error"]) == (None, None)
    assert math.isnan(check_epoch(json.dumps(content)).val_top1_error)


def test_the_writer_refuses_values_of_a_wrong_type() -> None:
    record = RunRecord(
        variant="alexnet", recipe="paper", scale="small", seed="3", epochs=1, data=DataRecord(dataset="x")
    )  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected `int`, got `str` - at `\$.seed`"):
        to_json(record)
