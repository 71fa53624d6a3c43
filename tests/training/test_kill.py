"""A run that is killed many times, at any moment, ends with the same bits as an uninterrupted one."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import kill_at_file_event

from repro.data.store import Store
from repro.evaluation.evaluate import evaluate
from repro.preparation.prepare import prepare

KILLS = 24
NAME = "alexnet-authors-smoke-seed0"
TESTS = Path(__file__).parents[1]
# `repro train`, but the checkpoints are kept when it is finished, because they hold the velocities.
TRAIN = "import shutil; shutil.rmtree = lambda *_, **__: None; from repro.cli.main import main; main()"
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}  # two would be no faster

Kill = Callable[[], None]
Wait = Callable[[float | None], int | None]  # the exit code, None if the process still runs after these seconds
Start = Callable[[list[str], int | None], tuple[Kill, Wait]]
EVENTS = 50  # file events of some two updates, each with a checkpoint


def repro_train(words: list[str], kill_at: int | None) -> None:
    """Run `repro WORDS…` without output; the process kills itself at file event `kill_at` in the run's folder."""
    kill_at_file_event(NAME, kill_at)
    sys.argv = ["repro", *words]
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    exec(TRAIN)


def forked(words: list[str], kill_at: int | None = None) -> tuple[Kill, Wait]:
    """Start a process in milliseconds, as a fork of a server that has imported torch."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["repro.cli.commands", "repro.training.train", "repro.cli.progress"])
    process = processes.Process(target=repro_train, args=(words, kill_at))
    process.start()

    def wait(seconds: float | None) -> int | None:
        process.join(seconds)
        return process.exitcode

    return process.kill, wait


def typed(words: list[str], kill_at: int | None = None) -> tuple[Kill, Wait]:
    """Start a new interpreter."""
    code = f"import sys; sys.path.append({str(TESTS)!r}); from helpers import kill_at_file_event; "
    code += f"kill_at_file_event({NAME!r}, {kill_at}); {TRAIN}"
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code, *words], stdout=subprocess.DEVNULL)

    def wait(seconds: float | None) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    return process.kill, wait


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Store with two batches per epoch, and two for validation."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=13)


def log(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def newest(run: Path) -> int:
    """Return the update after which the newest checkpoint was saved; 0 if there is none."""
    return max((int(path.stem) for path in run.glob("checkpoints/*.json")), default=0)


def moment(run: Path) -> str:
    """Return what a killed run was doing: beginning, saving, or computing."""
    if not newest(run):
        return "beginning"
    orphans = len(list(run.glob("checkpoints/*.safetensors"))) > len(list(run.glob("checkpoints/*.json")))
    return "saving" if orphans or list(run.rglob(".*.partial")) else "computing"


@pytest.mark.parametrize("start", [forked, pytest.param(typed, marks=pytest.mark.slow)])
def test_dozens_of_kills(start: Start, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    words = ["train", "--variant", "alexnet", "--data", str(store.path), "--scale", "smoke", "--epochs", "14"]
    words += ["--devices", "cpu", "--save-minutes", "0", "--resume", "--out"]  # a checkpoint after every update
    whole, killed = tmp_path / "whole" / NAME, tmp_path / "killed" / NAME
    _, wait = start([*words, str(whole.parent)], None)
    assert wait(None) == 0

    moments, kills, found = random.Random(0), Counter[str](), set()
    while kills.total() < KILLS and not (killed / "weights.safetensors").exists():
        # In turn at a random file event, at the first one, when nothing is written yet, and at any time after a save:
        # in an update, in the next save, in a validation, between two epochs.
        kind = kills.total() % 4
        kill, wait = start([*words, str(killed.parent)], (moments.randint(1, EVENTS), None, EVENTS // 2, 1)[kind])
        if kind == 1:
            before = newest(killed)
            while newest(killed) == before and wait(0.001) is None:
                pass
            wait(moments.uniform(0, 0.4))
            kill()
        if wait(None) == -signal.SIGKILL:
            kills[moment(killed)] += 1
            found.add(newest(killed))
    _, wait = start([*words, str(killed.parent)], None)
    assert wait(None) == 0
    print(f"{kills.total()} kills ({dict(kills)}), after updates {sorted(found)}")
    assert kills.total() >= 10
    assert kills["saving"]
    assert kills["computing"]
    assert len(found) >= 5  # in different places
    last = newest(whole)
    for file in ("weights.safetensors", f"checkpoints/{last:010}.safetensors", f"checkpoints/{last:010}.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file
    assert log(killed) == log(whole)
    for run in (killed, whole):
        evaluate([run], store.path, "test", 1)
    predictions = "predictions-test-1.npz"
    assert (killed / predictions).read_bytes() == (whole / predictions).read_bytes()
