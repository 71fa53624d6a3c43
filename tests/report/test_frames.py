"""The records as DataFrames."""

from pathlib import Path

import pytest
from made_records import write_evaluation, write_retrieval, write_run

import repro


def test_every_record_is_a_row(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=3)
    write_run(tmp_path, "no-lrn", epochs=30, done=2, weights=False, settings={"lr": 0.02})
    write_evaluation(tmp_path, error=25)
    write_retrieval(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    frames = repro.load_records(tmp_path)
    assert list(frames.runs.index) == ["alexnet-authors-small-seed0", "no-lrn-authors-small-seed0"]
    assert list(frames.runs["changes"]) == ["3 epochs", "lr 0.02"]
    assert list(frames.runs["epochs_done"]) == [3, 2]
    assert list(frames.runs["finished"]) == [True, False]
    errors = frames.epochs["val_top1_error"].unstack("run")
    assert errors.shape == (3, 2)
    assert errors["no-lrn-authors-small-seed0"].notna().sum() == 2
    (evaluation,) = frames.evaluations.to_dict("records")
    assert (evaluation["net"], evaluation["split"], evaluation["views"]) == ("alexnet", "val", 10)
    assert evaluation["top1_error"] == pytest.approx(25)
    assert list(frames.retrievals["precision_fc7"]) == [70]
    assert len(frames.problems) == 1


def test_without_records_the_frames_are_empty_and_have_their_columns(tmp_path: Path) -> None:
    frames = repro.load_records(tmp_path / "none")
    assert all(len(frame) == 0 for frame in (frames.runs, frames.epochs, frames.evaluations, frames.retrievals))
    assert "val_top1_error" in frames.epochs
    assert frames.epochs.index.names == ["run", "epoch"]
