"""Number of processors that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

SHARED_PROCESSORS = "REPRO_SHARED_PROCESSORS"  # set in processes that are meant to leave processors to others


def available_processors(root: Path = Path("/")) -> int:
    """Return the number of processors this process may use, at least 1.

    That is the number of logical processors of the machine, limited by the affinity of the process (`taskset`, batch
    systems) and by the CPU quota of its control groups (containers), rounded up. `root` is the root of the file system
    in which control groups are looked up.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(processors, _quota(root))))


def _quota(root: Path) -> float:
    """Return the smallest CPU quota of the control groups of this process, in processors; infinity without any."""
    quotas = [math.inf]
    for line in _lines(root / "proc/self/cgroup"):
        number, _, remainder = line.partition(":")
        controllers, _, path = remainder.partition(":")
        groups = [path, *Path(path).parents] if path.startswith("/") else []  # a parent's quota includes the children
        for group in dict.fromkeys(str(group).strip("/") for group in (*groups, "/")):
            if number == "0":  # version 2
                limit = _lines(root / "sys/fs/cgroup" / group / "cpu.max")
                quotas.append(_ratio(limit[0].split() if limit else []))
            elif "cpu" in controllers.split(","):  # version 1
                folder = root / "sys/fs/cgroup/cpu" / group
                quotas.append(_ratio(_lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")))
    return min(quotas)


def _ratio(words: list[str]) -> float:
    """Return quota / period of two words in microseconds; infinity if there is no quota."""
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such file
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
