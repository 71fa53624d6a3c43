"""Commands of an experiment on several devices at the same time: order, failures, signals, and a whole experiment."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import typer

from repro.baselines.settings import BaselineSettings
from repro.cli import commands as cli
from repro.errors import ReproError, Stopped
from repro.preparation.prepare import prepare
from repro.verification.verify import verify
from repro.workflow.parallel import ParallelEvent, StageEnded, StageOutput, StageStarted, run_in_parallel, with_devices
from repro.workflow.stages import Kind, Stage

# Instead of `repro`: `write RESULT`, `meet RESULT OTHER`, `threads RESULT`, `fail RESULT` and `save RESULT`.
COMMANDS = """
import os, pathlib, signal, sys, time
action, result, *others = sys.argv[1:]
result = pathlib.Path(result)
def save(number, frame):
    result.with_suffix(".saved").write_text(str(number))
    sys.exit(128 + number)
if action == "save":
    signal.signal(signal.SIGTERM, save)
    print("ready")
    time.sleep(600)
if action == "threads":
    others = [os.environ[name] for name in ("OMP_NUM_THREADS", "REPRO_SHARED_PROCESSORS")]
if action == "fail":
    sys.exit("repro: the reason")
if action == "meet":  # waits until the other command runs as well
    result.with_suffix(".started").touch()
    deadline = time.monotonic() + 120
    while not pathlib.Path(others[0]).with_suffix(".started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
result.write_text(" ".join(others))
"""
PROGRAM = (sys.executable, "-c", COMMANDS)


class Command(Stage):
    """A stage whose result needs no check."""

    def check(self) -> None:
        """Accept whatever exists."""


def command(result: Path, *words: object, needs: Iterable[Path] = (), kind: Kind = Kind.PREPARE) -> Stage:
    action, *others = map(str, words)
    return Command(kind, (action, str(result), *others), result, needs=tuple(needs))


def run(stages: list[Stage], devices: str, events: list[ParallelEvent] | None = None) -> list[ParallelEvent]:
    events = [] if events is None else events
    events.extend(run_in_parallel(lambda: stages, devices.split(","), program=PROGRAM))
    return events


def test_independent_commands_run_at_the_same_time_and_dependent_ones_in_order(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    stages = [
        command(c, "write", needs=(a, b), kind=Kind.TRAIN),
        command(a, "meet", b),
        command(b, "meet", a),
        command(d, "write", needs=(c,)),
    ]
    events = run(stages, "cuda:0,cuda:1")
    assert c.read_text() == "--devices cuda:0"  # the first that is free
    started = [event.stage.result for event in events if isinstance(event, StageStarted)]
    ended = [(event.done, event.total, event.problem) for event in events if isinstance(event, StageEnded)]
    assert started == [a, b, c, d]
    assert [done for done, _, _ in ended] in ([1, 2, 3, 4], [2, 2, 3, 4])
    assert {(total, problem) for _, total, problem in ended} == {(4, None)}
    assert run(stages, "cuda:0,cuda:1") == []  # everything is done


def test_a_command_that_fails_does_not_stop_the_others_and_is_reported_at_the_end(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    stages = [command(a, "fail"), command(b, "write", needs=(a,)), command(c, "write")]
    events: list[ParallelEvent] = []
    with pytest.raises(
        ReproError,
        match=r"^1 command failed: `repro fail .*a`: exit code 1: the reason; not started, because they need those "
        r"results: 1; fix this and run the same command again to continue$",
    ):
        run(stages, "cpu", events)
    assert c.exists()
    assert not b.exists()


def test_a_command_that_writes_no_result_fails(tmp_path: Path) -> None:
    stage = Command(Kind.PREPARE, ("write", str(tmp_path / "other")), tmp_path / "result")
    with pytest.raises(ReproError, match=r"did not write '.*result'"):
        run([stage], "cpu")


def test_a_signal_stops_all_commands_with_everything_saved(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    ready: list[ParallelEvent] = []

    def stop_signal() -> int | None:
        return signal.SIGTERM if len(ready) == 2 else None

    def run_until_stopped() -> None:
        stages = [command(a, "save"), command(b, "save")]
        for event in run_in_parallel(lambda: stages, ["cpu", "cpu"], stop_signal, PROGRAM):
            ready.extend([event] if isinstance(event, StageOutput) else [])

    with pytest.raises(Stopped) as stopped:
        run_until_stopped()
    assert stopped.value.signal == signal.SIGTERM
    if sys.platform != "win32":
        assert a.with_suffix(".saved").read_text() == b.with_suffix(".saved").read_text() == "15"


def test_a_command_that_needs_two_devices_gets_them(tmp_path: Path) -> None:
    words = ("train", "--devices", "cuda:0,cuda:1", "--seed", "0")
    stage = Stage(Kind.TRAIN, words, tmp_path / "weights", devices=2)
    assert with_devices(stage, ["cuda:2", "cuda:3"]) == ("train", "--seed", "0", "--devices", "cuda:2,cuda:3")
    baseline = Stage(Kind.TRAIN, ("train", "--variant", "x"), settings=BaselineSettings("x", "smoke"))
    assert with_devices(baseline, ["cuda:2"]) == baseline.words  # it is trained on none
    with pytest.raises(ReproError, match=r"^a command needs 2 devices: name them with --devices, not cpu alone$"):
        run([stage], "cpu")


def test_commands_share_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.workflow.parallel.available_processors", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("REPRO_SHARED_PROCESSORS")
    run([command(tmp_path / "a", "threads")], "cpu,cpu")
    assert (tmp_path / "a").read_text() == "3 1"


def test_an_experiment_in_parallel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trainings on the CPU at the same time, through the command line."""
    prepare("synthetic", tmp_path / "stores" / "synthetic-64", size=64, limit_per_class=2, workers=1)
    places = ["--out", str(tmp_path / "runs"), "--stores", str(tmp_path / "stores")]
    words = ["run", "two-gpus", "--scale", "smoke", "--epochs", "1", "--devices", "cpu,cpu", "--parallel", *places]
    app = typer.main.get_command(cli.app)
    app(words, standalone_mode=False)
    runs = sorted((tmp_path / "runs" / "synthetic-64").iterdir())
    assert [run.name for run in runs] == ["alexnet-authors-smoke-seed0", "one-gpu-authors-smoke-seed0"]
    assert [verify(run) for run in runs] == [[], []]
    shown = capsys.readouterr().out
    for run in runs:
        assert f"[cpu] done: {run / 'weights.safetensors'}" in shown
    app(words, standalone_mode=False)  # again: both are accepted as done
    assert "done: " not in capsys.readouterr().out
