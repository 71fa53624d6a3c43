"""Checkpoints survive damage and full disks: the newest whole one is found, none is lost."""

import os
from pathlib import Path

import pytest
import torch

from repro import atomic, checkpoint
from repro.errors import ReproError


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), value), "velocity.w": torch.full((3, 2), -value)}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
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
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
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


def test_none_at_all(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    checkpoint.save(tmp_path, 1, tensors(1), {"step": 1})
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(ReproError, match=r"cannot write '.*0000000002\.safetensors': No space left on device"):
        checkpoint.save(tmp_path, 2, tensors(2), {"step": 2})
    monkeypatch.undo()
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_json_refuses_what_other_readers_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        atomic.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
