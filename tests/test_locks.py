"""Locks between processes: exclusive, free again once their holder is gone, and optional where there are none."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from repro.errors import ReproError
from repro.locks import exclusive

HOLD = """
import sys, time
from pathlib import Path
from repro.locks import exclusive
with exclusive(Path(sys.argv[1]), "busy"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ReproError, match=r"^try later$"), exclusive(path, "try later"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with exclusive(path, "try later"):
        pass


def test_a_second_lock_in_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path, "busy"), pytest.raises(ReproError, match=r"^busy$"), exclusive(path, "busy"):
        pass
    with exclusive(path, "busy"):
        pass


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"])
def test_without_locks_the_work_is_done_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(self: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    notes: list[str] = []
    with exclusive(tmp_path / ".lock", "busy", notes.append):
        (note,) = notes
    assert note.startswith(f"the file system of '{tmp_path / '.lock'}' has no locks (")
    with pytest.warns(RuntimeWarning, match="has no locks"), exclusive(tmp_path / ".lock", "busy"):
        pass


def test_a_lock_file_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReproError, match=r"^cannot lock '.*': "), exclusive(tmp_path / "file" / ".lock", "busy"):
        pass
