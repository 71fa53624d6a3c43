"""Signals stop every command at every moment, with the exit code 128 + number, one line and no partial files."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import repro

from repro import interrupts
from repro.data.store import Store
from repro.errors import Stopped

SCRIPT = Path(__file__).parents[1] / "send_signal.py"
PUBLISHED = Path(__file__).parents[2] / "outputs" / "reference" / "runs" / "catsdogs"
RUN = "alexnet-authors-smoke-seed0"
MOMENTS = 24  # of each command, in the slow test
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a process cannot send itself signals")

COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("list", "variants"),
    "plan": ("plan", "table1", "--images-per-second", "100"),
    "prepare": ("prepare", "synthetic", "--out", "{out}/store", "--limit-per-class", "2", "--workers", "1"),
    "train": ("train", "--variant", "alexnet", "--scale", "smoke", "--epochs", "2", "--data", "{store}", "--out={out}"),
    "evaluate": ("evaluate", "{run}", "--data", "{store}", "--views", "1"),
    "retrieve": ("retrieve", "{run}", "--data", "{store}"),
    "activations": ("activations", "{run}", "--data", "{store}"),
    "verify": ("verify", "{run}"),
    "report": ("report", "--runs", "{runs}", "--out", "{out}/report", "--compare"),
    "run": ("run", "figure3", "--scale", "smoke", "--stores", "{out}/stores", "--out", "{out}/runs", "--epochs", "1"),
    "demo": ("demo", "--out", "{out}/demo"),
}  # fmt: skip


def send(number: int, moment: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(number), moment, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def assert_stopped(done: subprocess.CompletedProcess[str], number: int) -> None:
    assert done.returncode == 128 + number, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr
    assert not done.stderr or done.stderr.startswith("repro: ")


@pytest.mark.parametrize("moment", ["import:typer", "open:commands.", "import:repro.cli.tables"])
@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_during_the_start(number: signal.Signals, moment: str) -> None:
    assert_stopped(send(number, moment, ["list", "variants"]), number)


@pytest.mark.parametrize(
    "moment", ["import:pandas", "import:matplotlib.figure", "open:run.json", "open:comparison.json"]
)
def test_a_signal_during_a_report(moment: str, tmp_path: Path) -> None:
    words = [word.format(runs=PUBLISHED, out=tmp_path) for word in COMMANDS["report"]]
    assert_stopped(send(signal.SIGINT, moment, words), signal.SIGINT)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("moment", ["import:torch", "import:repro.preparation", "os.mkdir:store"])
def test_a_signal_during_prepare_leaves_nothing(moment: str, tmp_path: Path) -> None:
    words = [word.format(out=tmp_path) for word in COMMANDS["prepare"]]
    assert_stopped(send(signal.SIGTERM, moment, words), signal.SIGTERM)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def small_run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    runs = tmp_path_factory.mktemp("runs")
    words = ("--variant", "alexnet", "--scale", "smoke", "--epochs", 1, "--data", synthetic_store.path)
    done = repro("train", *words, "--out", runs)
    assert done.returncode == 0, done.stderr
    return runs / RUN


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_many_moments(name: str, synthetic_store: Store, small_run: Path, tmp_path: Path) -> None:
    """The four signals in turn, at moments spread over the whole command; partial files are never left."""

    def words(out: Path) -> list[str]:
        folders = {"store": synthetic_store.path, "run": small_run, "runs": small_run.parent, "out": out}
        return [word.format(**folders) for word in COMMANDS[name]]

    whole = send(signal.SIGINT, "0", words(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stderr.split()[-1])
    for index in range(MOMENTS):
        number = interrupts.SIGNALS[index % len(interrupts.SIGNALS)]
        out = tmp_path / str(index)
        done = send(number, str(1 + moments * index // MOMENTS), words(out))
        assert_stopped(done, number)
        assert not list(tmp_path.rglob("*.partial")), (index, done.stderr)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Handlers as the program installs them; the tests' own are put back afterwards."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    hook = sys.unraisablehook
    interrupts.stop_at_once()
    try:
        yield
    finally:
        interrupts.finish()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def wait() -> None:
    for _ in range(6000):  # a minute, a bytecode at a time
        time.sleep(0.01)


@pytest.mark.usefixtures("handlers")
def test_a_stop_that_a_destructor_drops_is_raised_again() -> None:
    class Dropping:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)  # Python drops the exceptions of destructors

    def collect_and_continue() -> None:
        Dropping()
        gc.collect()
        wait()

    with pytest.raises(Stopped) as caught:
        collect_and_continue()
    assert caught.value.signal == signal.SIGTERM


@pytest.mark.usefixtures("handlers")
def test_a_stop_that_a_bare_except_swallows_is_raised_again() -> None:
    def swallow_and_continue() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            wait()
        except:  # noqa: E722
            pass
        wait()

    with pytest.raises(Stopped) as caught:
        swallow_and_continue()
    assert caught.value.signal == signal.SIGHUP


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_does_not_interrupt_the_removal_of_partial_files() -> None:
    removed = False

    def stop_and_remove() -> None:
        nonlocal removed
        try:
            os.kill(os.getpid(), signal.SIGINT)
            wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            removed = True

    with pytest.raises(Stopped) as caught:
        stop_and_remove()
    assert removed
    assert caught.value.signal == signal.SIGINT


@pytest.mark.usefixtures("handlers")
def test_deferred_signals_are_only_noted() -> None:
    with interrupts.deferred() as stop_signal:
        assert stop_signal() is None
        for number in interrupts.SIGNALS:
            os.kill(os.getpid(), number)
            assert stop_signal() == number
        interrupts.stop(interrupts.BROKEN_PIPE)
        assert stop_signal() == interrupts.BROKEN_PIPE


def test_stopped_is_not_an_exception_that_libraries_catch() -> None:
    assert not issubclass(Stopped, Exception)


def test_nohup_keeps_a_command_running() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from repro import interrupts; interrupts.stop_at_once(); os.kill(os.getpid(), signal.SIGHUP)\n"
        "with interrupts.deferred() as stop_signal: os.kill(os.getpid(), signal.SIGHUP); print(stop_signal())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr
