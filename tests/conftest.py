"""Fixtures of several test files: a prepared store, and real images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.processors import SHARED_PROCESSORS, available_processors

if TYPE_CHECKING:  # the fixtures import it: tests of the parts without torch run where torch is not installed
    from repro.data.store import Store


LONGEST = (
    "test_subset.py",
    "test_stages.py",
    "test_kill.py",
    "test_layers.py",
    "test_commands.py",
    "test_distributed.py",
    "test_train.py",
    "test_export.py",
    "test_platforms.py",
    "test_evaluate.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment, which the processes that tests start inherit.

    GPUs are hidden from all tests but those of GPUs: without `--devices` programs would use them.

    An ignored signal stays ignored in child processes, and `repro` respects that for SIGHUP: signals are obeyed, also
    where the tests themselves run under `nohup` or the like. Processes of `pytest -n` share the processors, because
    threads that wait for each other on a processor with other work take several times as long.
    """
    os.environ[SHARED_PROCESSORS] = "1"
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_processors() // int(processes))))
    for name in ("SIGHUP", "SIGINT", "SIGUSR1"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, default)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `pytest -n auto`.

    It is one more than there are processors, because many tests wait for programs that they start, but at most four,
    and one for each 4 GiB of memory.
    """
    wanted = min(available_processors() + 1, 4)
    if not hasattr(os, "sysconf"):  # Windows
        return wanted
    return max(1, min(wanted, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with the longest tests first, so that all processes of `pytest -n` end at about the same time."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Store of generated images at 64 pixels, four images per class in each split."""
    from repro.preparation.prepare import prepare

    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=4)


@pytest.fixture(scope="session")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacks a set of real images by name and returns its folder; skips without REPRO_TEST_DATA."""
    data = os.environ.get("REPRO_TEST_DATA")
    unpacked: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if not data:
            pytest.skip("REPRO_TEST_DATA does not name a folder of real images")
        if name not in unpacked:
            target = tmp_path_factory.mktemp(name)
            subprocess.run([sys.executable, Path(data) / "unpack.py", name, target], check=True)
            unpacked[name] = target
        return unpacked[name]

    return unpack
