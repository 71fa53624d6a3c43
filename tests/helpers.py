"""Helpers of several test files: small images, the command line in a process, a small file system."""

from __future__ import annotations

import contextlib
import io
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int = 0, width: int = 40, height: int = 30, format: str = "JPEG") -> bytes:
    """Return an encoded smooth RGB image that depends on the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(encoded, format)
    return encoded.getvalue()


def write_pictures(root: Path, counts: dict[str, int], format: str = "JPEG") -> Path:
    """Write `counts[folder]` images into each folder below root, for example {"train/cats": 3}.

    Their names end in .jpg whatever the format; with PNG, worker processes need not import torch.
    """
    for index, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").write_bytes(picture(1000 * index + number, format=format))
    return root


def repro(*words: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run `python -W error -m repro WORDS…` in a new process."""
    command = [sys.executable, "-W", "error", "-m", "repro", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def run_here(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `repro WORDS…` in this process: without the seconds in which a new one imports torch."""
    from repro.cli import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main.run([str(word) for word in words])
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


class ForkedProgram:
    """`python -W error -c CODE WORDS…`, forked from a server that has imported torch: it starts in milliseconds.

    It is used like `subprocess.Popen`; `environment` replaces the variables of this process.
    """

    def __init__(self, code: str, words: list[str], environment: Mapping[str, str] = os.environ) -> None:
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["preloaded"])
        with pytest.MonkeyPatch.context() as patch:  # the server of Python 3.11 does not take over sys.path
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
            multiprocessing.forkserver.ensure_running()
        self.output, self.errors = tempfile.NamedTemporaryFile(), tempfile.NamedTemporaryFile()  # noqa: SIM115
        names = (self.output.name, self.errors.name)
        self.process = processes.Process(target=_run_code, args=(code, words, dict(environment), *names))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative after a signal; None while the program runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked program", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the program; return what it wrote to the standard output and to the standard error."""
        self.wait(timeout)
        with self.output, self.errors:
            return self.output.read().decode(), self.errors.read().decode()

    def send_signal(self, number: int) -> None:
        if self.process.pid is not None and self.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()


def _run_code(code: str, words: list[str], environment: dict[str, str], output: str, errors: str) -> None:
    import torch

    for path, descriptor in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    if threads := os.environ.get("OMP_NUM_THREADS"):  # OpenMP has read it when the server started
        torch.set_num_threads(int(threads))
    warnings.simplefilter("error")
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}  # of Python's audit hooks


def kill_at_file_event(part: str, number: int | None) -> Callable[[], int]:
    """Kill this process at its `number`-th file event: before and after an fsync, and before a file whose path
    contains `part` is opened, renamed, truncated or removed. The moment does not depend on the speed of the machine.

    With None nothing is killed. Returns a function that returns the number of events so far.
    """
    count = 0

    def happen() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in FILE_EVENTS and part in str(arguments[0]):
            happen()

    def counted_fsync(descriptor: int) -> None:
        happen()
        fsync(descriptor)
        happen()

    fsync, os.fsync = os.fsync, counted_fsync
    sys.addaudithook(hook)
    return lambda: count


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a small file system at `folder`; skips the test where this user may not."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        for _ in range(50):
            if not subprocess.run(["umount", folder], capture_output=True).returncode:
                break
            time.sleep(0.1)
