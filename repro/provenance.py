"""From which data, when, where and with which software a result is computed."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import repro
from repro.data.store import Store
from repro.records import ClassRecord, DataRecord, MachineRecord, Provenance


def data_record(store: Store) -> DataRecord:
    """Return the record of a store."""
    return DataRecord(
        dataset=store.dataset,
        name=store.path.resolve().name,
        path=str(store.path),
        fingerprint=store.fingerprint,
        size=store.size,
        classes=tuple(ClassRecord(each.id, each.name) for each in store.classes),
        images={name: len(split) for name, split in store.splits.items()},
    )


def current_provenance() -> Provenance:
    """Return the provenance of a result whose computation starts now, in this process."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy")}
    return Provenance(
        versions={"repro": repro.__version__, **versions, "python": platform.python_version()},
        machine=MachineRecord(platform.platform(), _processor(), os.cpu_count()),
        git_revision=_git_revision(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _processor() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git_revision() -> str:
    """Return the commit of the checkout, with "+changes" if there are uncommitted ones; empty outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True)
        folder, _, revision = top.stdout.strip().partition("\n")
        if top.returncode != 0 or Path(folder) != Path(__file__).resolve().parents[1]:
            return ""
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return ""
    return revision + ("+changes" if status.stdout.strip() else "")
