"""Training speed of Figure 1's CIFAR-10 network, compared with a plain PyTorch loop.

python benchmarks/cifar.py
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import HEAD, Row, precisions, print_machine, take_turns
from torch.utils.data import DataLoader, TensorDataset

from repro.data.store import open_store
from repro.models.allocator import keep_freed_memory
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.preparation.prepare import prepare
from repro.training.loop import Step, train_epochs
from repro.training.settings import Settings
from repro.training.state import prepare_training

IMAGES, STEPS, WARM_UP = 12_800, 60, 10
PER_CLASS, BATCHES, EPOCHS = 256, 20, 4  # of the store; it holds a whole number of batches


def plain() -> float:
    """Return the images/s of the usual loop: float32, a DataLoader over tensors in memory, torch.optim.SGD."""
    configuration = configure("cifar-relu")
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
    rule = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8))
    loader = DataLoader(TensorDataset(images, torch.arange(IMAGES) % 10), batch_size=128, shuffle=True)
    mean = images.float().mean(0)
    for number, (batch, labels) in enumerate(itertools.islice(loader, WARM_UP + STEPS)):
        if number == WARM_UP:
            began = time.perf_counter()
        loss = F.cross_entropy(model(batch.float() - mean), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
    return 128 * STEPS / (time.perf_counter() - began)


def ours(precision: str) -> Callable[[], float]:
    """Return a function that measures the images/s of the trainer, reading from a store on disk."""

    def speed() -> float:
        keep_freed_memory()
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            prepare("synthetic", store, size=32, limit_per_class=PER_CLASS)
            training = prepare_training(Settings("cifar-relu", scale="paper", precision=precision), open_store(store))
            began, taken = 0.0, 0.0
            for event in train_epochs(training):
                if isinstance(event, Step) and event.epoch > 1:
                    # From step to step within an epoch: validation comes before the first one.
                    taken += time.perf_counter() - began if event.batch > 1 else 0.0
                    began = time.perf_counter()
                if training.epoch > 1 + EPOCHS:
                    break
            return 128 * EPOCHS * (BATCHES - 1) / taken

    return speed


CANDIDATES = {"plain": plain, **{precision: ours(precision) for precision in precisions()}}

if __name__ == "__main__":
    speed = take_turns(CANDIDATES)
    print_machine()
    print("images/s:", ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    print(HEAD)
    for precision, goal in zip(precisions(), ("–", "≥ 2.5"), strict=False):
        ratio = speed[precision] / speed["plain"]
        print(Row(f"training the CIFAR-10 network, {precision}", "plain PyTorch, fp32", ratio, goal))
