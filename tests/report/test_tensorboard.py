"""The export to TensorBoard, read back by TensorBoard itself."""

import sys
from pathlib import Path

import pytest
from made_records import write_run

from repro.errors import ReproError
from repro.records.reading import read_records
from repro.report.tensorboard import CURVES, export


def test_every_curve_is_exported_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_run(tmp_path / "runs", epochs=5)
    runs = read_records(tmp_path / "runs").runs
    assert [export(runs, tmp_path / "out") for _ in range(2)] == [1, 1]
    (run,) = runs
    found = EventAccumulator(str(tmp_path / "out" / run.name)).Reload()
    assert set(found.Tags()["scalars"]) == set(CURVES)
    errors = found.Scalars("top1_error/val")
    assert [each.step for each in errors] == [1, 2, 3, 4, 5]
    assert [each.value for each in errors] == pytest.approx([epoch.val_top1_error for epoch in run.log])
    assert errors[1].wall_time - errors[0].wall_time == pytest.approx(run.log[1].seconds, abs=1e-3)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write_run(tmp_path / "runs", epochs=1)
    (tmp_path / "file").touch()
    with pytest.raises(ReproError, match="cannot create the folder '"):
        export(read_records(tmp_path / "runs").runs, tmp_path / "file")


def test_a_missing_package_is_named_with_its_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(ReproError, match="pip install tensorboard"):
        export((), tmp_path)
