"""The devices that nets run on, and the precisions that these are fast in."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from repro.errors import ReproError
from repro.notes import note_once
from repro.processors import SHARED_PROCESSORS, available_processors

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # dtype of matrix products and convolutions
BF16_SLOWDOWN = 29  # of training in bf16 on a CPU without bf16 instructions: 290 images/s in fp32, 10 in bf16 (AVX2)
# Levels of ONEDNN_MAX_CPU_ISA with bf16 instructions. Without the variable oneDNN uses all that the CPU has.
ONEDNN_BF16 = ("", "DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


def find_devices(names: str | None, rank: int = 0, ranks: int = 1) -> tuple[torch.device, ...]:
    """Return the one or two devices of the process that is `rank` of `ranks` on this machine.

    `names` lists the machine's devices, separated by commas, shared by the processes in order; `cpu`
    alone serves all of them. Without names each process has one GPU if there are GPUs (CUDA), else the CPU; Apple's
    GPU, `mps`, is used only by name. Raises ReproError if the devices cannot be shared or do not work.

    On the CPU, torch computes with at most as many threads as this process may use processors.
    """
    if ranks == 1:
        _use_processors()
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


def _use_processors() -> None:
    """Set torch's number of threads by the processors of this process, unless the environment does; say if it is less.

    torch itself counts the processors of the machine, or those of the process's affinity, but ignores the CPU quota of
    a container. With more threads than the quota allows, all of them are stopped again and again.
    """
    asked, processors = os.environ.get("OMP_NUM_THREADS"), available_processors()
    if asked is None:
        torch.set_num_threads(min(torch.get_num_threads(), processors))
    elif torch.get_num_threads() < processors and SHARED_PROCESSORS not in os.environ:
        note_once(f"computing on {torch.get_num_threads()} of {processors} processors: OMP_NUM_THREADS is {asked}")


def _find(name: str) -> torch.device:
    """Return the device called `name`, tried with kernels and a matrix product whose result is read back."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            compute_deterministically()
        with warnings.catch_warnings():  # torch warns of GPUs that it has no kernels for
            warnings.simplefilter("ignore")
            ones = torch.ones(8, 8, device=device)
            if (ones @ ones).sum().item() != 512:
                raise RuntimeError("a matrix product is wrong")
    except (RuntimeError, AssertionError) as error:  # AssertionError if torch was built without support for it
        reason = _reason(error)
        if "no kernel image" in reason:
            reason = _lacking_kernels(device)
        raise ReproError(f"no device '{name}' on this machine ({reason}): --devices cpu always works") from error
    return device


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error; torch appends a list of all its backends to some."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return first_line.partition(". ")[0]


def _lacking_kernels(device: torch.device) -> str:
    """Return the reason why torch cannot use a GPU that the driver knows."""
    major, minor = torch.cuda.get_device_capability(device)
    return (
        f"torch {torch.__version__} has kernels for {', '.join(torch.cuda.get_arch_list())} and none for this "
        f"{torch.cuda.get_device_name(device)}, sm_{major}{minor}; another build of torch may have"
    )


def compute_deterministically() -> None:
    """Have this process's GPUs compute the same bits every time, with float32 as float32.

    It has to be called before the first computation on a GPU. A value of CUBLAS_WORKSPACE_CONFIG is kept.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add in another order each time
    torch.use_deterministic_algorithms(True)
    # A debugging aid that costs a pass over each new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # the fastest algorithm can differ from one process to the next
    _allow_tf32(False)


def _allow_tf32(allow: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allow
    torch.backends.cudnn.allow_tf32 = allow


def gpu_switches() -> dict[str, str]:
    """Return the settings that decide which bits this process's GPUs compute, by name; empty without GPUs."""
    if not torch.cuda.is_available():
        return {}
    matmul, cudnn, debugging = torch.backends.cuda.matmul, torch.backends.cudnn, torch.utils.deterministic
    switches: dict[str, object] = {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "fill_uninitialized_memory": debugging.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "unset"),
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": matmul.allow_tf32,
        "cuda.matmul.allow_fp16_reduced_precision_reduction": matmul.allow_fp16_reduced_precision_reduction,
        "cuda.matmul.allow_bf16_reduced_precision_reduction": matmul.allow_bf16_reduced_precision_reduction,
        "compiled_kernels": compiles_kernels(torch.device("cuda", torch.cuda.current_device())),
    }
    return {name: str(value) for name, value in switches.items()}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Compute float32 products and convolutions of GPUs in TF32 within the context if `precision` is "tf32"."""
    if precision != "tf32":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow_tf32(True)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a net computes on `device` in `precision`: mixed for "bf16" and "fp16"."""
    return torch.autocast(device.type, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)


def asynchronous(device: torch.device) -> bool:
    """Return whether `device` computes while the program runs on, in streams whose progress can be waited for."""
    return device.type != "cpu" and hasattr(torch.get_device_module(device), "current_stream")


class Reading:
    """Values of a tensor on their way to the CPU, without waiting for the device where that is `asynchronous`."""

    def __init__(self, tensor: Tensor) -> None:
        self._values, self._arrived = tensor, None
        if asynchronous(tensor.device):
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values = pinned.copy_(tensor, non_blocking=True)
            self._arrived = torch.get_device_module(tensor.device).current_stream(tensor.device).record_event()

    def values(self) -> list[float]:
        """Return the values; wait until everything that the device was given before this object has been done."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._values.tolist()
        return values


@cache
def compiles_kernels(device: torch.device) -> bool:
    """Return whether Triton compiles kernels for `device`, tried once.

    It does not on a CPU, where Numba's loops serve, on GPUs that Triton does not support, and where Triton or a C
    compiler is missing: torch's operators then compute the same, one after another.
    """
    if device.type != "cuda":
        return False
    try:
        from repro.models.triton_kernels import update

        weight, gradient, velocity = torch.ones(3, 2, device=device)
        update(weight, gradient, velocity, 1, 0, 1)
    except Exception as error:  # whatever the import, Triton or the C compiler raise
        note_once(f"Triton cannot compile for '{device}' ({_reason(error)}): training is slower without")
        return False
    return True


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
    """Raise ReproError if `device` does not have `precision`, one of PRECISIONS.

    It may only emulate bf16, and so be many times slower. TF32 exists on Nvidia's GPUs since Ampere, fast fp16 on those
    since Volta.
    """
    if precision == "fp32" or (precision == "bf16" and has_fast_bf16(device)):
        return
    if precision == "bf16" and device.type == "cpu":
        raise ReproError(
            f"--precision bf16: this CPU has no bf16 instructions that torch can use, and training would take about "
            f"{BF16_SLOWDOWN} times as long as in fp32: use --precision fp32"
        )
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if precision != "bf16" and capability >= {"tf32": (8, 0), "fp16": (7, 0)}[precision]:
        return
    use = "fp16 or fp32" if precision != "fp16" and capability >= (7, 0) else "fp32"
    raise ReproError(
        f"--precision {precision}: no fast {precision} is known of the device '{device}': use --precision {use}"
    )


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether torch computes convolutions and matrix products in bf16 with instructions of `device`.

    On a CPU oneDNN computes them: with AVX512_BF16 or AMX on x86, unless ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA
    keeps torch or oneDNN from using them, and with the BF16 extension on ARM. Builds without oneDNN, such as those for
    Apple's processors, have no fast bf16, whatever the processor.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
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
