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


def test_runs_of_several_folders_have_unique_names(tmp_path: Path) -> None:
    for folder in ("first/runs", "second/runs"):
        write_run(tmp_path / folder, epochs=3)
        write_evaluation(tmp_path / folder, error=25)
    folders = [tmp_path / "first" / "runs", tmp_path / "second" / "runs"]
    name = "alexnet-authors-small-seed0"
    frames = repro.load_records(*folders)
    assert list(frames.runs.index) == [f"first/runs/{name}", f"second/runs/{name}"]
    assert frames.epochs["val_top1_error"].unstack("run").shape == (3, 2)
    assert len(frames.evaluations) == 2
    assert frames.problems == ()
    within = repro.load_records(tmp_path, folders[0])  # the second folder is in the first
    assert len(within.runs) == 2
    assert repro.load_records(folders[0], folders[0]).runs.index == [name]
    missing = repro.load_records(folders[0], tmp_path / "none")
    assert list(missing.runs.index) == [f"runs/{name}"]
    assert missing.problems == (f"there is no folder {tmp_path / 'none'}",)


def test_without_records_the_frames_are_empty_and_have_their_columns(tmp_path: Path) -> None:
    frames = repro.load_records(tmp_path / "none")
    assert all(len(frame) == 0 for frame in (frames.runs, frames.epochs, frames.evaluations, frames.retrievals))
    assert "val_top1_error" in frames.epochs
    assert frames.epochs.index.names == ["run", "epoch"]
