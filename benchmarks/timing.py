"""Measurement for the benchmarks: candidates take turns, each in its own process, and medians are compared.

Other work on a machine slows all candidates alike, so the ratio is what counts. Each runs in its own process, because
the allocator, threads and caches of one would change the time of another.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the results: what was measured, the reference, their ratio, and the goal for the ratio."""

    what: str
    reference: str
    ratio: float
    goal: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.reference} | {self.ratio:.2f} | {self.goal} |"


HEAD = "| what | against | ratio | goal |\n|---|---|---|---|"


def precisions() -> tuple[str, ...]:
    """Return the precisions to measure: bf16 only where the processor has instructions for it.

    Emulated bf16 is some 30 times slower than fp32 and says nothing about either.
    """
    import torch

    from repro.models.devices import has_fast_bf16

    return ("fp32", "bf16") if has_fast_bf16(torch.device("cpu")) else ("fp32",)


def print_machine() -> None:
    """Print what the numbers were measured on, and in which precisions."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{platform.machine()}, {capability}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    missing = "" if "bf16" in precisions() else "; bf16 is left out: this processor has no instructions for it"
    print(f"precisions: {', '.join(precisions())}{missing}")


def take_turns(
    candidates: Mapping[str, Callable[[], float]], rounds: int = 3, arguments: Sequence[str] = ()
) -> dict[str, float]:
    """Return the median of `rounds` measurements of each candidate, in the unit that the candidate returns.

    Each measurement runs this program with the candidate's name as its first argument, then `arguments`; called that
    way, the program prints the result of that candidate and exits.
    """
    if len(sys.argv) > 1 and sys.argv[1] in candidates:
        print(candidates[sys.argv[1]]())
        sys.exit()
    results: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in candidates:
            command = [sys.executable, sys.argv[0], name, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name].append(float(done.stdout.split()[-1]))
            print(f"{name}: {results[name][-1]:.4g}", file=sys.stderr)
    return {name: statistics.median(values) for name, values in results.items()}


def seconds(action: Callable[[], object], times: int = 5, warm_up: int = 2) -> float:
    """Return the median time of `times` calls of `action`, after `warm_up` calls."""
    for _ in range(warm_up):
        action()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
