"""The devices that nets run on, and the precisions that these are fast in."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from repro.errors import ReproError

BF16_SLOWDOWN = 29  # of training in bf16 on a CPU without bf16 instructions: 290 images/s in fp32, 10 in bf16 (AVX2)
# Levels of ONEDNN_MAX_CPU_ISA with bf16 instructions. Without the variable oneDNN uses all that the CPU has.
ONEDNN_BF16 = ("", "DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


def find_devices(names: str | None, rank: int = 0, ranks: int = 1) -> tuple[torch.device, ...]:
    """Return the one or two devices of the process that is `rank` of `ranks` on this machine.

    `names` lists the machine's devices, separated by commas, shared by the processes in order; `cpu`
    alone serves all of them. Without names each process has one GPU if there are GPUs (CUDA), else the CPU; Apple's
    GPU, `mps`, is used only by name. Raises ReproError if the devices cannot be shared or do not work.
    """
    if names is None:
        if not torch.cuda.is_available():
            return (_find("cpu"),)
        return (_find(f"cuda:{rank if torch.cuda.device_count() > 1 else 0}"),)  # a launcher may show each rank one GPU
    listed = names.split(",")
    if listed == ["cpu"]:
        listed *= ranks
    each, remainder = divmod(len(listed), ranks)
    if remainder or each not in (1, 2):
        processes = f"{ranks} processes" if ranks > 1 else "one process"
        raise ReproError(f"--devices {names} cannot be shared by {processes}: name one device for each, or two")
    return tuple(map(_find, listed[rank * each : (rank + 1) * each]))


def _find(name: str) -> torch.device:
    """Return the device called `name`, tried with a matrix product whose result is read back."""
    try:
        device = torch.device(name)
        ones = torch.ones(8, 8, device=device)
        if (ones @ ones).sum().item() != 512:
            raise RuntimeError("a matrix product is wrong")
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without support for it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReproError(f"no device '{name}' on this machine ({reason}): --devices cpu always works") from error
    return device


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Compute with `count` threads on the CPU, the loops of Numba included; None leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ReproError if `device` would only emulate `precision`, "fp32" or "bf16", and so be many times slower."""
    if precision != "bf16" or has_fast_bf16(device):
        return
    if device.type == "cpu":
        raise ReproError(
            f"--precision bf16: this CPU has no bf16 instructions that torch can use, and training would take about "
            f"{BF16_SLOWDOWN} times as long as in fp32: use --precision fp32"
        )
    raise ReproError(f"--precision bf16: no fast bf16 is known of the device '{device}': use --precision fp32")


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether torch computes convolutions and matrix products in bf16 with instructions of `device`.

    On a CPU oneDNN computes them: with AVX512_BF16 or AMX on x86, unless ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA
    keeps torch or oneDNN from using them, and with the BF16 extension on ARM. Builds without oneDNN, such as those for
    Apple's processors, have no fast bf16, whatever the processor.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    level = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    if not (level in ONEDNN_BF16[:3] or level.startswith(ONEDNN_BF16[3:])):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10", "AMX")):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
