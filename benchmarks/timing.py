"""How the benchmarks measure: candidates take turns, each time in a process of its own, and medians are compared.

Other work on a machine slows all of them alike, so it is the ratio that counts. A process of its own, because one
candidate's allocator, threads or caches would change another's time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, in which unit, against what, and the ratio asked for."""

    what: str
    reference: str
    ratio: float
    goal: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.reference} | {self.ratio:.2f} | {self.goal} |"


HEAD = "| what | against | ratio | goal |\n|---|---|---|---|"


def take_turns(
    candidates: Mapping[str, Callable[[], float]], rounds: int = 3, arguments: Sequence[str] = ()
) -> dict[str, float]:
    """The median of `rounds` answers of each candidate, in the candidates' own unit.

    Called with a candidate's name as its first argument, the program answers with that one's figure and ends; it is
    given `arguments` too.
    """
    if len(sys.argv) > 1 and sys.argv[1] in candidates:
        print(candidates[sys.argv[1]]())
        sys.exit()
    answers: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in candidates:
            words = [sys.executable, sys.argv[0], name, *arguments]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            answers[name].append(float(done.stdout.split()[-1]))
            print(f"{name}: {answers[name][-1]:.4g}", file=sys.stderr)
    return {name: statistics.median(values) for name, values in answers.items()}


def seconds(action: Callable[[], object], times: int = 5, warm_up: int = 2) -> float:
    """The median time of `action`, after so many runs to warm up."""
    for _ in range(warm_up):
        action()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
