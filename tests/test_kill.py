"""Killed with SIGKILL again and again, at any moment, a run comes to the same bits as one left in peace."""

import json
import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from repro.data.store import Store
from repro.prepare import prepare

KILLS = 24


def repro_train(*words: str) -> None:
    """What a process does that was started as `repro train WORDS…`; its lines are not shown."""
    from repro import cli

    sys.argv = ["repro", "train", *words]
    sys.stdout = open("/dev/null", "w")  # noqa: SIM115
    cli.main()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two batches an epoch."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=15)


def records(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def test_dozens_of_kills(store: Store, tmp_path: Path) -> None:
    # A server that has torch loaded and forks: each life begins within milliseconds, and is a process of its own.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["repro.cli", "repro.train", "repro.progress"])
    words = ("--variant", "alexnet", "--data", str(store.path), "--scale", "smoke", "--epochs", "20")
    words += ("--devices", "cpu", "--save-minutes", "0", "--resume")  # a checkpoint after every update
    name = "alexnet-authors-smoke-seed0"

    def start(out: Path) -> Any:
        process = processes.Process(target=repro_train, args=(*words, "--out", str(out)))
        process.start()
        return process

    process = start(tmp_path / "whole")
    process.join()
    assert process.exitcode == 0
    whole, killed = tmp_path / "whole" / name, tmp_path / "killed" / name

    moments, kills, found = random.Random(0), 0, set()
    while kills < KILLS and not (killed / "weights.safetensors").exists():
        process = start(tmp_path / "killed")
        # Now and then in its first moments; else at some moment after it has saved again: in an update, in the
        # next save, between two epochs.
        if moments.random() < 0.8:
            before = newest(killed)
            while newest(killed) == before and process.is_alive():
                time.sleep(0.001)
        process.join(moments.uniform(0, 0.4))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        found.add(newest(killed))
    process = start(tmp_path / "killed")
    process.join()
    assert process.exitcode == 0
    assert kills >= 10
    assert len(found) >= 5  # in different places
    assert (killed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert records(killed) == records(whole)
    print(f"{kills} kills, after updates {sorted(found)}")


def newest(run: Path) -> int:
    """The update after which the newest checkpoint was saved; 0 without any."""
    return max((int(path.stem) for path in run.glob("checkpoints/*.json")), default=0)
