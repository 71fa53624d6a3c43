"""Training: reproducible, resumable with bit-identical results, and with errors that say what to do."""

import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import repro, run_here, small_disk

from repro import run_folder
from repro.data.sampling import draw_epoch
from repro.data.store import Store
from repro.data.views import Views
from repro.errors import ReproError, Stopped
from repro.evaluation import predictions
from repro.evaluation.trained_model import open_run
from repro.models.towers import to_devices
from repro.preparation.prepare import prepare
from repro.records.reading import read_run
from repro.records.schema import EndRecord, EpochRecord, RunRecord
from repro.training import checkpoint
from repro.training import loop as loop_module
from repro.training import state as state_module
from repro.training.distributed import ProcessGroup
from repro.training.loop import Step, Validating, train_epochs
from repro.training.schedule import ScheduleState
from repro.training.settings import Settings
from repro.training.state import Training, prepare_training
from repro.training.train import AlreadyFinished, Started, describe, train
from repro.verification.run import verify_run

SETTINGS = Settings("alexnet", "authors", "smoke", seed=1, epochs=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two batches an epoch, the second one smaller."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=20)


def finish(
    store: Store, out: Path, settings: Settings = SETTINGS, resume: bool = False, data: Path | None = None
) -> Path:
    """Train to the end on `data`, or on the store; return the run's folder."""
    events = list(train(settings, data or store.path, out, resume))
    assert isinstance(events[-1], EpochRecord)
    return events[0].path


def weights(run: Path) -> bytes:
    return (run / "weights.safetensors").read_bytes()


def log_without_times(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(store, tmp_path_factory.mktemp("runs"))


def test_equal_seeds_give_equal_weights_and_different_seeds_do_not(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    again = finish(store, tmp_path)
    assert weights(again) == weights(finished)
    assert log_without_times(again) == log_without_times(finished)
    other = finish(store, tmp_path, Settings("alexnet", "authors", "smoke", seed=2, epochs=3))
    assert weights(other) != weights(finished)


def test_the_folder_records_how_to_repeat_the_run(store: Store, finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert finished.name == "alexnet-authors-smoke-seed1"
    assert record["data"]["fingerprint"] == store.fingerprint
    assert record["network"][0] == {
        "layer": "Conv", "name": "conv1", "kernels": 48, "size": 11, "stride": 4, "padding": 0, "towers": 1,
        "round_up": True,
    }  # fmt: skip
    assert record["settings"]["initialisation"]["std_of"][0] == ["conv3", 0.03]
    assert "--variant alexnet" in record["command"]
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    lines = log_without_times(finished)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    keys = {"epoch", "step", "lr", "train_loss", "train_top1_error", "val_top1_error", "val_top5_error"}
    assert all(keys <= set(line) for line in lines)
    assert not (finished / "checkpoints").exists()
    tensors = safetensors.torch.load_file(finished / "weights.safetensors")
    assert tensors["conv1.weight"].shape == (48, 3, 11, 11)


@pytest.mark.parametrize(
    ("variant", "dataset", "epochs"),
    [("alexnet", "ilsvrc2012", 91), ("one-gpu", "ilsvrc2010", 96), ("conv6", "fall2009", 29)],
)
def test_the_recipe_that_is_recorded_is_that_of_the_dataset(
    store: Store, variant: str, dataset: str, epochs: int
) -> None:
    store = replace(store, dataset=dataset)
    assert describe(Settings(variant, scale="paper"), store).epochs == epochs
    settings = Settings(variant, scale="smoke")
    trained = prepare_training(settings, store).configuration.recipe
    assert describe(settings, store).settings == asdict(trained)


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_a_run_that_is_stopped_anywhere_resumes_with_bit_identical_results(
    store: Store, tmp_path: Path, recipe: str
) -> None:
    settings = Settings("alexnet", recipe, "smoke", seed=1, epochs=3)
    whole = finish(store, tmp_path / "whole", settings)
    # After an update, before and within a validation, at the end of an epoch, and in the next epoch.
    for events in (1, 1, 1, 2, 2):
        signals = iter([None] * (events - 1) + [signal.SIGTERM])
        with pytest.raises(Stopped) as stopped:
            list(train(settings, store.path, tmp_path / "parts", True, signals.__next__))
        assert stopped.value.signal == signal.SIGTERM
    parts = finish(store, tmp_path / "parts", settings, resume=True)
    assert weights(parts) == weights(whole)
    assert log_without_times(parts) == log_without_times(whole)


def test_killed_between_log_and_checkpoint_no_line_is_lost_or_duplicated(
    store: Store, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = iter(range(10))

    def dying_save(*args: Any) -> Path:
        if next(saves) == 1:  # the second epoch's line is in the log, its checkpoint is not
            raise KeyboardInterrupt
        return real_save(*args)

    real_save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", dying_save)
    with pytest.raises(KeyboardInterrupt):
        list(train(SETTINGS, store.path, tmp_path))
    monkeypatch.undo()
    run = finish(store, tmp_path, resume=True)
    assert log_without_times(run) == log_without_times(finished)
    assert weights(run) == weights(finished)


def test_a_stopped_run_has_a_whole_checkpoint_and_one_that_cannot_be_written_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although checkpoints are written while training continues."""
    real_save, written = checkpoint.save, []

    def slow_save(*arguments: Any) -> Path:
        time.sleep(0.2)
        if len(written) == 2:
            raise ReproError("cannot write 'x': No space left on device; no partial file was left")
        written.append(real_save(*arguments))
        return written[-1]

    monkeypatch.setattr(checkpoint, "save", slow_save)
    with pytest.raises(Stopped, match="saved after update 1"):
        list(train(SETTINGS, store.path, tmp_path, stop_signal=lambda: signal.SIGTERM))
    run = tmp_path / SETTINGS.run_name
    assert [path.stem for path in written] == ["0000000001"]
    events = train(SETTINGS, store.path, tmp_path, resume=True)
    next(event for event in events if isinstance(event, EpochRecord))
    events.close()  # as when the program ends for another reason
    assert sorted(path.stem for path in run.glob("checkpoints/*.json")) == ["0000000001", "0000000002"]
    with pytest.raises(ReproError, match="cannot write 'x': No space left on device"):
        list(train(SETTINGS, store.path, tmp_path, resume=True))
    assert not (run / "weights.safetensors").exists()


def test_a_damaged_checkpoint_costs_an_epoch_at_most(store: Store, finished: Path, tmp_path: Path) -> None:
    events = train(SETTINGS, store.path, tmp_path)
    run = tmp_path / finished.name
    next(event for event in events if isinstance(event, EpochRecord) and event.epoch == 2)
    events.close()
    newest = max((run / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = train(SETTINGS, store.path, tmp_path, resume=True)
    with pytest.warns(RuntimeWarning, match="is damaged .* using the one before it"):
        next(resumed)
    resumed.close()
    # The log now ends before it: after another crash it must not be the newest.
    assert not newest.exists()
    finish(store, tmp_path, resume=True)
    assert weights(run) == weights(finished)
    assert log_without_times(run) == log_without_times(finished)


@pytest.fixture
def stopped(store: Store, finished: Path, tmp_path: Path) -> Path:
    """The same run, stopped before its last epoch, with the checkpoints of the first two."""
    events = train(SETTINGS, store.path, tmp_path)
    next(event for event in events if isinstance(event, EpochRecord) and event.epoch == 2)
    events.close()
    return tmp_path / finished.name


def test_resuming_with_another_number_of_threads_is_noted(
    store: Store, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((stopped / "run.json").read_text())
    assert record["machine"]["threads"] == torch.get_num_threads()
    for threads, noted in ((torch.get_num_threads(), False), (None, False), (999, True)):
        record["machine"]["threads"] = threads
        (stopped / "run.json").write_text(json.dumps(record))
        events = train(SETTINGS, store.path, stopped.parent, resume=True)
        next(events)
        events.close()
        assert ("this run was started with 999 threads and continues with" in caplog.text) == noted


def test_resuming_with_another_number_of_ranks_is_noted(
    store: Store, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((stopped / "run.json").read_text())
    for ranks in (record["ranks"], 8):
        (stopped / "run.json").write_text(json.dumps({**record, "ranks": ranks}))
        events = train(SETTINGS, store.path, stopped.parent, resume=True)
        next(events)
        events.close()
        assert ("this run was started with 8 ranks and continues with 1" in caplog.text) == (ranks == 8)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_resuming_from_a_named_checkpoint(store: Store, finished: Path, stopped: Path, suffix: str) -> None:
    first, second = sorted((stopped / "checkpoints").glob(f"*.{suffix}"))
    events = train(SETTINGS, store.path, stopped.parent, resume_from=first)
    started = next(events)
    assert isinstance(started, Started)
    assert started.epoch == 2
    assert len(log_without_times(stopped)) == 1
    assert not second.exists()  # it would be ahead of the log
    events.close()
    finish(store, stopped.parent, resume=True)
    assert weights(stopped) == weights(finished)
    assert log_without_times(stopped) == log_without_times(finished)
    with pytest.raises(ReproError, match=r"no checkpoint at .* none of a finished run"):
        next(train(SETTINGS, store.path, stopped.parent, resume_from=first))


@pytest.mark.parametrize("named", [False, True])
def test_a_users_files_beside_the_checkpoints_are_left_alone(
    store: Store, finished: Path, stopped: Path, named: bool
) -> None:
    """Copies are not taken for the newest checkpoint, but one can be named."""
    folder = stopped / "checkpoints"
    first = min(folder.glob("*.json"))
    for suffix in (".json", ".safetensors"):
        shutil.copy(first.with_suffix(suffix), folder / f"epoch1{suffix}")
    shutil.copytree(folder, folder / "backup")
    before = {path.name: path.read_bytes() for path in (folder / "backup").iterdir()}
    assert verify_run(stopped) == []
    events = train(SETTINGS, store.path, stopped.parent, True, resume_from=folder / "epoch1.json" if named else None)
    started = next(events)
    assert isinstance(started, Started)
    assert started.epoch == (2 if named else 3)
    list(events)
    assert weights(stopped) == weights(finished)
    assert log_without_times(stopped) == log_without_times(finished)
    assert sorted(path.name for path in folder.iterdir()) == ["backup", "epoch1.json", "epoch1.safetensors"]
    assert {path.name: path.read_bytes() for path in (folder / "backup").iterdir()} == before


def test_a_named_checkpoint_that_is_damaged_is_an_error_and_no_file_changes(store: Store, stopped: Path) -> None:
    newest = max((stopped / "checkpoints").glob("*.json"))
    newest.write_text(newest.read_text().replace('"waited": 0', '"waited": 1'))
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    options = ("--scale", "smoke", "--seed", 1, "--epochs", 3, "--out", stopped.parent)
    done = run_here("train", "--variant", "alexnet", "--data", store.path, *options, "--checkpoint", newest)
    assert done.returncode == 3
    assert done.stderr == (
        f"repro: checkpoint '{newest}' is damaged (checksum mismatch): --resume alone continues from the newest "
        "undamaged one\n"
    )
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_run_is_refused(store: Store, stopped: Path) -> None:
    other = max((stopped / "checkpoints").glob("*.json"))
    for out in (stopped.parent, stopped.parent / "elsewhere"):
        with pytest.raises(ReproError, match=r"the checkpoint '.*' is not one of the run '.*seed2': name one"):
            next(train(replace(SETTINGS, seed=2), store.path, out, resume_from=other))
        assert not (out / "alexnet-authors-smoke-seed2").exists()


def test_a_finished_run_records_how_it_ended(store: Store, finished: Path, tmp_path: Path) -> None:
    def ended(run: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((run / "run.json").read_text())["ended"]
        return content

    digest = hashlib.sha256(weights(finished)).hexdigest()
    assert ended(finished) == {"reason": "epochs", "epochs": 3, "weights": digest}
    early = finish(store, tmp_path, replace(SETTINGS, until_train_error=100.0))
    assert (ended(early)["reason"], ended(early)["epochs"]) == ("until_train_error", 1)
    assert read_run(finished).finished


def test_the_plateau_rule_ends_a_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(schedule: Any, state: ScheduleState, epoch: int, *_: Any) -> ScheduleState:
        return replace(state, stopped=epoch == 2)

    monkeypatch.setattr(loop_module, "advance", stop)
    run = finish(store, tmp_path, Settings("alexnet", "paper", "smoke", epochs=5))
    assert read_run(run).ended == EndRecord("plateau", 2, hashlib.sha256(weights(run)).hexdigest())


def test_killed_between_the_end_and_the_weights_it_is_finished_from_its_checkpoint(
    store: Store, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("repro.run_folder.write_weights", die)
        with pytest.raises(KeyboardInterrupt):
            list(train(SETTINGS, store.path, tmp_path))
    run = tmp_path / finished.name
    assert not (run / "weights.safetensors").exists()
    with pytest.raises(ReproError, match=r"a checkpoint is left: continue it with repro train .* --resume"):
        open_run(run)
    assert [type(event) for event in train(SETTINGS, store.path, tmp_path, resume=True)] == [Started]
    assert weights(run) == weights(finished)
    assert log_without_times(run) == log_without_times(finished)
    assert read_run(run).ended == read_run(finished).ended


@pytest.mark.parametrize("version", ["this", "older"])
def test_records_of_a_finished_run_without_its_weights_are_not_overwritten(
    store: Store, finished: Path, tmp_path: Path, version: str
) -> None:
    run = shutil.copytree(finished, tmp_path / finished.name)
    (run / "weights.safetensors").unlink()
    if version == "older":
        record = json.loads((run / "run.json").read_text())
        del record["ended"]
        (run / "run.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ReproError, match=r"is finished, but its weights.safetensors is missing: .* another --out"):
        list(train(SETTINGS, store.path, tmp_path, resume=True))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_and_its_store_can_be_moved(store: Store, stopped: Path, finished: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(store.path, tmp_path / "moved" / "store")
    run = Path(shutil.move(stopped, tmp_path / "moved" / stopped.name))
    list(train(SETTINGS, moved, run.parent, resume=True))
    assert weights(run) == weights(finished)


def test_the_recorded_command_repeats_the_run_from_where_it_was_typed(
    store: Store, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store.path, tmp_path / "data" / "store")
    monkeypatch.chdir(tmp_path)
    finish(store, Path("runs"), replace(SETTINGS, epochs=1), data=Path("data/store"))
    words = shlex.split(json.loads(Path("runs", SETTINGS.run_name, "run.json").read_bytes())["command"])
    assert words[: words.index("--precision")] == [
        "repro", "train", "--variant", "alexnet", "--recipe", "authors", "--scale", "smoke", "--seed", "1", "--data",
        "data/store", "--out", "runs", "--epochs", "1",
    ]  # fmt: skip
    shutil.move("runs", "before")
    again = repro(*words[1:])
    assert again.returncode == 0, again.stderr
    assert weights(Path("runs", SETTINGS.run_name)) == weights(Path("before", SETTINGS.run_name))


def test_the_recorded_command_is_quoted_for_the_systems_shell(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Windows takes single quotes literally."""
    monkeypatch.setattr("repro.formatting.os", SimpleNamespace(name="nt"))
    out = tmp_path / "my runs"
    events = train(SETTINGS, store.path, out)
    assert isinstance(next(events), Started)
    events.close()  # type: ignore[attr-defined]
    assert f' --out "{out}" ' in read_run(out / SETTINGS.run_name).command


def test_resuming_a_finished_run_changes_nothing(store: Store, finished: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert list(train(SETTINGS, store.path, finished.parent, resume=True)) == [AlreadyFinished(finished, 3)]
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_a_folder_that_holds_a_run_is_refused(store: Store, finished: Path) -> None:
    with pytest.raises(ReproError, match="already holds a run: add --resume"):
        next(train(SETTINGS, store.path, finished.parent))


def test_a_precision_that_the_processor_emulates_is_refused_before_any_work(
    store: Store, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro.models.devices.has_fast_bf16", lambda device: False)
    for out, resume in ((tmp_path, False), (finished.parent, True)):
        with pytest.raises(ReproError, match=r"--precision bf16: .* about 29 times as long as in fp32: use") as error:
            next(train(replace(SETTINGS, precision="bf16"), store.path, out, resume=resume))
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_resuming_another_run_is_refused_with_the_differences(
    store: Store, synthetic_store: Store, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro.models.devices.has_fast_bf16", lambda device: True)  # whatever the processor
    changed = replace(SETTINGS, epochs=4, precision="bf16")
    message = "its epochs is 3, not 4; its precision is fp32, not bf16"
    with pytest.raises(ReproError, match=message):
        next(train(changed, store.path, finished.parent, resume=True))
    data = rf"its data fingerprint is {store.fingerprint}, not {synthetic_store.fingerprint}; choose another --out"
    with pytest.raises(ReproError, match=data):
        next(train(SETTINGS, synthetic_store.path, finished.parent, resume=True))
    # In the folder of another run, as if it had been copied there.
    shutil.copytree(finished, tmp_path / "no-lrn-paper-smoke-seed2")
    other = Settings("no-lrn", "paper", "smoke", seed=2, epochs=3)
    with pytest.raises(ReproError) as error:
        next(train(other, store.path, tmp_path, resume=True))
    start = "its variant is alexnet, not no-lrn; its recipe is authors, not paper; its seed is 1, not 2; its network "
    start += "differs; its initialisation is {'std': 0.01, "
    assert start in str(error.value)
    assert "its bias_lr_ratio is 2.0, not 1.0; " in str(error.value)


def test_a_second_process_in_the_same_folder_is_refused(store: Store, tmp_path: Path) -> None:
    first = train(SETTINGS, store.path, tmp_path)
    run = next(first).path
    for resume in (True, False):
        with pytest.raises(ReproError, match="another process is training"):
            next(train(SETTINGS, store.path, tmp_path, resume))
    first.close()
    assert next(train(SETTINGS, store.path, tmp_path, resume=True)).path == run


def test_of_two_processes_that_start_together_one_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one starts when the first has created the folder, but no file in it."""
    seen = []

    def write_record(path: Path, record: RunRecord) -> None:
        if not seen:
            seen.append(path)
            with pytest.raises(ReproError, match="another process is training"):
                next(train(SETTINGS, store.path, tmp_path))
        real_write(path, record)

    real_write = run_folder.write_record
    monkeypatch.setattr(run_folder, "write_record", write_record)
    assert next(train(SETTINGS, store.path, tmp_path)).path == seen[0].parent


def test_killed_before_the_record_or_after_the_weights_were_written(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / finished.name
    run.mkdir()
    (run / ".run.json.partial").write_text("{")
    finish(store, tmp_path, resume=True)
    assert weights(run) == weights(finished)
    saved = checkpoint.save(run / "checkpoints", 6, {}, {})
    assert list(train(SETTINGS, store.path, tmp_path, resume=True)) == [AlreadyFinished(run, 3)]
    assert saved.exists()  # it may have been kept to train for more epochs


def test_a_loss_that_is_nan_is_an_error_before_the_update(store: Store) -> None:
    training = prepare_training(SETTINGS, store)
    with torch.no_grad():
        training.model.get_parameter("fc8.bias").fill_(math.nan)
    before = training.model.get_parameter("conv1.weight").clone()
    start = (
        r"^the training diverged at learning rate 0.01: the loss is nan before update 1 .* with a lower --lr or another"
    )
    with pytest.raises(ReproError, match=start) as error:
        next(train_epochs(training))
    named = [int(index) for index in str(error.value).rpartition(": ")[2].split(", ")]
    order = draw_epoch(SETTINGS.seed, 1, len(store.splits["train"]), 0, training.configuration.recipe.augmentation)
    assert named == order.index[:128].tolist()
    assert torch.equal(training.model.get_parameter("conv1.weight"), before)
    assert training.state() == prepare_training(SETTINGS, store).state()


def test_fp16_skips_an_update_that_overflows_and_saves_its_scale(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "check_precision", lambda *_: None)  # on a CPU it is only slow
    first, second = (prepare_training(replace(SETTINGS, precision="fp16"), store) for _ in range(2))
    first.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = first.weights()
    events = train_epochs(first)
    next(events)
    assert all(torch.equal(weight, before[name]) for name, weight in first.weights().items())
    assert first.scaler.get_scale() == 2.0**39
    first.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    next(events)
    assert not torch.equal(first.weights()["fc8.bias"], before["fc8.bias"])
    second.restore(checkpoint.load(checkpoint.save(tmp_path, first.step, first.tensors(), first.state())))
    assert (second.scaler.get_scale(), second.scaler.state_dict()) == (2.0**10, first.scaler.state_dict())
    assert "scaler" not in prepare_training(SETTINGS, store).state()


@pytest.mark.parametrize("lr", [1e8, 1e30, 1e36])
def test_a_training_whose_only_update_diverges_saves_nothing(synthetic_store: Store, tmp_path: Path, lr: float) -> None:
    """One batch an epoch, so that no later loss shows it."""
    settings = replace(SETTINGS, epochs=1, lr=lr)
    start = (
        rf"^the training diverged at learning rate {re.escape(f'{lr:g}')}: .* not finite after update 1 .* lower --lr"
    )
    with pytest.raises(ReproError, match=start):
        list(train(settings, synthetic_store.path, tmp_path))
    check_nothing_saved(tmp_path / settings.run_name)


def check_nothing_saved(run: Path) -> None:
    assert {path.name for path in run.iterdir()} <= {"run.json", "mean.npy", ".lock"}
    assert json.loads((run / "run.json").read_text())["ended"] is None


@pytest.mark.parametrize("splits", ["with val", "without val"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_last_update_that_diverges_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: str, value: float
) -> None:
    """No later loss shows it: only the weights do, or the net's outputs where the weights are finite but huge."""
    real_update = loop_module._update

    def diverge(training: Training, *arguments: Any) -> None:
        real_update(training, *arguments)
        if training.batch == training.batches - 1:
            with torch.no_grad():
                for weight in training.model.parameters():
                    weight.fill_(value)

    monkeypatch.setattr(loop_module, "_update", diverge)
    if splits == "without val":
        opened = replace(store, splits={"train": store.splits["train"]})
        monkeypatch.setattr("repro.training.train.open_store", lambda path: opened)
    with pytest.raises(ReproError, match=r"^the training diverged at learning rate 0.01: .* not finite after update 2"):
        list(train(replace(SETTINGS, epochs=1), store.path, tmp_path))
    check_nothing_saved(tmp_path / SETTINGS.run_name)


def test_a_run_that_diverges_is_not_saved_when_a_signal_arrives(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(training: Training, *arguments: Any) -> None:
        training.totals.images, training.totals.seconds = 1, 1.0
        with torch.no_grad():
            training.model.get_parameter("conv1.weight").fill_(math.nan)

    monkeypatch.setattr(loop_module, "_update", diverge)
    with pytest.raises(ReproError, match=r"conv1.weight is not finite after update 1"):
        list(train(SETTINGS, store.path, tmp_path, stop_signal=lambda: signal.SIGTERM))
    check_nothing_saved(tmp_path / SETTINGS.run_name)


def test_a_validation_yields_equally_often_on_every_rank(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is handled within a validation. The ranks communicate at each yield, so their numbers must agree."""

    class Part(ProcessGroup):
        def sum(self, *values: float) -> list[float]:
            return [*values]

        def run_checked(self, action: Callable[[], Any]) -> Any:
            return action()

    for module in (loop_module, predictions):
        monkeypatch.setattr(module, "BATCH", 30)  # 200 images: seven batches
    for count, yields in ((1, 6), (2, 3), (3, 2), (7, 0), (8, 0)):
        errors = [0.0, 0.0]
        for rank in range(count):
            training = prepare_training(SETTINGS, store)
            training.group = Part(rank, count)
            before = training.state()
            validation = loop_module._validate(training)
            yielded = 0
            while True:
                try:
                    assert next(validation) == Validating(1)
                except StopIteration as end:
                    errors = [sum(pair) for pair in zip(errors, end.value, strict=True)]
                    break
                yielded += 1
                assert training.state() == before
            assert yielded == yields
        if count == 1:
            alone = errors
        assert errors == pytest.approx(alone)


def test_a_net_at_chance_is_reported_with_the_cause_and_keeps_its_learning_rate(store: Store, tmp_path: Path) -> None:
    settings = Settings("alexnet", "paper", "smoke", epochs=8)  # more epochs than the plateau rule's patience
    records = [event for event in train(settings, store.path, tmp_path) if isinstance(event, EpochRecord)]
    assert all("no better than chance" in (record.note or "") for record in records)
    assert "std 0.01 in every layer" in (records[0].note or "")
    assert {record.lr for record in records} == {0.01}


def test_training_ends_after_the_epoch_that_reaches_until_train_error(
    store: Store, finished: Path, tmp_path: Path
) -> None:
    errors = [line["train_top1_error"] for line in log_without_times(finished)]
    last = 1 + next(epoch for epoch, error in enumerate(errors) if error <= max(errors[:2]))
    run = finish(store, tmp_path, replace(SETTINGS, until_train_error=max(errors[:2])))
    assert last < len(errors)
    assert log_without_times(run) == log_without_times(finished)[:last]
    assert f"--until-train-error {max(errors[:2])}" in json.loads((run / "run.json").read_text())["command"]


def test_a_checkpoint_holds_the_whole_state(store: Store, tmp_path: Path) -> None:
    """A training that is restored from it takes the same next step."""
    first, second = (prepare_training(SETTINGS, store) for _ in range(2))
    next(train_epochs(first))
    path = checkpoint.save(tmp_path, first.step, first.tensors(), first.state())
    second.restore(checkpoint.load(path))
    assert next(train_epochs(first)) is not None
    step = next(train_epochs(second))
    assert isinstance(step, Step)
    for name, value in first.tensors().items():
        assert torch.equal(second.tensors()[name], value)
    assert second.schedule == ScheduleState()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "alexnot"}, "unknown variant 'alexnot': did you mean alexnet?"),
        (
            {"scale": "small"},
            "holds images of 64 pixels, scale 'small' needs 128: prepare one with --size",
        ),
        ({"lr": math.inf}, "--lr is inf: the learning rate must be a finite number above 0"),
        ({"lr": -0.1}, "--lr is -0.1: the learning rate must be"),
        ({"lr": 1e38}, "--lr is 1e+38: the learning rate must be a finite number above 0 and below 1e+37"),
        ({"lr": math.nan}, "--lr is nan: the learning rate must be"),
        ({"devices": "cuda:7"}, "no device 'cuda:7' on this machine"),
        ({"devices": "xla"}, "no device 'xla' on this machine"),
        ({"devices": "toaster"}, "no device 'toaster' on this machine"),
        ({"devices": "cpu,toaster"}, "no device 'toaster' on this machine"),
        ({"devices": "cpu,cpu,cpu"}, "--devices cpu,cpu,cpu cannot be shared by one process"),
        ({"variant": "one-gpu", "devices": "cpu,cpu"}, "this net has no two towers: name one device"),
    ],
)
def test_settings_that_are_refused(store: Store, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReproError) as error:
        next(train(replace(SETTINGS, **changes), store.path, tmp_path / "runs"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_created(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReproError, match=r"cannot create the run's folder .*: Not a directory"):
        next(train(SETTINGS, store.path, tmp_path / "file"))


def test_a_full_disk_at_the_start_leaves_no_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ReproError, match="No space left on device"):
        next(train(SETTINGS, store.path, tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_disk_without_space_for_a_checkpoint_is_an_error_before_the_first_update(
    store: Store, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        with pytest.raises(ReproError, match=r"cannot write a checkpoint of [\d.]+ MB to '.*': No space"):
            next(train(SETTINGS, store.path, disk))
        assert not list(disk.iterdir())


def test_two_devices_train_as_one_and_either_resumes_the_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower on each device (Sec. 3.2), then one device, then two again.

    In float64: in float32 a near tie in a pooling window may be decided differently, and its gradient with it.
    """
    monkeypatch.setattr(state_module, "to_devices", lambda model, devices: to_devices(model, devices).double())
    for name in ("cut", "test_views"):
        monkeypatch.setattr(Views, name, in_float64(getattr(Views, name)))
    whole = finish(store, tmp_path / "one")
    split = replace(SETTINGS, devices="cpu,cpu")
    for settings in (split, SETTINGS):
        signals = iter([None, signal.SIGTERM])
        with pytest.raises(Stopped):
            list(train(settings, store.path, tmp_path / "two", True, signals.__next__))
    run = finish(store, tmp_path / "two", split, resume=True)
    assert json.loads((run / "run.json").read_text())["devices"] == ["cpu", "cpu"]
    errors = [[line["val_top1_error"] for line in log_without_times(path)] for path in (run, whole)]
    assert errors[0] == errors[1]
    split_weights, expected = (safetensors.torch.load_file(path / "weights.safetensors") for path in (run, whole))
    assert split_weights.keys() == expected.keys()
    differences = [(split_weights[name] - value).abs().max() / value.abs().max() for name, value in expected.items()]
    print(f"two devices against one: {max(differences):.1e}")
    assert max(differences) < 1e-12


def in_float64(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that makes the same views in float64."""

    def made(*arguments: Any) -> Any:
        views = make(*arguments)
        return views.double() if isinstance(views, torch.Tensor) else (view.double() for view in views)

    return made
