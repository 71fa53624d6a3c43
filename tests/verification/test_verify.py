"""`repro verify` on runs: undamaged ones pass, finished or not, and each kind of damage is reported with its file."""

import json
import math
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from helpers import run_here

from repro.data.store import Store
from repro.errors import ReproError, Stopped
from repro.evaluation.evaluate import evaluate
from repro.records.schema import EndRecord
from repro.training.settings import Settings
from repro.training.train import train
from repro.verification.verify import verify

SETTINGS = Settings("alexnet", "authors", "smoke", epochs=3)
NAME = "alexnet-authors-smoke-seed0"


@pytest.fixture(scope="module")
def made(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with evaluations, and one that was stopped in its third epoch."""
    out = tmp_path_factory.mktemp("runs")
    list(train(SETTINGS, synthetic_store.path, out / "finished"))
    for split in ("val", "test"):
        evaluate([out / "finished" / NAME], synthetic_store.path, split, 1)
    signals = iter([None] * 4 + [signal.SIGTERM])
    with pytest.raises(Stopped):
        list(train(SETTINGS, synthetic_store.path, out / "unfinished", stop_signal=signals.__next__))
    return out


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return shutil.copytree(made, tmp_path / "runs")


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_an_undamaged_run_has_no_problems(made: Path, state: str) -> None:
    assert verify(made / state / NAME) == []
    assert (made / state / NAME / "checkpoints").exists() == (state == "unfinished")


def test_sha256sum_accepts_the_checksum_file(made: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "weights.safetensors.sha256"]
    assert subprocess.run(command, cwd=made / "finished" / NAME, capture_output=True).returncode == 0


def test_folder_of_an_ensemble_and_runs_without_checksums(made: Path, runs: Path) -> None:
    run = runs / "finished" / NAME
    (run / "weights.safetensors.sha256").unlink()
    assert verify(run) == []
    for path in (runs / "unfinished" / NAME / "checkpoints").glob("*.json"):
        record = json.loads(path.read_text())
        del record["state_sha256"]
        path.write_text(json.dumps(record))
    assert verify(runs / "unfinished" / NAME) == []
    ensemble = runs / "alexnet-authors-smoke-seeds0+1"
    ensemble.mkdir()
    for file in ("evaluation-val-1.json", "predictions-val-1.npz"):
        shutil.copy(run / file, ensemble)
    assert verify(ensemble) == []
    edit("evaluation-val-1.json", top5_error=1.5)(ensemble)
    (problem,) = verify(ensemble)
    assert problem.startswith("evaluation-val-1.json: top5_error is 1.5, but ")


def test_an_ensemble_whose_runs_were_trained_again(runs: Path) -> None:
    run = runs / "finished" / NAME
    ensemble = run.parent / "alexnet-authors-smoke-seeds0+1"
    ensemble.mkdir()
    for file in ("evaluation-val-1.json", "predictions-val-1.npz"):
        shutil.copy(run / file, ensemble)
    checksum = json.loads((run / "run.json").read_text())["ended"]["weights"]
    names = [NAME, NAME.replace("seed0", "seed1")]  # the second is somewhere else
    edit("evaluation-val-1.json", runs=names, checksums=[checksum, "0" * 64])(ensemble)
    assert verify(ensemble) == []
    end(weights="1" * 64)(run)
    assert verify(ensemble) == [f"evaluation-val-1.json: it is of other weights than the run '{NAME}' has now"]


Damage = Callable[[Path], object]


def flip(name: str, position: float = 0.9) -> Damage:
    """Flip a bit of the file, at a `position` between 0 (its start) and 1 (its end)."""

    def damage(run: Path) -> None:
        path = next(run.glob(name))
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= 1
        path.write_bytes(content)

    return damage


def cut(name: str, bytes_: int = 10) -> Damage:
    """Remove the last bytes of the file."""
    return lambda run: next(run.glob(name)).write_bytes(next(run.glob(name)).read_bytes()[:-bytes_])


def edit(name: str, **changes: object) -> Damage:
    """Replace values of a JSON file."""

    def damage(run: Path) -> None:
        path = next(run.glob(name))
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def lines(change: Callable[[list[str]], list[str]]) -> Damage:
    """Replace the log by the result of `change` on its lines."""

    def damage(run: Path) -> None:
        log = run / "log.jsonl"
        log.write_text("".join(change(log.read_text().splitlines(keepends=True))))

    return damage


def line(number: int, **changes: object) -> Damage:
    """Replace values of a line of the log; those given as ... are removed."""

    def change(log: list[str]) -> list[str]:
        content = json.loads(log[number - 1]) | changes
        log[number - 1] = json.dumps({name: value for name, value in content.items() if value is not ...}) + "\n"
        return log

    return lines(change)


def end(**changes: object) -> Damage:
    """Replace values of the record of how training ended."""

    def damage(run: Path) -> None:
        content = json.loads((run / "run.json").read_text())
        content["ended"] |= changes
        (run / "run.json").write_text(json.dumps(content))

    return damage


def weights(change: Callable[[dict], dict]) -> Damage:
    """Replace the weights by the result of `change`, in a run without a checksum."""

    def damage(run: Path) -> None:
        path = run / "weights.safetensors"
        path.write_bytes(safetensors.torch.save(change(safetensors.torch.load(path.read_bytes()))))
        (run / "weights.safetensors.sha256").unlink()
        edit("run.json", ended=EndRecord("epochs", 3).__dict__)(run)

    return damage


def other_predictions(run: Path) -> None:
    """Replace the predictions by undamaged ones of another evaluation."""
    with np.load(run / "predictions-val-1.npz") as kept:
        arrays = dict(kept)
    arrays["top5"][:, 0] = arrays["labels"]
    np.savez_compressed(run / "predictions-val-1.npz", **arrays)


@pytest.mark.parametrize(
    ("state", "damage", "problem"),
    [
        ("finished", cut("run.json"), "run.json' cannot be read"),
        ("finished", lambda run: (run / "run.json").unlink(), "has no run.json"),
        ("finished", edit("run.json", format=7), "run.json' cannot be read (its format is 7, this version reads 1: "),
        ("finished", edit("run.json", network=[{"layer": "Convolution"}]), "run.json: it does not describe"),
        ("finished", edit("run.json", network=[{"layer": "Activation", "name": "relu"}]), "does not describe"),
        ("finished", edit("run.json", input_size=120), "fc6.weight has the shape"),
        (
            "finished",
            edit("run.json", epochs="many"),
            "run.json' cannot be read (Expected `int`, got `str` - at `$.epochs`)",
        ),
        ("finished", cut("log.jsonl"), "log.jsonl: line 3 is incomplete"),
        ("finished", cut("log.jsonl", 1), "log.jsonl: line 3 is incomplete"),
        ("finished", lines(lambda log: [log[0], "null\n", log[2]]), "log.jsonl: line 2 is wrong: it is not a"),
        ("finished", lines(lambda log: [log[0], log[2]]), "log.jsonl: line 2 is of epoch 3"),
        ("finished", lines(lambda log: [*log, log[2]]), "log.jsonl: line 4 is of epoch 3"),
        ("finished", lines(lambda log: log[:2]), "log.jsonl: it ends after epoch 2"),
        (
            "finished",
            line(2, train_loss=math.nan),
            "line 2 is wrong: train_loss is nan, not a finite number",
        ),
        ("finished", line(2, val_top1_error=None), "log.jsonl: line 2 is wrong: it has no validation error"),
        ("finished", line(3, images_per_second=...), "log.jsonl: line 3 is wrong: images_per_second is missing"),
        ("unfinished", line(1, lr=...), "log.jsonl: line 1 is wrong: lr is missing"),
        ("finished", edit("run.json", ended=None), "run.json: it does not record how training ended"),
        ("finished", end(epochs=2), "log.jsonl: it ends after epoch 3, although the run is finished, after epoch 2"),
        ("finished", end(weights="0" * 64), "instead of 0000000000"),
        ("finished", lambda run: (run / "mean.npy").unlink(), "mean.npy: it is missing"),
        ("finished", cut("mean.npy"), "mean.npy: it cannot be read"),
        ("finished", lambda run: (run / "log.jsonl").unlink(), "log.jsonl: it ends after epoch 0"),
        ("unfinished", lines(lambda log: log[:1]), "log.jsonl: it has 1 epochs"),
        ("unfinished", cut("log.jsonl"), "log.jsonl: line 2 is incomplete"),
        ("unfinished", flip("checkpoints/*.safetensors"), "checksum mismatch"),
        ("unfinished", cut("checkpoints/*.safetensors"), "checksum mismatch"),
        ("unfinished", cut("checkpoints/*.json", 30), "json' is damaged"),
        ("unfinished", edit("checkpoints/*.json", state={"epoch": 2}), "checksum mismatch"),
        ("finished", flip("weights.safetensors"), "weights.safetensors: its SHA-256 is"),
        ("finished", cut("weights.safetensors"), "weights.safetensors: its SHA-256 is"),
        ("finished", flip("weights.safetensors.sha256", 0.1), "which weights.safetensors.sha256 records"),
        ("finished", lambda run: (run / "weights.safetensors").unlink(), "weights.safetensors: it is missing"),
        ("finished", weights(lambda all_: {**all_, "fc8.bias": all_["fc8.bias"] / 0}), "not finite"),
        ("finished", weights(lambda all_: {**all_, "fc8.bias": all_["fc8.bias"][1:]}), "fc8.bias has the shape [9]"),
        (
            "finished",
            weights(lambda all_: {**all_, "fc9.bias": all_["fc8.bias"] + 1}),
            "fc9.bias is not a parameter of this net",
        ),
        ("finished", weights(lambda all_: {"fc8.bias": all_["fc8.bias"]}), "conv1.weight is missing"),
        ("finished", edit("evaluation-test-1.json", top1_error=3.25), "evaluation-test-1.json: top1_error is 3.25"),
        ("finished", edit("evaluation-test-1.json", images=39), "evaluation-test-1.json: images is 39"),
        (
            "finished",
            edit("evaluation-val-1.json", checksums=["0" * 64]),
            f"evaluation-val-1.json: it is of other weights than the run '{NAME}' has now",
        ),
        ("finished", cut("evaluation-val-1.json"), "evaluation-val-1.json: it cannot be read"),
        ("finished", other_predictions, "evaluation-val-1.json: top1_error is"),
        ("finished", flip("predictions-val-1.npz", 0.5), "predictions-val-1.npz: it cannot be read"),
        ("finished", cut("predictions-val-1.npz"), "predictions-val-1.npz: it cannot be read"),
        ("finished", lambda run: (run / "predictions-test-1.npz").unlink(), "predictions-test-1.npz: it cannot be"),
        ("finished", lambda run: (run / "retrieval-val.json").write_text("{"), "retrieval-val.json: it cannot be read"),
        (
            "finished",
            lambda run: (run / "activations-val.json").write_text("{"),
            "activations-val.json: it cannot be read",
        ),
    ],
)
def test_damage_is_reported_with_its_file(runs: Path, state: str, damage: Damage, problem: str) -> None:
    run = runs / state / NAME
    damage(run)
    try:
        found = "; ".join(verify(run))
    except ReproError as error:
        found = str(error)
    assert problem in found


def test_command(runs: Path) -> None:
    run = runs / "finished" / NAME
    for path in (run, run / "run.json"):
        done = run_here("verify", path)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{path}: nothing is damaged")
    flip("weights.safetensors")(run)
    done = run_here("verify", run)
    assert done.returncode == 3
    assert done.stderr.startswith(f"repro: '{run}' is damaged: weights.safetensors: its SHA-256 is ")
    assert len(done.stderr.splitlines()) == 1
