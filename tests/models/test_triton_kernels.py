"""Triton's kernels against float64: interpreted, because there is no GPU, and compiled for one without running them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_layers import NORMALIZATIONS, penalised_gradient
from torch import Tensor

import repro.models
from repro.models import layers
from repro.models.layers import TowerConv2d, convolve_separately
from repro.training import optim
from repro.training.optim import PaperSGD

pytest.importorskip("triton")
KERNELS = ("_forward", "_weighted", "_backward", "_update")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the kernels, whose kernels Triton's interpreter runs on tensors of the CPU, in use everywhere."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    name = "repro.models.triton_kernels"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(repro.models, "triton_kernels", module, raising=False)
    monkeypatch.setattr(layers, "_compiled", lambda x: module)
    monkeypatch.setattr(optim, "compiles_kernels", lambda device: True)
    monkeypatch.setattr(layers, "COMPILED_DTYPES", {"cpu": layers.COMPILED_DTYPES["cuda"]})
    return module


def results(layer: torch.nn.Module, a: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and the gradient of the input."""
    a = a.clone().requires_grad_()
    out = layer(a)
    return out.detach(), torch.autograd.grad(out, a, grad)[0]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_kernels_match_float64_to_rounding_forward_and_backward(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off, where a GPU rounds."""
    generator = torch.Generator().manual_seed(0)
    a, grad = (torch.randn(3, 12, 13, 5, generator=generator).mul(20).to(dtype) for _ in range(2))  # more than a block
    rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for one, exact in zip(results(layer, a, grad), results(layer, a.double(), grad.double()), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), exact, rtol=rounding, atol=20 * 1e-6)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_second_derivatives_and_any_batch(layer: torch.nn.Module) -> None:
    a = torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(0))
    second = penalised_gradient(layer, a)
    torch.testing.assert_close(second.double(), penalised_gradient(layer, a.double()), rtol=1e-4, atol=1e-5)
    for each in (a[:0], a[:1], a[:, :, :1, :1], a.transpose(2, 3)):
        out, _ = results(layer, each, torch.ones_like(each))
        torch.testing.assert_close(out.double(), layer(each.double()), rtol=1e-5, atol=1e-6)


def test_the_update_is_that_of_the_operators(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two learning rates, one of which drops, and gradients whose strides are not those of the weights."""
    after = []
    for compiled in (False, True):
        monkeypatch.setattr(optim, "compiles_kernels", lambda device, compiled=compiled: compiled)
        generator = torch.Generator().manual_seed(0)
        weights = [
            torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((5, 4, 3, 3), (300, 7), (4,))
        ]
        weights[0].data = weights[0].data.contiguous(memory_format=torch.channels_last)
        groups = [{"params": [weight], "lr": lr} for weight, lr in zip(weights, (0.1, 0.2, 0.1), strict=True)]
        rule = PaperSGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(3):
            rule.param_groups[1]["lr"] = (0.2, 0.02, 0.02)[step]
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            rule.step()
        after.append([*weights, *(rule.state[weight]["velocity"] for weight in weights)])
    torch.testing.assert_close(*after)


COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from repro.models import triton_kernels

for across, within in ((2, 0), (0, 2)):
    shape = {"across": across, "within": within, "tower": 48, "maps": 96, "height": 27, "width": 27, "block": 512}
    types = {"k": "fp32", "alpha": "fp32"} | dict.fromkeys(("x", "grad", "out"), "*bf16") | {"weighted": "*fp32"}
    types |= dict.fromkeys(("weight", "gradient", "velocity"), "*fp32") | {"count": "i32"}
    types |= dict.fromkeys(("momentum", "decay", "lr"), "fp32")
    for name in ("_forward", "_weighted", "_backward", "_update"):
        kernel = getattr(triton_kernels, name)
        signature = {each: types.get(each, "constexpr") for each in kernel.arg_names}
        constants = {each: value for each, value in shape.items() if each in kernel.arg_names}
        binary = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32)).asm["cubin"]
        print(name, binary[1:4].decode(), len(binary) > 5000)
"""


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """What the interpreter accepts need not compile. The binary is an ELF file that contains the kernel."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n") == [*[f"{name} ELF True" for name in KERNELS] * 2, ""], done.stderr


def test_towers_are_convolved_separately_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = TowerConv2d(8, 12, 3, 1, 1, groups=2).double()
    a, grad = (torch.randn(3, maps, 7, 5, generator=generator, dtype=torch.float64) for maps in (8, 12))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        a = a.contiguous(memory_format=memory_format).requires_grad_()
        inputs = (a, conv.weight, conv.bias)
        expected, found = conv(a), convolve_separately(*inputs, conv.stride, conv.padding, conv.dilation, conv.groups)
        torch.testing.assert_close(found, expected)
        for one, other in zip(
            torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
        ):
            torch.testing.assert_close(one, other)
        a = a.detach()
