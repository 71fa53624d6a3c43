"""Time of LRN, forward and backward, on conv1's output of a batch of 128, compared with torch and with memory speed.

python benchmarks/lrn.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timing import HEAD, Row, print_machine, seconds, take_turns
from torch import Tensor

from repro.models.allocator import keep_freed_memory
from repro.models.layers import LocalResponseNorm

SHAPE = (128, 96, 55, 55)
LRN = LocalResponseNorm(5, 2.0, 1e-4, 0.75)


def _maps(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    x, grad = (torch.randn(SHAPE).mul_(30).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2))
    return x.requires_grad_(), grad


def torch_lrn() -> float:
    """Return the seconds of `F.local_response_norm` in its faster memory format."""
    x, grad = (each.detach().contiguous() for each in _maps())
    x.requires_grad_()
    return seconds(lambda: torch.autograd.grad(F.local_response_norm(x, 5, 5e-4, 0.75, 2.0), x, grad), 3, 1)


def ours(dtype: torch.dtype) -> float:
    """Return the seconds of `LocalResponseNorm`."""
    keep_freed_memory()
    x, grad = _maps(dtype)
    return seconds(lambda: torch.autograd.grad(LRN(x), x, grad), 9)


def memory(dtype: torch.dtype) -> float:
    """Return the seconds to read and write once what the two passes do: x, y; then x, ∂L/∂y, ∂L/∂x."""
    keep_freed_memory()
    x, grad = (each.detach() for each in _maps(dtype))
    y, dx = torch.empty_like(x), torch.empty_like(x)

    def once() -> None:
        torch.neg(x, out=y)
        torch.add(x, grad, out=dx)

    return seconds(once, 9)


CANDIDATES = {
    "torch": torch_lrn,
    "fp32": lambda: ours(torch.float32),
    "bf16": lambda: ours(torch.bfloat16),
    "memory-fp32": lambda: memory(torch.float32),
    "memory-bf16": lambda: memory(torch.bfloat16),
}

if __name__ == "__main__":
    taken = take_turns(CANDIDATES)
    print_machine()
    print("ms:", ", ".join(f"{name} {1000 * value:.1f}" for name, value in taken.items()))
    print(HEAD)
    print(Row("LRN, forward and backward, fp32", "F.local_response_norm", taken["torch"] / taken["fp32"], "≥ 6"))
    print(Row("time of LRN, fp32", "reading and writing once", taken["fp32"] / taken["memory-fp32"], "≤ 2"))
    print(Row("time of LRN, bf16", "reading and writing once", taken["bf16"] / taken["memory-bf16"], "–"))
