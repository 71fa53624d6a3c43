"""Helpers of several test files: small images, the command line in a process, a small file system."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
