"""Which devices the nets run on."""

from __future__ import annotations

import torch

from repro.errors import ReproError


def find_devices(names: str | None, rank: int = 0, ranks: int = 1) -> tuple[torch.device, ...]:
    """The one or two devices of the process that is `rank` of `ranks` on this machine.

    `names` lists the machine's devices, separated by commas; the processes share them out in order, but `cpu`
    alone serves all of them. Without names it is one GPU a process if there are GPUs, else the CPU. Raises
    ReproError if they cannot be shared out or are not there.
    """
    if names is None:
        return (_find(f"cuda:{rank}" if torch.cuda.is_available() else "cpu"),)
    listed = names.split(",")
    if listed == ["cpu"]:
        listed *= ranks
    each, over = divmod(len(listed), ranks)
    if over or each not in (1, 2):
        processes = f"{ranks} processes" if ranks > 1 else "one process"
        raise ReproError(f"--devices {names} cannot be shared by {processes}: name one device for each, or two")
    return tuple(map(_find, listed[rank * each : (rank + 1) * each]))


def _find(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the second where torch was built without such devices
        raise ReproError(f"no device '{name}' on this machine: --devices cpu always works") from error
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether `device` has bfloat16 instructions; without them a processor emulates bf16, some 30 times slower.

    Processors are asked through torch: AVX512_BF16 or AMX, unless ATEN_CPU_CAPABILITY keeps torch from using them.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AMX"):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
