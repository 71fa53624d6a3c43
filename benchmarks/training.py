"""Speed of `repro train` with data, log and checkpoints, compared with the bare step on one batch in memory.

    python benchmarks/training.py

At scale `small`: half the width, 112-pixel crops of 128-pixel images. A step is short there, so that everything around
it shows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import HEAD, Row, precisions, print_machine, take_turns

from repro.data.store import Store, open_store
from repro.models.allocator import keep_freed_memory
from repro.models.devices import autocast
from repro.models.layers import DropoutMasks, use_dropout_masks
from repro.preparation.prepare import prepare
from repro.training import train
from repro.training.loop import Step
from repro.training.settings import Settings
from repro.training.state import prepare_training

PER_CLASS, BATCHES, EPOCHS = 256, 20, 3  # a whole number of batches


def _store(folder: str) -> Store:
    path = Path(folder) / "store"
    prepare("synthetic", path, size=128, limit_per_class=PER_CLASS)
    return open_store(path)


def bare(precision: str) -> Callable[[], float]:
    """Return a function that measures the images/s of forward, backward and update alone."""

    def speed() -> float:
        keep_freed_memory()
        with tempfile.TemporaryDirectory() as folder:
            training = prepare_training(Settings("alexnet", precision=precision), _store(folder))
        masks = DropoutMasks(torch.device("cpu"))
        use_dropout_masks(training.model, masks)
        images = torch.randn(128, 3, 112, 112).mul_(60).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(128) % 10
        for number in range(BATCHES + 5):
            if number == 5:
                began = time.perf_counter()
            masks.begin(number, 128, slice(0, 128))
            with autocast(training.devices[0], precision):
                logits = training.model(images)
            loss = F.cross_entropy(logits.float(), labels)
            training.optimiser.zero_grad()
            loss.backward()
            training.optimiser.step()
        return 128 * BATCHES / (time.perf_counter() - began)

    return speed


def whole(precision: str) -> Callable[[], float]:
    """Return a function that measures the images/s of whole epochs, with checkpoints and log, without validation."""

    def speed() -> float:
        with tempfile.TemporaryDirectory() as folder:
            store = _store(folder)
            settings = Settings("alexnet", precision=precision, epochs=EPOCHS + 1)
            began, taken = 0.0, 0.0
            for event in train.train(settings, store.path, Path(folder) / "runs"):
                if isinstance(event, Step) and event.epoch > 1:
                    # From step to step within an epoch, so that a checkpoint between two steps counts.
                    taken += time.perf_counter() - began if event.batch > 1 else 0.0
                    began = time.perf_counter()
            return 128 * EPOCHS * (BATCHES - 1) / taken

    return speed


CANDIDATES = {f"{name} {precision}": make(precision) for precision in precisions()
              for name, make in (("bare", bare), ("whole", whole))}  # fmt: skip

if __name__ == "__main__":
    speed = take_turns(CANDIDATES)
    print_machine()
    print("images/s:", ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    print(HEAD)
    for precision in precisions():
        ratio = speed[f"whole {precision}"] / speed[f"bare {precision}"]
        print(Row(f"repro train, {precision}", "the bare step", ratio, "≥ 0.95"))
