"""Data-parallel training in real processes: equal results for any number of them, and an error when one ends."""

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
import torch
from helpers import ForkedProgram

from repro.data.store import Store
from repro.preparation.prepare import prepare
from repro.training.distributed import SINGLE_PROCESS, TIMEOUT, ProcessGroup, _CollectiveError
from repro.training.settings import Settings
from repro.training.train import train

NAME = "alexnet-{}-smoke-seed1"
EPOCHS = 3
SIX_DEVICES = ("--devices", ",".join(["cpu"] * 6))
MAIN = "from repro.cli.main import main; main()"
SHORT_TIMEOUT = (
    "import datetime, repro.training.distributed as ranks; ranks.TIMEOUT = datetime.timedelta(seconds=3); " + MAIN
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """130 training images: a batch of 128, of which three ranks have uneven shards, and one of 2, fewer than ranks."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=13)


def words(store: Store, out: Path, *more: object, recipe: str = "authors", seed: int = 1) -> list[str]:
    fixed = ["train", "--variant", "alexnet", "--scale", "smoke", "--epochs", EPOCHS, "--data", store.path]
    return [str(word) for word in (*fixed, "--recipe", recipe, "--seed", seed, "--out", out, *more)]


def start(commands: list[list[str]], code: str = MAIN) -> list[ForkedProgram]:
    """Start a rank for each command as torchrun does, with separate exit codes and outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "TORCHELASTIC_RUN_ID": "test"}
    count = str(len(commands))
    place |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "OMP_NUM_THREADS": "1"}
    return [
        ForkedProgram(code, command, os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, command in enumerate(commands)
    ]


DIES_WHILE_ANOTHER_WAITS = """
import os, time
from repro.training.distributed import join_process_group
with join_process_group() as group:
    if group.rank == 1:
        os._exit(9)
    time.sleep(600)  # as one that waits for a GPU, and so for a rank that has ended
"""


SEVERAL_BUCKETS = """
import torch
from torch import nn
import repro.training.distributed as ranks
ranks.BUCKET_BYTES = 200  # three buckets
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 9), nn.ReLU(), nn.Linear(9, 2))
with torch.no_grad():
    for number, weight in enumerate(net.parameters()):
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
net.to(memory_format=torch.channels_last, dtype=torch.float64)
images = torch.randn(7, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
with ranks.join_process_group() as group:
    net(images).square().mean().backward()
    expected = [weight.grad.clone() for weight in net.parameters()]
    buckets = ranks.GradientBuckets(group, net.parameters(), 2, torch.device("cpu"))
    assert len(buckets._buckets) == 3
    steps = []
    for _ in range(2):
        net.zero_grad()
        loss = net(images[group.shard(7)]).square().sum() / 14
        sums = buckets.backward(loss, torch.tensor([float(group.rank), 1.0]))
        steps.append([weight.grad.clone() for weight in net.parameters()])
        assert sums.tolist() == [3.0, 3.0]
        assert all(weight.grad.stride() == weight.stride() for weight in net.parameters())
    for first, second, whole in zip(*steps, expected):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, whole)
"""


def wait(ranks: list[ForkedProgram]) -> list[tuple[int | None, str, str]]:
    """Return the exit code, the output and the messages of each rank."""
    texts = [rank.communicate(timeout=600) for rank in ranks]
    return [(rank.returncode, *text) for rank, text in zip(ranks, texts, strict=True)]


def wait_for_first_epoch(run: Path, rank: ForkedProgram | subprocess.Popen[str]) -> None:
    """Wait until `run` has finished an epoch, or the process has ended."""
    while not (run / "log.jsonl").exists() and rank.poll() is None:
        time.sleep(0.02)


def log(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def difference(one: Path, other: Path) -> float:
    """Return the largest relative difference of any weight; the logs must agree too."""
    for ours, theirs in zip(log(one), log(other), strict=True):
        assert ours.pop("train_loss") == pytest.approx(theirs.pop("train_loss"), rel=1e-5)
        assert ours == theirs
    first, second = (safetensors.torch.load_file(run / "weights.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    # The text's biases of conv1 and conv3 start at 0 and are still a millionth of the weights. Where a difference is
    # below the rounding of its layer's weights, it is compared with them.
    rounding = torch.finfo(torch.float32).eps
    found = []
    for name, ours in first.items():
        layer = first[name.replace(".bias", ".weight")].abs().max()
        change = (ours - second[name]).abs().max()
        found.append((change / (layer if change < rounding * layer else ours.abs().max())).item())
    return max(found)


@pytest.fixture(scope="module")
def alone(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run in one process, with both recipes."""
    out = tmp_path_factory.mktemp("alone")
    for recipe in ("authors", "paper"):
        list(train(Settings("alexnet", recipe, "smoke", seed=1, epochs=EPOCHS), store.path, out))
    return {recipe: out / NAME.format(recipe) for recipe in ("authors", "paper")}


@pytest.fixture(scope="module")
def two_ranks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes, started by torchrun."""
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "repro"]
    done = subprocess.run([*torchrun, *words(store, out)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation") == EPOCHS  # only rank 0 displays it
    return out / NAME.format("authors")


@pytest.fixture(scope="module")
def three_ranks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with recipe paper in three processes of two devices each."""
    out = tmp_path_factory.mktemp("three")
    first, *others = wait(start([words(store, out, *SIX_DEVICES, recipe="paper")] * 3))
    assert (first[0], first[2], others) == (0, "", [(0, "", "")] * 2)
    return out / NAME.format("paper")


def test_two_ranks_give_the_results_of_one(alone: dict[str, Path], two_ranks: Path) -> None:
    measured = difference(alone["authors"], two_ranks)
    print(f"two ranks against one: {measured:.1e}")
    assert measured < 1e-5
    record = json.loads((two_ranks / "run.json").read_text())
    assert (record["ranks"], record["devices"]) == (2, ["cpu"])
    assert record["command"].startswith("torchrun --nproc-per-node 2 -m repro train --variant alexnet")


def test_gradients_in_several_buckets_are_those_of_the_whole_batch() -> None:
    """In float64, with layers in the layout of channels last."""
    assert wait(start([[]] * 3, SEVERAL_BUCKETS)) == [(0, "", "")] * 3


def test_three_ranks_with_two_devices_each_give_the_results_of_one(alone: dict[str, Path], three_ranks: Path) -> None:
    """Uneven shards, a batch of which one rank has no image, LRN across the towers."""
    measured = difference(alone["paper"], three_ranks)
    print(f"three ranks of two devices against one of one: {measured:.1e}")
    assert measured < 1e-5


def test_a_signal_to_one_rank_stops_all_and_they_resume_with_bit_identical_results(
    store: Store, three_ranks: Path, tmp_path: Path
) -> None:
    """With three ranks, because the sum of two does not depend on their order."""
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


def test_a_killed_rank_ends_the_others_and_one_process_can_resume(
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


def test_a_rank_that_does_not_respond_is_an_error_in_the_others(store: Store, tmp_path: Path) -> None:
    ranks = start([words(store, tmp_path)] * 2, SHORT_TIMEOUT)
    wait_for_first_epoch(tmp_path / NAME.format("authors"), ranks[0])
    ranks[0].send_signal(signal.SIGSTOP)
    try:
        _, message = ranks[1].communicate(timeout=600)
    finally:
        ranks[0].kill()
        ranks[0].communicate()
    assert ranks[1].returncode == 3, message
    assert message.startswith("repro: rank 1: another rank has ended or does not respond")


def test_a_failure_of_gloo_is_recognised_whatever_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Application timeout caused pair closure")

    monkeypatch.setattr(torch.distributed, "all_reduce", fail)
    with pytest.raises(_CollectiveError):
        ProcessGroup(0, 2).sum(1.0)


def test_a_rank_that_waits_outside_of_gloo_ends_when_another_dies() -> None:
    """With NCCL the main thread waits for the GPU, which waits for all ranks."""
    started = time.monotonic()
    (code, _, message), _ = wait(start([[], []], DIES_WHILE_ANOTHER_WAITS))
    assert time.monotonic() - started < TIMEOUT.total_seconds() / 2
    assert code == 3
    assert message.startswith("repro: rank 0: another rank has ended or does not respond")
    assert len(message.splitlines()) == 1


FAKE_COMMANDS = {
    "repro": f"exec '{sys.executable}' -W error -m repro \"$@\"",
    "scontrol": 'echo "$@" > scontrol.txt',
    "srun": """
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_STEP_NODELIST=localhost SLURM_NODEID=0
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & pids+=" $!"; done
echo $pids > tasks.part && mv tasks.part tasks.txt
code=0
for pid in $pids; do wait $pid; result=$?; [ $result -gt $code ] && code=$result; done
exit $code""",
}


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="the batch script is for bash")
def test_the_batch_script_of_the_guide_saves_before_the_time_limit_and_is_queued_again(
    store: Store, tmp_path: Path
) -> None:
    """With an srun that starts two tasks here and sets the variables that Slurm's sets."""
    guide = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    script = tmp_path / "alexnet.sbatch"
    script.write_text(guide[guide.index("#!/bin/bash") :].partition("```")[0])
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, lines in FAKE_COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{lines}\n")
        (commands / name).chmod(0o755)
    free_port, paths = str(29_600 + os.getpid() % 400), f"{commands}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": paths, "SLURM_JOB_ID": "7712345", "MASTER_PORT": free_port, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        ["bash", script, *words(store, tmp_path)[1:], "--save-minutes", "1000"],
        cwd=tmp_path, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = tmp_path / NAME.format("authors")
    wait_for_first_epoch(run, job)
    for task in (tmp_path / "tasks.txt").read_text().split():
        os.kill(int(task), signal.SIGUSR1)
    _, message = job.communicate(timeout=600)
    assert job.returncode == 128 + signal.SIGUSR1, message
    assert message.startswith("repro: saved after update ")
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7712345\n"
    record = json.loads((run / "run.json").read_text())
    assert record["ranks"] == 2
    assert record["command"].startswith("srun --ntasks 2 --ntasks-per-node 2 repro train --variant alexnet")


def test_ranks_started_with_different_settings_are_refused(store: Store, tmp_path: Path) -> None:
    first, second = wait(start([words(store, tmp_path), words(store, tmp_path, seed=2)]))
    assert (first[0], second) == (3, (3, "", ""))
    assert (
        first[2]
        == "repro: rank 1: this run differs from rank 0's: its seed is 1, not 2; start all ranks with equal options\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shards_of_a_batch_are_consecutive_and_differ_by_one_image_at_most(count: int) -> None:
    for images in (0, 1, 2, 127, 128):
        shares = [range(images)[ProcessGroup(rank, count).shard(images)] for rank in range(count)]
        assert [row for share in shares for row in share] == list(range(images))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert SINGLE_PROCESS.shard(128) == slice(0, 128)
