"""Images in an object store: the same store as from local files, by ranges of bytes, with errors of one line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import picture, run_here, write_pictures
from official_archives import tar, write_ilsvrc2012

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("upath")

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

from repro import remote  # noqa: E402
from repro.data.reader import Request, read_ahead  # noqa: E402
from repro.data.store import open_store  # noqa: E402
from repro.errors import ReproError  # noqa: E402
from repro.preparation.prepare import prepare  # noqa: E402
from repro.preparation.sources.datasets import open_source  # noqa: E402
from repro.workflow.stages import Workspace, experiment  # noqa: E402

BUCKET = "memory://bucket"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """An empty object store; the identities of its files are not remembered."""
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.0)
    system = fsspec.filesystem("memory")
    remote.identity.cache_clear()
    yield system
    for path in system.ls("/", detail=False):
        system.rm(path, recursive=True)


def upload(local: Path, system: MemoryFileSystem) -> Path:
    """Copy a file or a folder into the bucket; return its URL as the command line passes it."""
    for path in [local] if local.is_file() else sorted(local.rglob("*")):
        if path.is_file():
            system.pipe_file(f"/bucket/{path.relative_to(local.parent).as_posix()}", path.read_bytes())
    return Path(f"{BUCKET}/{local.name}")  # with one slash


def pack(pets: Path, kind: str) -> Path:
    formats = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}
    return Path(shutil.make_archive(str(pets), formats[kind], pets)) if kind in formats else pets


def webdataset(folder: Path) -> Path:
    folder.mkdir()
    samples = {number: {f"{number}.cls": b"%d" % (number % 2), f"{number}.jpg": picture(number)} for number in range(6)}
    (folder / "train-0.tar").write_bytes(tar({k: v for files in samples.values() for k, v in files.items()}))
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "webdataset"])
def test_remote_images_give_the_same_store_as_local_ones(kind: str, tmp_path: Path, memory: MemoryFileSystem) -> None:
    if kind == "webdataset":
        dataset, local = kind, webdataset(tmp_path / "shards")
    else:
        dataset, local = "folder", pack(write_pictures(tmp_path / "pets", {"cat": 4, "dog": 3}), kind)
    stores = [
        prepare(dataset, tmp_path / name, source=source, size=16, workers=1)
        for name, source in (("local", local), ("remote", upload(local, memory)))
    ]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert list(stores[0].splits["train"].iter_names()) == list(stores[1].splits["train"].iter_names())


def test_a_folder_named_like_the_one_that_holds_it_is_read(tmp_path: Path, memory: MemoryFileSystem) -> None:
    """An archive that is unpacked into a folder of its name leaves such folders, and so do datasets of people."""
    local = write_pictures(tmp_path / "pets", {"cat": 2, "cat/cat": 3, "dog": 4})
    names = [
        [image.name for split in ("train", "val") for image in open_source("folder", source, 0).splits[split]]
        for source in (local, upload(local, memory))
    ]
    assert len(names[0]) == 9
    assert names[0] == names[1]


def test_a_folder_that_lists_itself_is_not_in_it(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles of object stores make a folder by an empty object, which the folder's listing includes."""
    memory.pipe_file("/bucket/cat/cat/1.jpg", b"1")
    ls = MemoryFileSystem.ls

    def with_itself(self: MemoryFileSystem, path: str, detail: bool = True) -> Any:
        return [{"name": f"{path.strip('/')}/", "size": 0, "type": "file"}, *ls(self, path, detail)]

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "ls", with_itself)
        found = [[entry["name"] for entry in remote.listing(f"{BUCKET}/{folder}")] for folder in ("cat", "cat/cat")]
    assert found == [["cat"], ["1.jpg"]]


def count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list that the number of bytes of each range that is read from now on is appended to."""
    fetched: list[int] = []
    read = MemoryFileSystem.cat_file

    def counted(self: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None) -> Any:
        content = read(self, path, start, end)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return fetched


def test_the_official_archives_are_read_in_place(tmp_path: Path, memory: MemoryFileSystem) -> None:
    local = write_ilsvrc2012(tmp_path / "official")
    here, there = (open_source("ilsvrc2012", source, 0) for source in (local, upload(local, memory)))
    assert here.classes == there.classes
    for split, references in here.splits.items():
        remote_ones = there.splits[split]
        assert [(each.name, each.label) for each in references] == [(each.name, each.label) for each in remote_ones]
        assert [each.read() for each in references] == [each.read() for each in remote_ones]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_remote_store_reads_as_a_local_one(encoding: str, tmp_path: Path, memory: MemoryFileSystem) -> None:
    local = prepare("synthetic", tmp_path / "store", size=16, limit_per_class=2, workers=1, encoding=encoding)
    there = open_store(upload(local.path, memory))
    assert there.fingerprint == local.fingerprint
    assert np.array_equal(there.mean, local.mean)
    for name, split in local.splits.items():
        index = np.random.default_rng(0).permutation(len(split))
        assert np.array_equal(there.splits[name].labels, split.labels)
        assert list(there.splits[name].iter_names()) == list(split.iter_names())
        (batch,) = read_ahead(there.splits[name], [Request(index)])
        assert np.array_equal(batch.images.numpy(), split.images(index))


def test_a_remote_store_is_verified(tmp_path: Path, memory: MemoryFileSystem) -> None:
    store = upload(prepare("synthetic", tmp_path / "store", size=16, limit_per_class=2, workers=1).path, memory)
    done = run_here("verify", store)
    assert done.returncode == 0, done.stderr
    assert f"{BUCKET}/store: nothing is damaged" in done.stdout
    shard = "/bucket/store/train/00000.npy"
    content = bytearray(memory.cat_file(shard))
    content[-1] ^= 1
    memory.pipe_file(shard, bytes(content))
    done = run_here("verify", store)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert f"'{BUCKET}/store' is damaged: shard train/00000.npy: its BLAKE3 is" in done.stderr


def test_a_batch_of_a_remote_store_fetches_its_images_alone(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = prepare("synthetic", tmp_path / "store", size=16, limit_per_class=4, workers=1)
    train = open_store(upload(local.path, memory)).splits["train"]
    fetched = count_bytes(monkeypatch)
    train.images(np.array([7, 3, 30]))
    assert fetched == [16 * 16 * 3] * 3


def test_an_experiment_lists_commands_on_a_remote_store(tmp_path: Path, memory: MemoryFileSystem) -> None:
    local = prepare("synthetic", tmp_path / "store", size=128, limit_per_class=1, workers=1)
    workspace = Workspace(tmp_path / "runs", tmp_path / "stores", "small", data=upload(local.path, memory))
    trained, *evaluated = experiment("table1", workspace)
    assert trained.words[trained.words.index("--data") + 1] == f"{BUCKET}/store"
    assert trained.needs[0].exists()
    assert {stage.words[stage.words.index("--data") + 1] for stage in evaluated} == {f"{BUCKET}/store"}


def test_problems_of_a_remote_store_are_one_line(tmp_path: Path, memory: MemoryFileSystem) -> None:
    with pytest.raises(ReproError, match=rf"^no store at '{BUCKET}/nothing': prepare it with"):
        open_store(Path(f"{BUCKET}/nothing"))
    store = upload(prepare("synthetic", tmp_path / "store", size=16, limit_per_class=2, workers=1).path, memory)
    memory.pipe_file("/bucket/store/val/labels.npy", b"short")
    with pytest.raises(ReproError, match=rf"'{BUCKET}/store/val/labels.npy' is damaged \(it has 5 bytes instead"):
        open_store(store)


def test_an_archive_is_not_downloaded_to_list_it_or_to_read_an_image(
    tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "pets.tar"
    archive.write_bytes(tar({f"{'cat' if number % 2 else 'dog'}/{number}.jpg": bytes(2**20) for number in range(8)}))
    source = upload(archive, memory)
    fetched = count_bytes(monkeypatch)
    images = open_source("folder", source, 0)
    assert sum(fetched) < archive.stat().st_size / 10
    fetched.clear()
    assert len(images.splits["train"][0].read()) == 2**20
    assert fetched == [2**20]


def test_a_read_that_fails_is_repeated(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/bucket/file", b"0123456789")
    failures = [TimeoutError("slow"), ConnectionError("reset"), OSError("503 slow down")]
    read = MemoryFileSystem.cat_file

    def unreliable(self: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None) -> Any:
        if failures:
            raise failures.pop()
        return read(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unreliable)
    assert remote.read_range(f"{BUCKET}/file", 2, 3) == b"234"
    failures.extend([TimeoutError("slow")] * remote.ATTEMPTS)
    with pytest.raises(OSError, match="TimeoutError: slow"):
        remote.read_range(f"{BUCKET}/file", 2, 3)


class NoCredentialsError(Exception):
    """As botocore raises it; it is no OSError."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoCredentialsError("Unable to locate\ncredentials"), "NoCredentialsError: Unable to locate credentials"),
        (PermissionError("Access Denied"), "Access Denied"),
        (FileNotFoundError("bucket/pets"), "no such object"),
    ],
)
def test_errors_of_the_object_store_are_one_line(
    error: Exception, message: str, memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def refuse(self: MemoryFileSystem, path: str, **_: object) -> None:
        attempts.append(path)
        raise error

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(ReproError, match=re.escape(message)) as raised:
        prepare("folder", tmp_path / "store", source=Path(f"{BUCKET}/pets"), size=16)
    assert f"'{BUCKET}/pets'" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(attempts) == 1  # another attempt would not help
    assert not (tmp_path / "store").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    words = r'^\'s3://bucket/pets\' cannot .* \(Install s3fs to access S3\): pip install "\.\[remote\]" in the clone'
    with pytest.raises(ReproError, match=words):
        open_source("folder", Path("s3://bucket/pets"), 0)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a b/c", "s3://bucket/a b/c"),
        ("s3:/bucket/pets", "s3://bucket/pets"),
        (r"S3:\bucket\pets", "s3://bucket/pets"),
        ("/data/pets", None),
        (r"C:\data\pets", None),
        ("pets:/cat", "pets://cat"),
    ],
)
def test_urls_are_recognised_after_path_has_changed_them(path: str, url: str | None) -> None:
    assert remote.url_of(path) == url


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    pets = write_pictures(tmp_path / "pets", {"cat": 2, "dog": 2})
    images = open_source("folder", Path(f"file://{pets.as_posix()}"), 0)
    assert {reference.name for split in images.splits.values() for reference in split} == {
        f"{name}/{number}.jpg" for name in ("cat", "dog") for number in (0, 1)
    }


def test_amazons_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With s3fs and a local server in place of S3: images, a store, and credentials that are missing."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        local = prepare("synthetic", tmp_path / "store", size=16, limit_per_class=1, workers=1)
        pets = write_pictures(tmp_path / "pets", {"cat": 2, "dog": 2})
        fsspec.filesystem("s3").mkdir("bucket")
        for folder in (local.path, pets):
            fsspec.filesystem("s3").put(str(folder), f"bucket/{folder.name}", recursive=True)
        there = open_store(Path("s3://bucket/store")).splits["train"]
        assert np.array_equal(there.images(np.arange(10)), local.splits["train"].images(np.arange(10)))
        images = open_source("folder", Path("s3://bucket/pets"), 0).splits["train"]
        assert [each.read() for each in images] == [(pets / each.name).read_bytes() for each in images]
        with pytest.raises(ReproError, match=r"^no such object or folder: 's3://bucket/birds': give --source"):
            open_source("folder", Path("s3://bucket/birds"), 0)
    finally:
        server.stop()
