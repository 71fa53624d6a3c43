"""Checkpoints after damage and on full disks: the newest undamaged one is found, and none is lost."""

import errno
import os
import re
import shutil
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import atomic
from repro.errors import ReproError
from repro.training import checkpoint


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), value), "velocity.w": torch.full((3, 2), -value)}


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, tensors(0.1), {"loss": 0.1 + 0.2, "nested": {"epoch": 3}})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"loss": 0.1 + 0.2, "nested": {"epoch": 3}}
    assert torch.equal(loaded.tensors["w"], tensors(0.1)["w"])


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 1000):
        checkpoint.save(tmp_path, step, tensors(step), {"step": step})
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["0000000010", "0000001000"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no tensors", "half a state", "empty"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, tensors(1), {"step": 1})
    state = checkpoint.save(tmp_path, 2, tensors(2), {"step": 2})
    data = state.with_suffix(".safetensors")
    content = bytearray(data.read_bytes())
    if damage == "truncated":
        data.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-1] ^= 1
        data.write_bytes(content)
    elif damage == "no tensors":
        data.unlink()
    else:
        state.write_bytes(state.read_bytes()[:40] if damage == "half a state" else b"")
    with pytest.warns(RuntimeWarning, match="0000000002.json' is damaged"):
        loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"step": 1}
    with pytest.raises(ReproError, match="is damaged"):
        checkpoint.load(state)


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def check_after_failure(folder: Path, error: ReproError) -> None:
    """The earlier checkpoint is undamaged, and the next save works and leaves no partial files."""
    assert re.fullmatch(
        r"cannot (write|create the folder) '.*': (No space left on device|File too large).*", str(error)
    )
    assert checkpoint.load(folder / "0000000001.json").state == {"step": 1}
    loaded = checkpoint.load_newest(folder)
    assert loaded is not None
    assert loaded.state in ({"step": 1}, {"step": 2})
    assert not list(folder.glob(".*"))
    checkpoint.save(folder, 3, tensors(3), {"step": 3})
    assert len(list(folder.iterdir())) == 4


FAILING = [(call, number) for call, count in (("open", 3), ("fsync", 5), ("replace", 2)) for number in range(count)]


@pytest.mark.parametrize(("call", "number"), FAILING)
def test_whichever_call_fails_the_earlier_checkpoint_is_undamaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real, calls = getattr(os, call), iter(range(100))

    def fail_once(*arguments: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    checkpoint.save(tmp_path, 1, tensors(1), {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_once)
        with pytest.raises(ReproError) as failure:
            checkpoint.save(tmp_path, 2, tensors(2), {"step": 2})
    check_after_failure(tmp_path, failure.value)


def test_a_write_that_is_cut_short_leaves_the_earlier_checkpoint_undamaged(tmp_path: Path) -> None:
    """The operating system accepts only the first bytes of a file."""
    resource = pytest.importorskip("resource", reason="only on POSIX systems")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = max(path.stat().st_size for path in checkpoint.save(tmp_path, 1, tensors(1), {"step": 1}).parent.iterdir())
    for size in range(0, whole, 19):
        folder = tmp_path / str(size)
        checkpoint.save(folder, 1, tensors(1), {"step": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(ReproError, match="File too large; no partial file was left") as failure:
                checkpoint.save(folder, 2, tensors(2), {"step": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        check_after_failure(folder, failure.value)


def test_partial_files_of_killed_saves_are_removed_by_the_next(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, tensors(1), {"step": 1})
    (tmp_path / "0000000002.safetensors").write_bytes(b"no JSON came")
    (tmp_path / ".0000000003.safetensors.partial").write_bytes(b"half")
    (tmp_path / ".0000000003.json.partial").write_bytes(b"{")
    checkpoint.save(tmp_path, 4, tensors(4), {"step": 4})
    assert sorted({path.name[:10] for path in tmp_path.iterdir()}) == ["0000000001", "0000000004"]


def test_files_with_other_names_are_no_checkpoints_and_left_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, tensors(1), {"step": 1})
    for suffix in ("json", "safetensors"):
        shutil.copy(tmp_path / f"0000000001.{suffix}", tmp_path / f"epoch1.{suffix}")
    (tmp_path / "backup").mkdir()
    (tmp_path / ".notes.partial").write_text("mine")
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, step, tensors(step), {"step": step})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"step": 4}
    others = {".notes.partial", "backup", "epoch1.json", "epoch1.safetensors"}
    own = {f"000000000{step}.{suffix}" for step in (3, 4) for suffix in ("json", "safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == others | own
    checkpoint.remove_newer(checkpoint.load(tmp_path / "epoch1.json"))
    assert {path.name for path in tmp_path.iterdir()} == others
    checkpoint.save(tmp_path, 2, tensors(2), {"step": 2})
    checkpoint.remove_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others


def test_when_all_checkpoints_are_damaged_it_is_an_error(tmp_path: Path) -> None:
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, tensors(step), {"step": step})
        path.write_text(path.read_text().replace('"step": ', '"step": 1'))
    with pytest.raises(ReproError, match=r"2\.json' is damaged.*1\.json' is damaged.*: remove '.*' to start the run"):
        checkpoint.load_newest(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        atomic.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


class Counted:
    """A training whose only tensor is filled with its number of updates, in place."""

    def __init__(self) -> None:
        self.step, self.weight = 0, torch.zeros(3)

    def update(self) -> None:
        self.step += 1
        self.weight += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"w": self.weight.clone()}

    def state(self) -> dict[str, Any]:
        return {"step": self.step}


def test_training_continues_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write waits until the next update is done; the context and the next save wait for the write."""
    real_save, updated = checkpoint.save, threading.Event()

    def save_after_the_update(*arguments: Any) -> Path:
        assert updated.wait(60)
        return real_save(*arguments)

    monkeypatch.setattr(checkpoint, "save", save_after_the_update)
    training = Counted()
    with checkpoint.Saver(tmp_path) as saver:
        training.update()
        saver.save(training)
        saver.check()
        training.update()
        assert not list(tmp_path.iterdir())
        updated.set()
        saver.save(training)
        assert checkpoint.load(tmp_path / "0000000001.json").tensors["w"].tolist() == [1, 1, 1]
    assert checkpoint.load(tmp_path / "0000000002.json").tensors["w"].tolist() == [2, 2, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def save_in_thread(folder: Path, end: str) -> Generator[None, None, None]:
    """Save to a folder that cannot be created, and wait for the error in a certain way."""
    with checkpoint.Saver(folder) as saver:
        saver.save(Counted())
        if end == "check":
            saver._executor.shutdown()
            saver.check()
        elif end == "save":
            saver.save(Counted())
        elif end == "wait":
            saver.wait()
        elif end == "another error":
            raise ValueError("first")
        elif end == "close":
            yield


@pytest.mark.parametrize("end", ["check", "save", "wait", "end of the context", "close", "another error"])
def test_an_error_of_the_thread_is_raised_unless_there_is_another(tmp_path: Path, end: str) -> None:
    (tmp_path / "file").write_text("")
    running = save_in_thread(tmp_path / "file", end)
    if end == "close":
        next(running)
    expected, match = (ValueError, "first") if end == "another error" else (ReproError, "cannot create the folder '")
    with pytest.raises(expected, match=match):
        running.close() if end == "close" else next(running)
