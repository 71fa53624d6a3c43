"""From which data, when, where and with which software a result is computed."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import repro
from repro.data.store import SQUASH, Store
from repro.records.schema import ClassRecord, DataRecord, MachineRecord, Provenance


def data_record(store: Store) -> DataRecord:
    """Return the record of a store. Squashed images are a separate dataset, which no claim of the paper is about."""
    return DataRecord(
        dataset=f"{store.dataset}, squashed" if store.resize == SQUASH else store.dataset,
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
        versions={"repro": repro.__version__, **versions, "python": platform.python_version(), **_gpu_versions()},
        machine=current_machine(),
        git_revision=_git_revision(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def current_machine() -> MachineRecord:
    """Return the record of this machine."""
    import torch  # here: records of stores need no torch

    from repro.models.devices import gpu_switches, has_fast_bf16

    bf16 = ", bf16" if has_fast_bf16(torch.device("cpu")) else ""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return MachineRecord(
        platform=platform.platform(),
        processor=_processor(),
        instructions=torch.backends.cpu.get_cpu_capability() + bf16,
        cpus=os.cpu_count(),
        gpus=", ".join(gpus),
        switches=", ".join(f"{name} {value}" for name, value in gpu_switches().items()),
        threads=torch.get_num_threads(),
    )


def _gpu_versions() -> dict[str, str]:
    """Return the versions of CUDA (or ROCm), cuDNN (or MIOpen) and Nvidia's driver; empty without GPUs."""
    import torch

    if not torch.cuda.is_available():
        return {}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    versions = {"cuda": torch.version.cuda, "rocm": torch.version.hip, "cudnn": cudnn}
    drivers = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    versions["nvidia driver"] = drivers[0] if drivers else ""
    return {name: str(version) for name, version in versions.items() if version}


def _processor() -> str:
    """Return the processor's model name."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


@functools.cache  # the code of this process is that of its first result
def _git_revision() -> str:
    """Return the commit of the checkout, with "+changes" if there are uncommitted ones; empty outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    folder, _, revision = _output(*git, "rev-parse", "--show-toplevel", "HEAD").partition("\n")
    if not revision or Path(folder) != Path(__file__).resolve().parents[1]:
        return ""
    return revision + ("+changes" if _output(*git, "status", "--porcelain") else "")


def _output(*command: str) -> str:
    """Return what a program prints; empty if it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
