"""How long a checkpoint of the network at the scale of the paper holds up training, written in a thread and without.

python benchmarks/checkpoint.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from timing import HEAD, Row, print_machine, take_turns
from torch import Tensor

from repro.models.network import build_model
from repro.models.towers import gather
from repro.training import checkpoint


class Network:
    """A network, and its velocities in the place of which the weights are saved again."""

    def __init__(self) -> None:
        self.step, self.model = 1, build_model()

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of weights and velocities."""
        named = self.model.named_parameters()
        return {f"{kind}{name}": gather([weight]) for name, weight in named for kind in ("", "velocity.")}

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}


def without_thread() -> float:
    """Return the seconds until a checkpoint is complete."""
    network = Network()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        checkpoint.save(Path(folder, "checkpoints"), network.step, network.tensors(), network.state())
        return time.perf_counter() - began


def in_thread() -> float:
    """Return the seconds after which training continues."""
    network = Network()
    with tempfile.TemporaryDirectory() as folder, checkpoint.Saver(Path(folder, "checkpoints")) as saver:
        began = time.perf_counter()
        saver.save(network)
        return time.perf_counter() - began


if __name__ == "__main__":
    taken = take_turns({"without": without_thread, "thread": in_thread})
    print_machine()
    print(f"seconds: {taken['without']:.2f} without a thread, {taken['thread']:.2f} with one")
    print(HEAD)
    print(Row("a checkpoint holds up training for", "writing it", taken["thread"] / taken["without"], "≤ 0.5"))
