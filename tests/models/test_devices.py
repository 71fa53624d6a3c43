"""Choice of devices and the precisions that they are fast in."""

import ast
import os
import platform
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repro.compiled_loops import LoopsUnavailable
from repro.data import patches
from repro.data.store import Store
from repro.errors import ReproError
from repro.evaluation.nearest_neighbours import squared_distances
from repro.evaluation.predictions import predict
from repro.evaluation.retrieve import centre_pixels
from repro.models import devices
from repro.models.devices import PRECISIONS, check_precision, find_devices, has_fast_bf16
from repro.processors import SHARED_PROCESSORS
from repro.training.loop import train_epochs
from repro.training.settings import Settings
from repro.training.state import prepare_training

CPU = torch.device("cpu")


def test_default_is_the_cpu_without_cuda_even_if_there_is_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_devices(None) == (CPU,)
    assert find_devices("cpu,cpu") == (CPU, CPU)
    assert find_devices("cpu", rank=3, ranks=4) == (CPU,)


@pytest.mark.parametrize(("processors", "asked", "threads"), [(1, None, 1), (8, None, 2), (1, "2", 2), (8, "2", 2)])
def test_threads_follow_the_processors_of_a_container_unless_the_environment_sets_them(
    monkeypatch: pytest.MonkeyPatch, processors: int, asked: str | None, threads: int
) -> None:
    """With two threads at first; fewer than there are processors are noted if the environment asks for them."""
    before, notes = torch.get_num_threads(), []
    monkeypatch.setattr(devices, "available_processors", lambda: processors)
    monkeypatch.setattr(devices, "note_once", notes.append)
    monkeypatch.delenv(SHARED_PROCESSORS)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    else:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    try:
        find_devices("cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    unused = asked and processors == 8
    assert notes == (["computing on 2 of 8 processors: OMP_NUM_THREADS is 2"] if unused else [])
    monkeypatch.setenv(SHARED_PROCESSORS, "1")
    find_devices("cpu")
    assert len(notes) == bool(unused)


@pytest.mark.parametrize("name", ["meta", "toaster", "cpu:x", "mps", "xla"])
def test_a_device_must_compute(name: str) -> None:
    """`meta` makes tensors, but has no values."""
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(
        ReproError, match=rf"no device '{name}' on this machine \(.+\): --devices cpu always works"
    ) as error:
        find_devices(name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300  # torch lists some fifty backends


def processor(monkeypatch: pytest.MonkeyPatch, machine: str, capability: str, bf16: bool, mkldnn: bool = True) -> None:
    """Let torch report a processor: its architecture, its vector instructions, bf16, and whether oneDNN is built in."""
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: bf16))


@pytest.mark.parametrize(
    ("machine", "capability", "bf16", "mkldnn", "fast"),
    [
        ("x86_64", "AVX512", True, True, True),
        ("AMD64", "AVX512", True, True, True),
        ("x86_64", "AVX512", False, True, False),
        ("x86_64", "AVX2", True, True, False),  # as with ATEN_CPU_CAPABILITY=avx2
        ("x86_64", "AVX2", False, True, False),
        ("aarch64", "SVE256", True, True, True),
        ("aarch64", "DEFAULT", False, True, False),
        ("arm64", "DEFAULT", True, False, False),  # torch for Apple's processors is built without oneDNN
    ],
)
def test_fast_bf16_by_processor(
    monkeypatch: pytest.MonkeyPatch, machine: str, capability: str, bf16: bool, mkldnn: bool, fast: bool
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    processor(monkeypatch, machine, capability, bf16, mkldnn)
    assert has_fast_bf16(CPU) == fast


@pytest.mark.parametrize(
    ("level", "fast"),
    [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_VNNI", False), ("avx512_core_bf16", True), ("ALL", True)],
)
def test_fast_bf16_within_the_limit_of_onednn(monkeypatch: pytest.MonkeyPatch, level: str, fast: bool) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", level)
    processor(monkeypatch, "x86_64", "AVX512", True)
    assert has_fast_bf16(CPU) == fast


@pytest.mark.parametrize("variable", ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"])
def test_no_fast_bf16_on_an_older_processor(variable: str) -> None:
    program = "import torch; from repro.models.devices import has_fast_bf16 as f; print(f(torch.device('cpu')))"
    command = [sys.executable, "-c", program]
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the variable limits x86 processors")
    printed = subprocess.run(command, env=os.environ | {variable: "avx2"}, capture_output=True, text=True, check=True)
    assert printed.stdout == "False\n"


class WithoutFloat64(TorchDispatchMode):
    """Raise the error of a device without float64, such as Apple's GPUs, for each operator that returns it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for each in results if isinstance(results, tuple | list) else (results,):
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{function} returns float64")
        return results


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_training_and_prediction_do_not_need_float64(
    recipe: str, synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise LoopsUnavailable

    monkeypatch.setattr(patches, "_cut", unavailable)  # compiled loops run on a CPU only
    training = prepare_training(Settings("alexnet", recipe, "smoke"), synthetic_store)
    with WithoutFloat64():
        next(train_epochs(training))
        predictions = predict([training.model], training.views, synthetic_store.splits["test"], 10)
        images = torch.from_numpy(synthetic_store.splits["test"].images(np.arange(3)))
        pixels = centre_pixels(training.views, training.views.centre(images))
        squared_distances(pixels, pixels)
    assert len(predictions.labels) == len(synthetic_store.splits["test"])
    with pytest.raises(TypeError, match="returns float64"), WithoutFloat64():
        torch.zeros(1).double()


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> torch.device:
    """Let torch report an Nvidia GPU of a certain compute capability, and return it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: capability >= (8, 0))
    return torch.device("cuda:0")


@pytest.mark.parametrize(
    ("capability", "refused"),
    [
        ((9, 0), {}),  # H100
        ((8, 0), {}),  # A100
        ((7, 5), {"bf16": "fp16 or fp32", "tf32": "fp16 or fp32"}),  # T4, RTX 2080 Ti
        ((6, 1), {"bf16": "fp32", "tf32": "fp32", "fp16": "fp32"}),  # GTX 1080
    ],
)
def test_precisions_of_gpus(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], refused: dict[str, str]
) -> None:
    device = gpu(monkeypatch, capability)
    for precision in PRECISIONS:
        if precision in refused:
            message = f"--precision {precision}: no fast {precision} is known of the device 'cuda:0': use --precision "
            with pytest.raises(ReproError, match=f"^{message}{refused[precision]}$"):
                check_precision(precision, device)
        else:
            check_precision(precision, device)


def test_a_gpu_that_torch_has_no_kernels_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver knows it, but the first kernel that is launched fails."""

    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors ..."
        )

    monkeypatch.setattr(devices, "compute_deterministically", lambda: None)
    monkeypatch.setattr(torch, "ones", no_kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (5, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce GTX 750")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    message = (
        rf"^no device 'cuda:0' on this machine \(torch {re.escape(torch.__version__)} has kernels for sm_75, sm_90 and "
        r"none for this GeForce GTX 750, sm_50; another build of torch may have\): --devices cpu always works$"
    )
    with pytest.raises(ReproError, match=message):
        find_devices("cuda:0")


SWITCHES = """
import os, torch
from repro.models import devices
torch.cuda.is_available, torch.cuda.current_device = lambda: True, lambda: 0
devices.compiles_kernels = lambda device: False
devices.compute_deterministically()
print(devices.gpu_switches())
with devices.float32_products("tf32"):
    print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
with devices.float32_products("fp32"):
    print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
print(os.environ["CUBLAS_WORKSPACE_CONFIG"])
"""


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_switches_of_a_gpu(workspace: str | None) -> None:
    """Deterministic, and float32 without TF32 unless that is asked for, which torch by default uses in convolutions."""
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    environment |= {"CUBLAS_WORKSPACE_CONFIG": workspace} if workspace else {}
    command = [sys.executable, "-W", "error", "-c", SWITCHES]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ast.literal_eval(printed[0]) == {
        "deterministic_algorithms": "True",
        "fill_uninitialized_memory": "False",
        "CUBLAS_WORKSPACE_CONFIG": workspace or ":4096:8",
        "cudnn.benchmark": "False",
        "cudnn.allow_tf32": "False",
        "cuda.matmul.allow_tf32": "False",
        "cuda.matmul.allow_fp16_reduced_precision_reduction": "True",
        "cuda.matmul.allow_bf16_reduced_precision_reduction": "True",
        "compiled_kernels": "False",
    }
    assert printed[1:] == ["True True", "False False", workspace or ":4096:8"]


def test_operators_serve_where_triton_cannot_compile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where there is no C compiler."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler\nmore")

    monkeypatch.setattr(torch, "ones", fail)
    devices.compiles_kernels.cache_clear()
    assert not devices.compiles_kernels(CPU)
    assert not devices.compiles_kernels(torch.device("cuda:5"))
    assert "Triton cannot compile for 'cuda:5' (Failed to find C compiler): training is slower without" in caplog.text
    devices.compiles_kernels.cache_clear()


def test_slow_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: False)
    check_precision("fp32", CPU)
    with pytest.raises(ReproError, match="about 29 times as long as in fp32: use --precision fp32"):
        check_precision("bf16", CPU)
    for precision, device in (("bf16", "mps"), ("fp16", "mps"), ("tf32", "mps"), ("fp16", "cpu"), ("tf32", "cpu")):
        message = f"no fast {precision} is known of the device '{device}': use --precision fp32"
        with pytest.raises(ReproError, match=message):
            check_precision(precision, torch.device(device))
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: True)
    check_precision("bf16", CPU)
