"""Time per image and peak memory for 1,000 to 100,000 images: prepare, the batches of an epoch, evaluation.

    python benchmarks/growth.py

The images have 32 pixels, so that costs that grow with their number show. Each line is measured in its own process.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repro.data.sampling import draw_epoch
from repro.data.store import open_store
from repro.data.views import Views
from repro.evaluation.predictions import predict
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.preparation.prepare import prepare

COUNTS = (1_000, 10_000, 100_000)


def _prepare(store: Path, count: int) -> None:
    """Prepare a folder of `count` images: a hundred different ones and hard links to them."""
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:
        for number in range(count):
            path = Path(folder) / "train" / str(number % 10) / f"{number}.jpg"
            if number < 100:
                path.parent.mkdir(parents=True, exist_ok=True)
                colours = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
                Image.fromarray(colours).resize((40, 32), Image.Resampling.BICUBIC).save(path)
            else:
                path.hardlink_to(Path(folder) / "train" / str(number % 10) / f"{number % 100}.jpg")
        prepare("folder", store, source=Path(folder), size=32)


def _batches(store: Path, count: int) -> None:
    opened = open_store(store)
    train, augmentation = opened.splits["train"], configure("alexnet").recipe.augmentation
    views = Views(opened.mean, opened.covariance, 24, augmentation, torch.device("cpu"))
    draws = draw_epoch(0, 1, len(train), views.margin, augmentation)
    for start in range(0, len(train), 128):
        batch = draws[start : start + 128]
        views.augment(train.images(batch.index), batch)


def _evaluate(store: Path, count: int) -> None:
    opened, configuration = open_store(store), configure("cifar-relu", scale="smoke", classes=10)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
    views = Views(opened.mean, opened.covariance, 32, configuration.recipe.augmentation, torch.device("cpu"))
    predict([model], views, opened.splits["train"])


STAGES = {"prepare": _prepare, "batches": _batches, "evaluate": _evaluate}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        stage, store, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
        STAGES[stage](store.with_name("warm-up") if stage == "prepare" else store, 1_000)  # imports, compilation
        began = time.perf_counter()
        STAGES[stage](store, count)
        taken = time.perf_counter() - began
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(1e6 * taken / count, peak / 1024)
        sys.exit()
    print("| stage | images | µs per image | peak memory of a process, MiB |\n|---|---|---|---|")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            for stage in STAGES:
                words = [sys.executable, sys.argv[0], stage, str(Path(folder) / "store"), str(count)]
                done = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
                print(f"| {stage} | {count:,} | {float(done[-2]):.0f} | {float(done[-1]):.0f} |")
