"""The pipeline where parts of a POSIX system are missing or refuse, as on macOS, Windows and network file systems.

Each simulation is a `sitecustomize` module, so that worker processes are simulated as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """
import sys, typer
from repro.cli.commands import app
commands = typer.main.get_command(app).commands
run = "runs/alexnet-authors-smoke-seed0"
if __name__ == "__main__":
    for line in (
        "prepare synthetic --out store --limit-per-class 2 --workers 2",
        "verify store",
        "train --variant alexnet --scale smoke --epochs 1 --data store --out runs",
        "train --variant alexnet --scale smoke --epochs 1 --data store --out runs --resume",
        f"verify {run}",
        f"evaluate {run} --data store --split test --views 1",
        f"retrieve {run} --data store",
        "report --runs runs --out report --compare",
    ):
        name, *words = line.split()
        commands[name](words, standalone_mode=False)
"""
SIMULATIONS = {
    "Windows: no fcntl, no POSIX functions, no POSIX signals": """
import os, signal, sys, warnings
warnings.filterwarnings("ignore", "only soft file lock is available")  # Windows has its own locks
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for name in ("posix_fadvise", "posix_fallocate", "sched_getaffinity", "geteuid", "getuid", "chown", "mkfifo"):
    vars(os).pop(name, None)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGKILL"):
    vars(signal).pop(name, None)
_open = os.open
def open_file(path, *arguments, **options):
    if os.path.isdir(path) and not options.get("dir_fd") and sys._getframe(1).f_code.co_filename.endswith("atomic.py"):
        raise PermissionError(13, "Permission denied", path)
    return _open(path, *arguments, **options)
os.open = open_file
""",
    "macOS on a shared folder: no posix_fadvise, no affinity, fsync of a folder fails with EINVAL": """
import errno, os, stat
for name in ("posix_fadvise", "posix_fallocate", "sched_getaffinity"):
    vars(os).pop(name, None)
_fsync = os.fsync
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    _fsync(descriptor)
os.fsync = fsync
""",
    "NFS without locks: flock fails with ENOLCK": """
import errno, fcntl, os
def refuse(*arguments):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = fcntl.lockf = refuse
""",
}
REFUSED_BY_WINDOWS = set('<>:"|?*\\')
RESERVED_BY_WINDOWS = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{number}" for name in ("com", "lpt") for number in range(10)),
}


@pytest.mark.parametrize("simulation", SIMULATIONS)
def test_the_pipeline_runs(simulation: str, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    (site / "sitecustomize.py").write_text(SIMULATIONS[simulation], encoding="utf-8")
    (tmp_path / "pipeline.py").write_text(PIPELINE, encoding="utf-8")
    root = str(Path(__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(site), root)),
        "PYTHONUTF8": "0",
        "LC_ALL": "C.UTF-8",
    }
    # Notes on missing locks are warnings; all others are errors.
    warnings = ("-W", "error", "-W", "default::RuntimeWarning")
    done = subprocess.run(
        [sys.executable, *warnings, str(tmp_path / "pipeline.py")],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert ("has no locks" in done.stderr) == ("ENOLCK" in simulation), done.stderr
    assert (work / "report" / "report.html").stat().st_size > 10_000
    paths = list(work.rglob("*"))
    assert not [path for path in paths if ".partial" in path.name]
    for path in paths:
        assert not REFUSED_BY_WINDOWS & set(path.name), path
        assert not path.name.endswith((".", " ")), path
        assert path.name.split(".")[0].lower() not in RESERVED_BY_WINDOWS, path
