"""A run that is killed many times, at any moment, ends with the same bits as an uninterrupted one."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ForkedProgram

from repro.data.store import Store
from repro.evaluation.evaluate import evaluate
from repro.preparation.prepare import prepare

KILLS = 24
NAME = "alexnet-authors-smoke-seed0"
TRAIN = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
from helpers import kill_at_file_event
from repro.cli.main import main
kill_at_file_event({NAME!r}, {{}})
main()
"""
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}  # two would be no faster

EVENTS = 50  # file events of some two updates, each with a checkpoint

Program = ForkedProgram | subprocess.Popen[str]


def typed(code: str, words: list[str]) -> Program:
    """Start a new interpreter."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, *words], **output)


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


@pytest.mark.parametrize("start", [ForkedProgram, pytest.param(typed, marks=pytest.mark.slow)])
def test_dozens_of_kills(
    start: Callable[[str, list[str]], Program], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    words = ["train", "--variant", "alexnet", "--data", str(store.path), "--scale", "smoke", "--epochs", "14"]
    words += ["--devices", "cpu", "--save-minutes", "0", "--resume"]  # a checkpoint after every update
    words += ["--keep-checkpoints", "--out"]  # because they hold the velocities
    whole, killed = tmp_path / "whole" / NAME, tmp_path / "killed" / NAME

    def finish(run: Path) -> None:
        program = start(TRAIN.format(None), [*words, str(run.parent)])
        _, errors = program.communicate()
        assert program.returncode == 0, errors

    finish(whole)
    moments, kills, found = random.Random(0), Counter[str](), set()
    while kills.total() < KILLS and not (killed / "weights.safetensors").exists():
        # In turn at a random file event, at the first one, when nothing is written yet, and at any time after a save:
        # in an update, in the next save, in a validation, between two epochs.
        kind = kills.total() % 4
        kill_at = (moments.randint(1, EVENTS), None, EVENTS // 2, 1)[kind]
        program = start(TRAIN.format(kill_at), [*words, str(killed.parent)])
        if kind == 1:
            before = newest(killed)
            while newest(killed) == before and program.poll() is None:
                time.sleep(0.001)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(moments.uniform(0, 0.4))
            program.kill()
        program.communicate()
        if program.returncode == -signal.SIGKILL:
            kills[moment(killed)] += 1
            found.add(newest(killed))
    finish(killed)
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
