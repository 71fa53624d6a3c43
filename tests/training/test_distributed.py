"""Data-parallel training in real processes: the same run whatever their number, and an end when one of them ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch

from repro.data.store import Store
from repro.preparation.prepare import prepare
from repro.training.distributed import SINGLE_PROCESS, TIMEOUT, ProcessGroup
from repro.training.settings import Settings
from repro.training.train import train

NAME = "alexnet-{}-smoke-seed1"
EPOCHS = 3
SIX_DEVICES = ("--devices", ",".join(["cpu"] * 6))
AS_TYPED = "from repro.cli.main import main; main()"
IMPATIENT = (
    "import datetime, repro.training.distributed as ranks; ranks.TIMEOUT = datetime.timedelta(seconds=3); " + AS_TYPED
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """130 training images: a batch of 128, which three ranks cannot share evenly, and one of two, fewer than them."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=13)


def words(store: Store, out: Path, *more: object, recipe: str = "authors", seed: int = 1) -> list[str]:
    fixed = ["train", "--variant", "alexnet", "--scale", "smoke", "--epochs", EPOCHS, "--data", store.path]
    return [str(word) for word in (*fixed, "--recipe", recipe, "--seed", seed, "--out", out, *more)]


def start(commands: list[list[str]], code: str = AS_TYPED) -> list[subprocess.Popen[str]]:
    """A rank for each command, started as torchrun does, but so that each one's exit code can be seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "TORCHELASTIC_RUN_ID": "test"}
    count = str(len(commands))
    place |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *command],
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def wait(ranks: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Each rank's exit code, output and messages."""
    texts = [rank.communicate(timeout=600) for rank in ranks]
    return [(rank.returncode, *text) for rank, text in zip(ranks, texts, strict=True)]


def wait_for_first_epoch(run: Path, rank: subprocess.Popen[str]) -> None:
    while not (run / "log.jsonl").exists() and rank.poll() is None:
        time.sleep(0.02)


def log(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def difference(one: Path, other: Path) -> float:
    """The largest difference of any weight, over the largest of its tensor; the logs must agree too."""
    for ours, theirs in zip(log(one), log(other), strict=True):
        assert ours.pop("train_loss") == pytest.approx(theirs.pop("train_loss"), rel=1e-5)
        assert ours == theirs
    first, second = (safetensors.torch.load_file(run / "weights.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    return max(((first[name] - second[name]).abs().max() / first[name].abs().max()).item() for name in first)


@pytest.fixture(scope="module")
def alone(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run in one process, by either recipe."""
    out = tmp_path_factory.mktemp("alone")
    for recipe in ("authors", "paper"):
        list(train(Settings("alexnet", recipe, "smoke", seed=1, epochs=EPOCHS), store.path, out))
    return {recipe: out / NAME.format(recipe) for recipe in ("authors", "paper")}


@pytest.fixture(scope="module")
def two_ranks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes, as a user types it."""
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "repro"]
    done = subprocess.run([*torchrun, *words(store, out)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation") == EPOCHS  # one of the two shows the run
    return out / NAME.format("authors")


@pytest.fixture(scope="module")
def three_ranks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by the text's recipe in three processes of two devices each."""
    out = tmp_path_factory.mktemp("three")
    first, *others = wait(start([words(store, out, *SIX_DEVICES, recipe="paper")] * 3))
    assert (first[0], first[2], others) == (0, "", [(0, "", "")] * 2)
    return out / NAME.format("paper")


def test_two_ranks_are_one_run(alone: dict[str, Path], two_ranks: Path) -> None:
    measured = difference(alone["authors"], two_ranks)
    print(f"two ranks against one: {measured:.1e}")
    assert measured < 1e-5
    record = json.loads((two_ranks / "run.json").read_text())
    assert (record["ranks"], record["devices"]) == (2, ["cpu"])
    assert record["command"].startswith("torchrun --nproc-per-node 2 -m repro train --variant alexnet")


def test_three_ranks_with_two_devices_each_are_the_same_run(alone: dict[str, Path], three_ranks: Path) -> None:
    """Uneven shares, a batch that leaves one rank nothing, LRN across the towers."""
    measured = difference(alone["paper"], three_ranks)
    print(f"three ranks of two devices against one of one: {measured:.1e}")
    assert measured < 1e-5


def test_a_signal_to_one_rank_stops_all_and_they_resume_to_the_same_bits(
    store: Store, three_ranks: Path, tmp_path: Path
) -> None:
    """Three, because the sum of two does not depend on their order."""
    run = tmp_path / three_ranks.name
    ranks = start([words(store, tmp_path, *SIX_DEVICES, recipe="paper")] * 3)
    wait_for_first_epoch(run, ranks[0])
    ranks[1].send_signal(signal.SIGTERM)
    (code, _, message), *others = wait(ranks)
    assert (code, others) == (143, [(143, "", "")] * 2)
    assert message.startswith("repro: saved after update ")
    assert len(message.splitlines()) == 1
    first, *others = wait(start([words(store, tmp_path, *SIX_DEVICES, "--resume", recipe="paper")] * 3))
    assert (first[0], first[2], others) == (0, "", [(0, "", "")] * 2)
    assert (run / "weights.safetensors").read_bytes() == (three_ranks / "weights.safetensors").read_bytes()
    assert log(run) == log(three_ranks)


def test_a_killed_rank_ends_the_others_and_one_process_can_go_on(
    store: Store, alone: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / NAME.format("authors")
    ranks = start([words(store, tmp_path)] * 2)
    wait_for_first_epoch(run, ranks[0])
    ranks[1].kill()
    killed = time.monotonic()
    (code, _, message), _ = wait(ranks)
    assert time.monotonic() - killed < TIMEOUT.total_seconds() / 2  # it does not wait for a timeout
    assert code == 3
    assert message.startswith("repro: rank 0: another rank has ended or does not respond")
    assert len(message.splitlines()) == 1
    assert not (run / "weights.safetensors").exists()
    list(train(Settings("alexnet", "authors", "smoke", seed=1, epochs=EPOCHS), store.path, tmp_path, resume=True))
    assert difference(alone["authors"], run) < 1e-5


def test_a_silent_rank_is_not_waited_for_for_ever(store: Store, tmp_path: Path) -> None:
    ranks = start([words(store, tmp_path)] * 2, IMPATIENT)
    wait_for_first_epoch(tmp_path / NAME.format("authors"), ranks[0])
    ranks[0].send_signal(signal.SIGSTOP)
    try:
        _, message = ranks[1].communicate(timeout=600)
    finally:
        ranks[0].kill()
        ranks[0].communicate()
    assert ranks[1].returncode == 3
    assert message.startswith("repro: rank 1: another rank has ended or does not respond")


def test_ranks_started_with_different_settings_are_refused(store: Store, tmp_path: Path) -> None:
    first, second = wait(start([words(store, tmp_path), words(store, tmp_path, seed=2)]))
    assert (first[0], second) == (3, (3, "", ""))
    assert (
        first[2]
        == "repro: rank 1: this run differs from rank 0's: its seed is 1, not 2; start all ranks with equal options\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_ranks_share_a_batch_by_position(count: int) -> None:
    for images in (0, 1, 2, 127, 128):
        shares = [range(images)[ProcessGroup(rank, count).shard(images)] for rank in range(count)]
        assert [row for share in shares for row in share] == list(range(images))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert SINGLE_PROCESS.shard(128) == slice(0, 128)
