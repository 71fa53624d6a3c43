import contextlib
import os
import subprocess
import sys
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import write_pictures

import repro.preparation.prepare
from repro.data.store import open_store
from repro.errors import ReproError
from repro.preparation.prepare import prepare

# In a separate process, because the cluster starts threads and emits warnings.
SCRIPT = """
import sys
from pathlib import Path
from dask.distributed import Client, LocalCluster
import repro.preparation.prepare
if __name__ == "__main__":
    repro.preparation.prepare.SHARD_IMAGES = 8
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        repro.preparation.prepare.prepare("folder", Path(sys.argv[2]), source=Path(sys.argv[1]), size=32,
                              scheduler=cluster.scheduler_address)
        with Client(cluster) as client:
            print(sum(client.run(lambda: "repro.preparation.shards" in __import__("sys").modules).values()))
"""


def test_dask_workers_make_the_same_store(tmp_path: Path) -> None:
    pytest.importorskip("dask")
    pytest.importorskip("distributed")
    images = write_pictures(tmp_path / "images", {"a": 60, "b": 60}, "PNG")
    root = str(Path(repro.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, sys.path)])
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, images, tmp_path / "dask"],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["2"]  # both workers took part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 8)
        here = prepare("folder", tmp_path / "here", source=images, size=32)
    assert open_store(tmp_path / "dask").manifest == here.manifest


def test_a_scheduler_needs_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_pictures(tmp_path / "images", {"a": 3, "b": 3})
    for module in ("dask", "dask.distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ReproError, match=r'pip install "\.\[dask\]"'):
        prepare("folder", tmp_path / "store", source=images, scheduler="tcp://127.0.0.1:9")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("dask.distributed")

    def unreachable(address: str, timeout: int) -> None:
        raise OSError(f"Timed out trying to connect to {address} after {timeout} s")

    monkeypatch.setattr(distributed, "Client", unreachable)
    images = write_pictures(tmp_path / "images", {"a": 3, "b": 3})
    with pytest.raises(ReproError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9' \(Timed out"):
        prepare("folder", tmp_path / "store", source=images, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("loss", ["scheduler", "workers"])
def test_a_failing_cluster_leaves_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    distributed = pytest.importorskip("dask.distributed")
    error = (
        CancelledError()
        if loss == "scheduler"
        else distributed.KilledWorker("make_shard", SimpleNamespace(address="tcp://worker"), 3)
    )

    class Failing(Executor):
        def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if arguments[0].number < 3:
                future.set_result(function(*arguments))
            else:
                future.set_exception(error)
            return future

    class Client(contextlib.nullcontext[None]):
        def __enter__(self) -> Any:
            return self

        def nthreads(self) -> dict[str, int]:
            return {"tcp://worker": 1}

        def get_executor(self) -> Executor:
            return Failing()

    monkeypatch.setattr(distributed, "Client", lambda address, timeout: Client())
    monkeypatch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 8)
    images = write_pictures(tmp_path / "images", {"a": 30, "b": 30}, "PNG")
    match = r"the Dask cluster at 'tcp://127\.0\.0\.1:9' has failed \(.+\): restart it; 3 shards are kept"
    with pytest.raises(ReproError, match=match) as raised:
        prepare("folder", tmp_path / "store", source=images, size=16, scheduler="tcp://127.0.0.1:9")
    assert "\n" not in str(raised.value)
    assert len(prepare("folder", tmp_path / "store", source=images, size=16).splits["train"]) == 54
