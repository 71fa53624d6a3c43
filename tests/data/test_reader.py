"""Batches that threads read ahead, against direct indexing; errors, early exits, forks and memory."""

import _thread
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import write_pictures

import repro.preparation.prepare
from repro.data import reader
from repro.data import store as store_module
from repro.data.reader import Request, read_ahead
from repro.data.sampling import draw_epoch
from repro.data.store import Split, Store, Subset, open_store
from repro.errors import ReproError
from repro.paper.recipes import AUTHORS
from repro.preparation.prepare import prepare

IMAGES, SIZE = 30, 16


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Stores of the same 30 training images in shards of 4, raw and JPEG."""
    folder = tmp_path_factory.mktemp("stores")
    source = write_pictures(folder / "images", {"train/a": 15, "train/b": 15, "val/a": 1, "val/b": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
        return {
            encoding: prepare("folder", folder / encoding, source=source, size=SIZE, encoding=encoding)
            for encoding in ("raw", "jpeg")
        }


@pytest.fixture
def split(stores: dict[str, Store]) -> Split:
    """Train split of a store opened anew, with no file open."""
    return open_store(stores["raw"].path).splits["train"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check that a test leaves no reader thread."""
    yield
    gc.collect()
    assert not reader_threads()


def reader_threads() -> list[threading.Thread]:
    """Return the threads that read batches."""
    return [thread for thread in threading.enumerate() if thread.name == reader.THREAD_NAME]


def batches(count: int, size: int = 7, seed: int = 0) -> list[np.ndarray]:
    """Return the indices below `count` in a random order, in batches; the last one may be smaller."""
    order = np.random.default_rng(seed).permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


@pytest.mark.parametrize(("chunk_bytes", "processors"), [(1, 8), (2000, 1), (2**20, 8)])
@pytest.mark.parametrize("kind", ["raw", "jpeg", "subset"])
def test_batches_equal_direct_indexing(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch, kind: str, chunk_bytes: int, processors: int
) -> None:
    """Random order, a ragged last batch, repeated and consecutive images, and an empty batch."""
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(reader, "available_processors", lambda: processors)
    train: Split = stores["jpeg" if kind == "jpeg" else "raw"].splits["train"]
    if kind == "subset":
        train = Subset(train, np.array([29, 3, 4, 5, 6, 20, 0, 1, 2, 11]))
    whole = np.stack([train.images(np.array([index]))[0] for index in range(len(train))])
    wanted = [*batches(len(train)), np.arange(len(train)), np.array([5, 5, 0]), np.empty(0, np.int64)]
    shift = np.random.default_rng(1).random((len(train), 3), np.float32)
    requests = (Request(each, {"labels": train.labels[each], "shift": shift[each]}) for each in wanted)
    seen = 0
    for indices, batch in zip(wanted, read_ahead(train, requests), strict=True):
        np.testing.assert_array_equal(batch.images, whole[indices])
        np.testing.assert_array_equal(batch.columns["labels"], train.labels[indices])
        np.testing.assert_array_equal(batch.columns["shift"], shift[indices])
        seen += 1
    assert seen == len(wanted)


def test_three_batches_are_read_ahead_into_four_buffers(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, buffers = [], set()

    def requests() -> Iterator[Request]:
        for number, indices in enumerate(batches(IMAGES, 3)):
            asked.append(number)
            yield Request(indices)

    for number, batch in enumerate(read_ahead(split, requests())):
        assert asked[-1] == min(number + 3, 9)
        buffers.add(batch.images.data_ptr())
    assert len(buffers) == 4
    monkeypatch.setattr(reader, "RING_BYTES", 3 * 3 * SIZE**2 * 3 - 1)  # less than three batches
    assert len({batch.images.data_ptr() for batch in read_ahead(split, map(Request, batches(IMAGES, 3)))}) == 2


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_an_error_takes_the_place_of_its_batch(
    stores: dict[str, Store], tmp_path: Path, kind: str, damage: str
) -> None:
    """A shard that is cut short after the store was opened, or removed; the batches before it are read."""
    train = open_store(Path(shutil.copytree(stores[kind].path, tmp_path / "copy"))).splits["train"]
    shard = tmp_path / "copy" / train.shards[4].file
    if damage == "cut":
        os.truncate(shard, shard.stat().st_size - 500)
    else:
        shard.unlink()
    read = read_ahead(train, map(Request, [np.array([0, 1]), np.array([2, 29]), np.array([3, 19]), np.array([4, 5])]))
    assert [len(next(read).images) for _ in range(2)] == [2, 2]
    reason = r"it ends after \d+ of \d+ bytes" if damage == "cut" else "No such file or directory"
    with pytest.raises(ReproError, match=rf"file '.*{shard.name}' is damaged \({reason}\): prepare") as error:
        next(read)
    assert "\n" not in str(error.value)
    with pytest.raises(StopIteration):
        next(read)


def test_an_index_outside_the_split(split: Split) -> None:
    for index in (-1, IMAGES):
        with pytest.raises(IndexError, match=str(index)):
            next(read_ahead(split, [Request(np.array([0, index]))]))


@pytest.mark.parametrize("ending", ["close", "drop", "break", "exception", "not begun"])
def test_threads_end_with_the_generator(split: Split, ending: str) -> None:
    read = read_ahead(split, map(Request, batches(IMAGES)))
    if ending == "not begun":
        return
    next(read)
    assert reader_threads()
    if ending == "close":
        read.close()
    elif ending == "drop":
        del read
        gc.collect()
    elif ending == "break":
        with closing(read):
            for _ in read:
                break
    else:
        with pytest.raises(ZeroDivisionError), closing(read):
            _ = 1 // 0
    assert not reader_threads()


def test_an_interrupt_while_waiting_ends_the_threads(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a slow read; the batches that are left are not read."""
    read_images, count = split.read, []

    def slow(indices: np.ndarray, out: np.ndarray) -> None:
        count.append(len(indices))
        if len(count) == 1:  # another interrupt would end the wait for the threads
            _thread.interrupt_main()
        time.sleep(0.3)
        read_images(indices, out)

    monkeypatch.setattr(split, "read", slow)
    monkeypatch.setattr(split, "read_cached", lambda indices, out: [slice(0, len(indices))])
    monkeypatch.setattr(reader, "CHUNK_BYTES", 1)
    monkeypatch.setattr(reader, "THREADS", 2)
    with pytest.raises(KeyboardInterrupt):
        for _ in read_ahead(split, map(Request, batches(IMAGES))):
            pass
    assert not reader_threads()
    assert sum(count) < IMAGES


FORK = """
import os, sys
import numpy as np
from repro.data.reader import Request, read_ahead
from repro.data.store import open_store

train = open_store(sys.argv[1]).splits["train"]
read = read_ahead(train, (Request(np.arange(start, start + 5)) for start in range(0, 30, 5)))
assert (next(read).images.numpy() == train.images(np.arange(5))).all()
child = os.fork()
starts = range(5, 30, 5)
assert all((batch.images.numpy() == train.images(np.arange(s, s + 5))).all() for s, batch in zip(starts, read))
read.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_reads_the_same_batches(stores: dict[str, Store]) -> None:
    subprocess.run([sys.executable, "-c", FORK, stores["raw"].path], check=True, timeout=300)


def test_reads_without_positional_reads_and_with_few_open_files(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, and with a low limit on open files."""
    expected = [
        batch.images.clone() for batch in read_ahead(stores["raw"].splits["train"], map(Request, batches(IMAGES)))
    ]
    monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.setattr(store_module, "files_to_keep_open", lambda: 2)
    monkeypatch.setattr(reader, "CHUNK_BYTES", 1)
    train = open_store(stores["raw"].path).splits["train"]
    for want, batch in zip(expected, read_ahead(train, map(Request, batches(IMAGES))), strict=True):
        np.testing.assert_array_equal(batch.images, want)
    assert train._open_shard.cache_info().currsize == 2  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot tell what is in memory")
@pytest.mark.parametrize("case", ["none", "parts", "some", "unsupported"])
def test_images_that_are_not_in_memory_are_read_from_disk(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """With none of them in memory, the beginning of each, every third one, or a file system that cannot tell."""
    train, preadv, waited = open_store(stores["raw"].path).splits["train"], os.preadv, []
    expected = stores["raw"].splits["train"].images(np.arange(IMAGES))

    def read(descriptor: int, targets: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags == 0:
            waited.append(offset)
        elif case == "none" or (case == "some" and offset // (3 * SIZE**2) % 3):
            raise BlockingIOError
        elif case == "unsupported":
            raise OSError(95, "Operation not supported")
        return preadv(descriptor, [targets[0][:100]] if case == "parts" else targets, offset)

    monkeypatch.setattr(os, "preadv", read)
    for indices, batch in zip(batches(IMAGES), read_ahead(train, map(Request, batches(IMAGES))), strict=True):
        np.testing.assert_array_equal(batch.images, expected[indices])
    assert bool(waited)


class FakeStream:
    """A stream that records what is done with it, in `log`."""

    log: ClassVar[list[str]] = []

    def wait_event(self, event: Any) -> None:
        self.log.append("wait")


class FakeEvent:
    """An event that records what is done with it."""

    def record(self, stream: FakeStream) -> None:
        FakeStream.log.append("copy")

    def synchronize(self) -> None:
        FakeStream.log.append("copied")


def test_a_device_with_streams_gets_one_packed_copy(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """With streams that only record their use: a buffer is reused after the end of its copy, not before."""

    def with_stream(target: Any, device: torch.device) -> None:
        target.device, target.stream = device, FakeStream()

    monkeypatch.setattr(reader._Target, "__init__", with_stream)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: FakeStream.log.append("keep"))
    monkeypatch.setattr(reader, "RING_BYTES", 1)  # two buffers
    draws = draw_epoch(0, 1, IMAGES, 4, AUTHORS.augmentation)
    wanted = batches(IMAGES)
    columns = [
        {
            "labels": split.labels[each],
            "mirror": draws.mirror[each],
            "top": draws.top[::-1][each],
            "alpha": draws.alpha[each],
        }
        for each in wanted
    ]
    FakeStream.log.clear()
    for indices, expected, batch in zip(wanted, columns, read_ahead(split, map(Request, wanted, columns)), strict=True):
        np.testing.assert_array_equal(batch.images, split.images(indices))
        for name, values in expected.items():
            assert batch.columns[name].dtype == torch.from_numpy(values[:0].copy()).dtype
            np.testing.assert_array_equal(batch.columns[name], values)
        base = batch.images.untyped_storage().data_ptr()
        assert all(each.untyped_storage().data_ptr() == base for each in batch.columns.values())
        # With two buffers the copy after the next cannot have begun.
        assert FakeStream.log.count("copy") <= FakeStream.log.count("copied") + 2
    for what in ("copy", "wait", "keep", "copied"):
        assert FakeStream.log.count(what) == len(wanted)
