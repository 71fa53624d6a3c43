"""A finished run that kept its checkpoints is trained for more epochs, to the bits of a straight run of as many."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run_here

from repro import run_folder
from repro.data.store import Store
from repro.errors import ReproError
from repro.paper.recipes import HeldOut, Plateau, Steps
from repro.paper.variants import CIFAR_11, CIFAR_PLAIN
from repro.preparation.prepare import prepare
from repro.records.file_names import activations_name, retrieval_arrays_name, retrieval_name, submission_name
from repro.records.reading import read_run
from repro.training.schedule import ScheduleState, exhausted
from repro.training.settings import Settings
from repro.training.train import AlreadyFinished, train

TWO = Settings("alexnet", "authors", "smoke", seed=1, epochs=2)
THREE = replace(TWO, epochs=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two batches an epoch, the second one smaller."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=20)


@pytest.fixture(scope="module")
def straight(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs from the start."""
    started, *_ = train(THREE, store.path, tmp_path_factory.mktemp("straight"))
    return started.path


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("interrupted", [False, True])
def test_more_epochs_give_the_bits_of_a_straight_run(
    store: Store, straight: Path, tmp_path: Path, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, *_ = train(TWO, store.path, tmp_path, keep_checkpoints=True)
    run = started.path
    assert read_run(run).has_weights
    if interrupted:  # between the removal of the weights and the record of more epochs

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(run_folder, "write_record", killed)
            with pytest.raises(KeyboardInterrupt):
                list(train(THREE, store.path, tmp_path, resume=True))
    events = list(train(THREE, store.path, tmp_path, resume=True))
    assert events[0].epoch == 3
    assert (run / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    assert losses(run) == losses(straight)
    record = read_run(run)
    assert record.epochs == 3
    assert record.ended is not None
    assert record.ended.epochs == 3
    assert "--epochs 3" in record.command
    assert not record.checkpoints_path.exists()


def test_without_checkpoints_or_with_fewer_epochs_it_is_refused_and_left_alone(store: Store, straight: Path) -> None:
    before = {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()}
    with pytest.raises(
        ReproError, match="finished after 3 epochs and has no checkpoint to continue from: train it again"
    ):
        list(train(replace(TWO, epochs=4), store.path, straight.parent, resume=True))
    with pytest.raises(ReproError, match="its epochs is 3, not 2"):
        list(train(TWO, store.path, straight.parent, resume=True))
    assert {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()} == before


def test_what_was_measured_of_the_weights_before_is_removed(store: Store, tmp_path: Path) -> None:
    words = shlex.split(
        f"train --variant alexnet --data {store.path} --scale smoke --out {tmp_path} --keep-checkpoints"
    )
    assert run_here(*words, "--epochs", 1).returncode == 0
    (run,) = tmp_path.iterdir()
    assert run_here("evaluate", run, "--data", store.path, "--views", 1).returncode == 0
    assert "val 1: " in run_here("list", "runs", "--runs", tmp_path).stdout
    for name in (submission_name("test", 10), retrieval_name("test"), retrieval_arrays_name("test")):
        (run / name).write_text("")
    others = (activations_name("val", untrained=True), "evaluation-notes.md")
    for name in (activations_name("val"), *others):
        (run / name).write_text("{}")
    before = set(run.iterdir())
    assert run_here(*words, "--epochs", 2, "--resume").returncode == 0
    assert {path.name for path in before - set(run.iterdir())} == {
        "evaluation-val-1.json", "predictions-val-1.npz", "submission-test-10.txt", "retrieval-test.json",
        "retrieval-test.npz", "activations-val.json",
    }  # fmt: skip
    assert "val 1: " not in run_here("list", "runs", "--runs", tmp_path).stdout


def test_checkpoints_of_a_finished_run_stay_and_are_no_place_to_continue_from(store: Store, tmp_path: Path) -> None:
    words = shlex.split(f"train --variant alexnet --data {store.path} --scale smoke --epochs 1 --out {tmp_path}")
    assert run_here(*words, "--keep-checkpoints").returncode == 0
    (run,) = tmp_path.iterdir()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = run_here(*words, "--resume")
    assert again.returncode == 0
    assert "is finished, after 1 epochs: nothing is left to train" in again.stdout
    named = run_here(*words, "--resume", "--checkpoint", read_run(run).checkpoints[0])
    assert named.returncode == 3
    assert re.fullmatch(
        r"repro: '.*' is finished after 1 epochs, and does not continue from '.*\.json': leave out .*\n", named.stderr
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Images of 32 pixels, for the nets of CIFAR-10."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "small", size=32, limit_per_class=4)


def refused(settings: Settings, store: Store, out: Path, message: str) -> None:
    """Training is refused, and changes no file."""
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ReproError, match=message) as error:
        next(train(settings, store.path, out, resume=True))
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_ends_within_an_epoch_is_not_extended_and_not_taken_for_one_of_whole_epochs(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(CIFAR_PLAIN.recipes["authors"], schedule=Steps(after=(), epochs=1.65))
    monkeypatch.setitem(CIFAR_PLAIN.recipes, "authors", recipe)  # type: ignore[arg-type]
    settings = Settings("cifar-relu", scale="paper")
    started, *_ = train(settings, small_store.path, tmp_path, keep_checkpoints=True)
    longer = r"ends within an epoch, after 1\.65, and a longer run does not: train it anew with another --out"
    refused(replace(settings, epochs=3), small_store, tmp_path, longer)
    refused(replace(settings, epochs=2), small_store, tmp_path, "its length in epochs is 1.65, not 2; choose another")
    assert list(train(settings, small_store.path, tmp_path, resume=True)) == [AlreadyFinished(started.path, 2)]
    record = json.loads((started.path / "run.json").read_text())
    assert (record["epochs"], record.pop("length")) == (2, 1.65)
    (started.path / "run.json").write_text(json.dumps(record))  # as an older version wrote it
    refused(replace(settings, epochs=3), small_store, tmp_path, longer)
    assert list(train(settings, small_store.path, tmp_path, resume=True)) == [AlreadyFinished(started.path, 2)]


def test_a_run_that_would_hold_images_out_from_the_start_is_not_extended_to_that_length(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(CIFAR_11.recipes["authors"], held_out=HeldOut(share=0.25, epochs=2))
    monkeypatch.setitem(CIFAR_11.recipes, "authors", recipe)  # type: ignore[arg-type]
    settings = Settings("cifar-lrn", scale="smoke")
    for epochs in (1, 2):
        list(train(replace(settings, epochs=epochs), small_store.path, tmp_path, resume=True, keep_checkpoints=True))
    message = (
        "trains on all images from the start, and a run of more than 2 epochs holds some of them out at first: train"
    )
    refused(replace(settings, epochs=3), small_store, tmp_path, message)
    for epochs in (3, 4):
        options = {"resume": True, "keep_checkpoints": True}
        *_, last = train(replace(settings, epochs=epochs), small_store.path, tmp_path / "long", **options)
    assert last.epoch == 4


def states() -> Iterator[tuple[Plateau | Steps, ScheduleState, bool]]:
    plateau = Plateau(drops=2, patience=5)
    yield plateau, ScheduleState(drops=2, waited=5, stopped=True), True
    yield plateau, ScheduleState(drops=2, waited=4, stopped=True), False
    yield plateau, ScheduleState(drops=1, waited=5, stopped=True), False
    yield Steps(), ScheduleState(drops=3, waited=9, stopped=True), False


@pytest.mark.parametrize(("schedule", "state", "over"), list(states()))
def test_the_plateau_rule_s_end_is_told_from_the_last_epoch_s(
    schedule: Plateau | Steps, state: ScheduleState, over: bool
) -> None:
    assert exhausted(schedule, state) is over
