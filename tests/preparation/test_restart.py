"""Stopped at any moment, `prepare` resumes, and the store is the same as without an interruption."""

import errno
import filecmp
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import kill_at_file_event, picture, small_disk, write_pictures
from official_archives import write_ilsvrc2012

import repro.preparation.assembly
import repro.preparation.prepare
import repro.preparation.staging
from repro.data.store import open_store
from repro.errors import ReproError, Stopped
from repro.preparation.prepare import prepare
from repro.preparation.shards import make_shard
from repro.preparation.sources.tree import FileReference

KILLS, STATES, PROCESSES = 20, 5, 200

SCRIPT = """
import sys, time
from pathlib import Path
from repro.preparation import prepare
if __name__ == "__main__":
    prepare.SHARD_IMAGES, prepare.POOL_IMAGES = 8, 1
    prepare.prepare("folder", Path(sys.argv[2]), source=Path(sys.argv[1]), size=32, workers=int(sys.argv[3]),
                    on_progress=lambda done, total: print(done, flush=True))
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", {"train/a": 70, "train/b": 50, "val/a": 20, "val/b": 20}, "PNG")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 8)


def start(images: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    root = str(Path(repro.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, images, out, str(workers)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}, start_new_session=True,
    )  # fmt: skip


def same_files(one: Path, other: Path) -> bool:
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


def inodes(staging: Path) -> dict[str, int]:
    """Return the inode of each finished shard in a staging area."""
    names = [path.relative_to(staging / "notes").with_suffix(".npy") for path in (staging / "notes").rglob("*.json")]
    return {str(name): (staging / "store" / name).stat().st_ino for name in names}


def test_killed_several_times_it_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    whole = prepare("folder", tmp_path / "whole", source=images, size=32)
    out, staging = tmp_path / "killed", tmp_path / ".killed.partial"
    done: dict[str, int] = {}
    for lines, workers in [(3, 1), (2, 2), (6, 1)]:
        running = start(images, out, workers)
        assert running.stdout
        for _ in range(lines):
            assert running.stdout.readline()
        running.kill()  # SIGKILL to the main process only: its workers must exit by themselves
        running.wait()
        running.stdout.read()  # until the last worker has exited
        running.stdout.close()
        assert not out.exists()
        with pytest.raises(ReproError, match=r"no store|not a complete store"):
            open_store(out)
        after = inodes(staging)
        assert done.items() <= after.items()  # finished shards are not made again
        assert len(after) >= len(done)
        done = after
    assert len(done) >= 8
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "make_shard", lambda task: (made.append(task.file), make_shard(task)))
        store = prepare("folder", out, source=images, size=32)
    assert same_files(whole.path, store.path)
    assert not staging.exists()
    assert not done.keys() & set(made)
    assert len(made) + len(done) == 20


@pytest.mark.parametrize("moment", ["manifest", "labels", "rename"])
def test_stopped_at_the_end_it_resumes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    whole = prepare("folder", tmp_path / "whole", source=images, size=16)

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        if moment == "rename":
            replace = os.replace
            patch.setattr(os, "replace", lambda path, to: stop() if to == out else replace(path, to))
        else:
            module, function = {
                "manifest": (repro.preparation.prepare, "write_manifest"),
                "labels": (repro.preparation.assembly, "write_array"),
            }[moment]
            patch.setattr(module, function, stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", out, source=images, size=16)
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "make_shard", stop)
        assert same_files(prepare("folder", out, source=images, size=16).path, whole.path)


@pytest.mark.parametrize("left", ["everything", "the plan"])
def test_killed_after_the_store_was_moved_only_the_staging_area_is_removed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    whole = prepare("folder", tmp_path / "whole", source=images, size=16)
    out, staging = tmp_path / "killed", tmp_path / ".killed.partial"

    def stop(staging: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repro.preparation.staging, "_remove", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", out, source=images, size=16)
    with pytest.raises(ReproError, match="is not empty"):
        prepare("folder", out, source=images, size=24)  # other settings
    if left == "the plan":
        shutil.rmtree(staging / "notes")
        (staging / "lock").unlink()
    monkeypatch.setattr(repro.preparation.prepare, "make_shard", None)
    assert same_files(prepare("folder", out, source=images, size=16).path, whole.path)
    assert not staging.exists()
    with pytest.raises(ReproError, match="is not empty"):
        prepare("folder", out, source=images, size=16)


def prepare_by_eights(images: Path, out: Path, kill_at: int | None = None, events: Any = None) -> None:
    """Prepare in one process; it kills itself at file event `kill_at`, and adds the number of events to `events`."""
    count = kill_at_file_event(out.name, kill_at) if events else int
    repro.preparation.prepare.SHARD_IMAGES = 8
    prepare("folder", out, source=images, size=32, workers=1)
    if events:
        events.value = count()


def test_dozens_of_kills_at_random_moments(images: Path, tmp_path: Path) -> None:
    # A server that has imported the program and forks: each process starts within milliseconds.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pytest", "repro.data.sums", "repro.preparation.prepare"])
    whole, out, staging = tmp_path / "whole", tmp_path / "killed", tmp_path / ".killed.partial"
    events = processes.Value("i")
    exits: list[int | None] = []

    def run(out: Path, kill_at: int | None = None) -> None:
        process = processes.Process(target=prepare_by_eights, args=(images, out, kill_at, events))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        exits.append(process.exitcode)

    run(whole)
    moments, found, stores = random.Random(0), set(), 0
    assert events.value > 100
    while exits.count(-signal.SIGKILL) < KILLS or len(found) < STATES or not out.exists():
        assert len(exits) < PROCESSES, found
        if out.exists():
            shutil.rmtree(out)
        before = inodes(staging)
        run(out, moments.randint(1, events.value))
        if out.exists():
            if staging.exists():  # killed while it was removed
                prepare_by_eights(images, out)
            assert same_files(whole, out)
            stores += 1
        else:
            assert before.items() <= inodes(staging).items()  # finished shards are not made again
            found.add(len(inodes(staging)))
    print(f"{exits.count(-signal.SIGKILL)} kills for {stores} stores, with {sorted(found)} finished shards")


def test_a_killed_worker_is_one_line_and_finished_shards_are_kept(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro.preparation.prepare, "POOL_IMAGES", 1)

    def kill_one(done: int, total: int) -> None:
        if 30 < done < 40:
            worker = multiprocessing.active_children()[0]
            worker.kill()
            worker.join()

    with pytest.raises(ReproError, match=r"a worker process was killed.*try --workers 1; \d+ shards are kept"):
        prepare("folder", tmp_path / "store", source=images, size=16, workers=2, on_progress=kill_one)
    store = prepare("folder", tmp_path / "store", source=images, size=16, workers=1)
    assert same_files(store.path, prepare("folder", tmp_path / "whole", source=images, size=16).path)


def test_a_signal_reports_the_shards_that_are_kept(images: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 30:
            raise Stopped(signal.SIGTERM, "stopped")

    with pytest.raises(Stopped, match=r"4 shards are kept in .*: run the same command again to resume") as error:
        prepare("folder", tmp_path / "store", source=images, size=16, on_progress=stop)
    assert error.value.signal == signal.SIGTERM
    seen: list[int] = []
    prepare("folder", tmp_path / "store", source=images, size=16, on_progress=lambda done, total: seen.append(done))
    assert seen[:2] == [32, 40]


def stop_after(images: Path, out: Path, count: int, **options: Any) -> None:
    def stop(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("folder", out, source=images, on_progress=stop, **options)


def test_other_settings_are_refused_and_named(images: Path, tmp_path: Path) -> None:
    stop_after(images, tmp_path / "store", 40, size=16)
    with pytest.raises(ReproError, match=r"other settings \(size was 16 and is now 24\).*\.store\.partial"):
        prepare("folder", tmp_path / "store", source=images, size=24)
    with pytest.raises(ReproError, match="encoding was raw and is now jpeg"):
        prepare("folder", tmp_path / "store", source=images, size=16, encoding="jpeg")
    prepare("folder", tmp_path / "store", source=images, size=16)


def test_shards_whose_images_were_removed_are_made_again(images: Path, tmp_path: Path) -> None:
    """Images that are removed between two calls leave no trace in the store."""
    stop_after(images, tmp_path / "store", 150, size=16)
    for number in (3, 4, 60):
        (images / f"train/a/{number}.jpg").unlink()
    for path in images.glob("val/b/1*.jpg"):
        path.unlink()
    store = prepare("folder", tmp_path / "store", source=images, size=16)
    assert same_files(store.path, prepare("folder", tmp_path / "whole", source=images, size=16).path)


def prepare_with_notes(images: Path, out: Path, **options: Any) -> tuple[Path, str]:
    """Prepare a store; return its path and the notes, a line each."""
    notes: list[str] = []
    return prepare("folder", out, source=images, size=16, on_note=notes.append, **options).path, "\n".join(notes)


def test_shards_of_another_source_are_made_again(images: Path, tmp_path: Path) -> None:
    """The second source has files of the same names and labels, but other pictures."""
    other = tmp_path / "other"
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        target = other / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture(9000 + number, format="PNG"))
    stop_after(images, tmp_path / "store", 40, size=16)
    store, notes = prepare_with_notes(other, tmp_path / "store")
    assert same_files(store, prepare_with_notes(other, tmp_path / "whole")[0])
    assert "making 5 finished shards again: images were changed" in notes
    assert "train/a/0.jpg" in notes


@pytest.mark.parametrize("change", ["content", "same length", "same content and length, but newer"])
def test_a_shard_with_a_changed_file_is_made_again(images: Path, tmp_path: Path, change: str) -> None:
    changed = images / "train/a/18.jpg"  # in the second shard, by order of names
    stop_after(images, tmp_path / "store", 40, size=16)
    before = inodes(tmp_path / ".store.partial")
    if change == "content":
        changed.write_bytes(picture(7, 50, 50, "PNG"))
    elif change == "same length":
        content = changed.read_bytes()
        other = picture(7, format="BMP")
        changed.write_bytes(other.ljust(len(content), b"\0")[: max(len(content), len(other))])
        os.utime(changed, ns=(1, 1))
    else:
        os.utime(changed)
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "make_shard", lambda task: (made.append(task.file), make_shard(task)))
        store, notes = prepare_with_notes(images, tmp_path / "store")
    assert same_files(store, prepare_with_notes(images, tmp_path / "whole")[0])
    assert "making 1 finished shard again" in notes
    assert "'train/a/18.jpg'" in notes
    assert before.keys() & set(made) == {"train/00001.npy"}


def test_the_same_files_under_another_spelling_are_not_read_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("images")
    for number, spelling in enumerate((Path("images"), Path("link"), images / ".." / "images")):
        out = tmp_path / f"store{number}"
        stop_after(images, out, 40, size=16)
        monkeypatch.chdir(tmp_path)
        _, notes = prepare_with_notes(spelling, out)
        assert "40 images are finished" in notes
        assert "again" not in notes


def test_a_repaired_file_is_read_again(images: Path, tmp_path: Path) -> None:
    whole = prepare_with_notes(images, tmp_path / "whole")[0]
    broken = images / "train/a/18.jpg"
    content = broken.read_bytes()
    for name, options in (("strict", {}), ("partial", {"allow_partial": True})):
        broken.write_bytes(b"")
        with pytest.raises(ReproError, match=r"1 of 16 images cannot be used.*train/a/18\.jpg"):
            prepare_with_notes(images, tmp_path / name)
        broken.write_bytes(content)
        store, notes = prepare_with_notes(images, tmp_path / name, **options)
        assert same_files(whole, store)
        assert "making 1 finished shard again" in notes


def test_a_file_that_could_not_be_read_is_read_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions and disks are repaired without any change of the file."""
    whole = prepare_with_notes(images, tmp_path / "whole")[0]
    read = FileReference.read

    def fail(reference: FileReference) -> bytes:
        if reference.name == "train/a/18.jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(reference)

    with monkeypatch.context() as patch:
        patch.setattr(FileReference, "read", fail)
        with pytest.raises(ReproError, match=r"train/a/18\.jpg' \(cannot be read: Input/output error\)"):
            prepare_with_notes(images, tmp_path / "store")
    assert same_files(whole, prepare_with_notes(images, tmp_path / "store", allow_partial=True)[0])


def test_a_shard_of_a_changed_archive_is_made_again(tmp_path: Path) -> None:
    """The archive has the same length and its members the same offsets."""
    source = write_ilsvrc2012(tmp_path / "2012")
    archive = source / "ILSVRC2012_img_train.tar"
    options: Any = {"source": source, "size": 16, "allow_partial": True}

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("ilsvrc2012", tmp_path / "store", on_progress=stop, **options)
    content = bytearray(archive.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 20] = bytes(20)  # the first image can no longer be decoded
    archive.write_bytes(content)
    store = prepare("ilsvrc2012", tmp_path / "store", **options)
    assert len(store.manifest["rejected"]) == 1
    assert same_files(store.path, prepare("ilsvrc2012", tmp_path / "whole", **options).path)


def test_a_finished_store_of_another_source_is_not_returned(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed at the very end leaves the staging area beside the store."""
    other = Path(shutil.copytree(images, tmp_path / "other"))

    def stop(staging: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repro.preparation.staging, "_remove", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", tmp_path / "store", source=images, size=16)
    with pytest.raises(ReproError, match="is not empty"):
        prepare("folder", tmp_path / "store", source=other, size=16)
    assert len(prepare("folder", tmp_path / "store", source=images, size=16).splits["train"]) == 120


def test_a_truncated_shard_is_made_again(images: Path, tmp_path: Path) -> None:
    stop_after(images, tmp_path / "store", 40, size=16)
    os.truncate(tmp_path / ".store.partial/store/train/00001.npy", 1000)
    store = prepare("folder", tmp_path / "store", source=images, size=16)
    assert same_files(store.path, prepare("folder", tmp_path / "whole", source=images, size=16).path)


def test_two_calls_for_the_same_store(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    refusals = []

    def again(done: int, total: int) -> None:
        with pytest.raises(ReproError, match="another `repro prepare` is writing") as error:
            prepare("folder", out, source=images, size=16)
        refusals.append(error)

    prepare("folder", out, source=images, size=16, on_progress=again)
    assert len(refusals) == 21
    with pytest.raises(ReproError, match="is not empty"):
        prepare("folder", out, source=images, size=16)
    assert not (tmp_path / ".store.partial").exists()


def test_two_processes_for_the_same_store(images: Path, tmp_path: Path) -> None:
    first = start(images, tmp_path / "store", 1)
    assert first.stdout
    assert first.stdout.readline()
    first.send_signal(signal.SIGSTOP)  # it keeps the lock meanwhile
    with pytest.raises(ReproError, match="another `repro prepare` is writing"):
        prepare("folder", tmp_path / "store", source=images, size=32)
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    whole = prepare("folder", tmp_path / "whole", source=images, size=32)
    assert same_files(whole.path, tmp_path / "store")


def test_a_lock_on_a_removed_file_does_not_count(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finished between opening and locking the file."""
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock

    def remove(file: Any, operation: int) -> None:
        (tmp_path / ".store.partial" / "lock").unlink(missing_ok=True)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove)
    with pytest.raises(ReproError, match="another `repro prepare`"):
        prepare("folder", tmp_path / "store", source=images, size=16)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_used_with_a_note(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    _, notes = prepare_with_notes(images, tmp_path / "store")
    assert "has no locks" in notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "store"]


def test_a_full_disk(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare("folder", tmp_path / "whole", source=images, size=32)
    with small_disk(tmp_path / "disk", 300) as disk:
        with pytest.raises(
            ReproError, match=r"needs 737\.3 kB, and the disk of '.*disk' has \d\d\d\.\d kB free.*--encoding jpeg"
        ):
            prepare("folder", disk / "store", source=images, size=32)
        assert not list(disk.iterdir())
        with monkeypatch.context() as patch:  # as if another program filled the disk meanwhile
            patch.setattr(repro.preparation.prepare, "check_disk_space", lambda *arguments: "")
            with pytest.raises(ReproError, match=r"No space left on device; \d+ shards are kept"):
                prepare("folder", disk / "store", source=images, size=32)
            assert not (disk / "store").exists()
            subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
            store = prepare("folder", disk / "store", source=images, size=32)
        assert same_files(whole.path, store.path)


def test_a_read_only_target(images: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ReproError, match=r"cannot write the store .*store.: Read-only file system"):
            prepare("folder", disk / "store", source=images, size=16)
