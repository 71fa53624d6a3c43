"""The commands of an experiment as processes of this machine, one on each device at a time."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.baselines.settings import BaselineSettings
from repro.errors import ReproError, Stopped
from repro.processors import SHARED_PROCESSORS, available_processors
from repro.workflow.stages import Kind, Stage

PROGRAM = (sys.executable, "-m", "repro")
POLL_SECONDS = 0.2  # between two looks at whether a signal has arrived
# A command is in a separate process group: Ctrl-C in the terminal reaches it once, through this process.
SEPARATE: dict[str, Any] = (
    {"process_group": 0}
    if os.name == "posix"
    else {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
)
ON_DEVICES = (Kind.TRAIN, Kind.EVALUATE, Kind.RETRIEVE)


@dataclass(frozen=True)
class StageStarted:
    """A command has started on `devices`; `done` of `total` commands are finished."""

    stage: Stage
    devices: tuple[str, ...]
    done: int
    total: int


@dataclass(frozen=True)
class StageOutput:
    """A line that a command has printed."""

    stage: Stage
    devices: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class StageEnded:
    """A command has ended; `problem` says why it failed, or is None."""

    stage: Stage
    devices: tuple[str, ...]
    done: int
    total: int
    problem: str | None = None


ParallelEvent = StageStarted | StageOutput | StageEnded


@dataclass
class _Job:
    """A running command."""

    stage: Stage
    devices: tuple[str, ...]
    process: subprocess.Popen[str]
    last_line: str = ""


@dataclass
class _Progress:
    """What has happened so far: the paths are results of stages."""

    stages: list[Stage] = field(default_factory=list)
    jobs: list[_Job] = field(default_factory=list)
    checked: set[Path | None] = field(default_factory=set)
    failed: dict[Path | None, str] = field(default_factory=dict)  # with the reason

    @property
    def done(self) -> int:
        """Number of finished commands."""
        return sum(stage.done for stage in self.stages)

    def ready(self) -> list[Stage]:
        """Return the stages that can start: not done, running or failed, and with all that they need."""
        taken = {*self.failed, *(job.stage.result for job in self.jobs)}
        running = {job.stage.result for job in self.jobs}
        return [
            stage
            for stage in self.stages
            if not stage.done
            and stage.result not in taken
            and all(path.exists() and path not in running and path not in self.failed for path in stage.needs)
        ]


def run_in_parallel(
    list_stages: Callable[[], Iterable[Stage]],
    devices: Sequence[str],
    stop_signal: Callable[[], int | None] = lambda: None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[ParallelEvent]:
    """Run the stages that are not done as processes, each on one of `devices`; yield what happens.

    A stage starts once the results that it needs exist, in the given order, and on as many devices as its claim about
    time demands. `list_stages` is called again whenever a stage has ended, because a grid's learning rate depends on
    finished runs. A stage that fails does not stop the others, but those that need its result do not start.

    Once `stop_signal` returns a signal's number, all processes get that signal; when all have ended, Stopped is raised.

    Raises ReproError at the end if a stage has failed, and at the start if one needs more devices than there are.
    """
    progress, free = _Progress([*list_stages()]), list(devices)
    largest = max((stage.devices for stage in progress.stages), default=1)
    if largest > len(devices):
        raise ReproError(f"a command needs {largest} devices: name them with --devices, not {','.join(devices)} alone")
    lines: queue.Queue[tuple[_Job, str | None]] = queue.Queue()
    stopping: int | None = None
    try:
        while True:
            number = stop_signal()
            if number and not stopping:
                stopping = number
                _send_signal(progress.jobs, number)
            if not stopping:
                _check_done(progress)
                threads = max(1, available_processors() // len(devices))
                for job in _start_ready(progress, free, threads, lines, program):
                    yield StageStarted(job.stage, job.devices, progress.done, len(progress.stages))
            if not progress.jobs:
                break
            try:
                job, line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is not None:
                job.last_line = line or job.last_line
                yield StageOutput(job.stage, job.devices, line)
                continue
            problem = _finish(job)
            progress.jobs.remove(job)
            free += job.devices
            free.sort(key=devices.index)
            if problem and not stopping:
                progress.failed[job.stage.result] = problem
            progress.stages = [*list_stages()]
            yield StageEnded(job.stage, job.devices, progress.done, len(progress.stages), problem)
    finally:
        _send_signal(progress.jobs, signal.SIGTERM)
        for job in progress.jobs:
            job.process.wait()
    if stopping:
        raise Stopped(
            stopping, "all commands have stopped, with everything saved; run the same command again to continue"
        )
    _raise_failures(progress)


def _check_done(progress: _Progress) -> None:
    """Check the stages that are done but have not been checked; those that were run here are new."""
    for stage in progress.stages:
        if stage.done and stage.result not in progress.checked:
            progress.checked.add(stage.result)
            try:
                stage.check()
            except ReproError as error:
                progress.failed[stage.result] = str(error)


def _start_ready(
    progress: _Progress,
    free: list[str],
    threads: int,
    lines: queue.Queue[tuple[_Job, str | None]],
    program: Sequence[str],
) -> Iterator[_Job]:
    """Start as many stages as there are free devices for, which are taken from `free`, with `threads` on each."""
    for stage in progress.ready():
        if stage.devices <= len(free):
            taken = tuple(free[: stage.devices])
            del free[: stage.devices]
            progress.checked.add(stage.result)
            job = _start(stage, taken, threads, program)
            progress.jobs.append(job)
            threading.Thread(target=_read, args=(job, lines), daemon=True).start()
            yield job


def _start(stage: Stage, devices: tuple[str, ...], threads: int, program: Sequence[str]) -> _Job:
    environment = os.environ | {"PYTHONUNBUFFERED": "1", SHARED_PROCESSORS: "1"}
    environment.setdefault("OMP_NUM_THREADS", str(threads * len(devices)))
    process = subprocess.Popen(
        [*program, *with_devices(stage, devices)], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", **SEPARATE,
    )  # fmt: skip
    return _Job(stage, devices, process)


def with_devices(stage: Stage, devices: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a stage's command line with these devices in place of those that it names.

    A baseline, which is no net, is trained on no device.
    """
    words = stage.words
    if stage.kind not in ON_DEVICES or isinstance(stage.settings, BaselineSettings):
        return words
    if "--devices" in words:
        index = words.index("--devices")
        words = words[:index] + words[index + 2 :]
    return (*words, "--devices", ",".join(devices))


def _read(job: _Job, lines: queue.Queue[tuple[_Job, str | None]]) -> None:
    """Put every line that a process prints into the queue, and None at the end."""
    assert job.process.stdout
    with job.process.stdout as output:
        for line in output:
            lines.put((job, line.rstrip()))
    lines.put((job, None))


def _finish(job: _Job) -> str | None:
    """Wait for a process that has closed its output; return why it failed, or None."""
    code = job.process.wait()
    if code == 0:
        return None if job.stage.done else f"did not write '{job.stage.result}'"
    reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{reason}: {job.last_line.removeprefix('repro: ')}" if job.last_line else reason


def _send_signal(jobs: Iterable[_Job], number: int) -> None:
    for job in jobs:
        job.process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", number))  # Windows has no other for a process group


def _raise_failures(progress: _Progress) -> None:
    """Raise ReproError if a stage has failed."""
    if not progress.failed:
        return
    commands = {stage.result: str(stage) for stage in progress.stages}
    problems = "; ".join(f"`{commands.get(path, path)}`: {reason}" for path, reason in progress.failed.items())
    waiting = sum(not stage.done and stage.result not in progress.failed for stage in progress.stages)
    needing = f"; not started, because they need those results: {waiting}" if waiting else ""
    count = "1 command" if len(progress.failed) == 1 else f"{len(progress.failed)} commands"
    raise ReproError(f"{count} failed: {problems}{needing}; fix this and run the same command again to continue")
