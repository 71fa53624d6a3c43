"""Training batches from a store on one core, against torchvision's usual pipeline and against what a step needs.

    python benchmarks/batches.py [FOLDER]

FOLDER holds CLASS/*.jpg in full size; without it, photographs are made up. The pipeline decodes, cuts a random
224×224 patch of the picture scaled to 256, mirrors, and shifts the colours; the store was prepared at 256. The step is
that of the paper's net in bf16, on all cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from step import ours as training_step
from timing import HEAD, Row, take_turns
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from repro.data.sampling import draw_epoch
from repro.data.store import open_store
from repro.data.views import Views
from repro.models.allocator import keep_freed_memory
from repro.paper.recipes import AUTHORS
from repro.preparation.prepare import prepare

BATCH, IMAGES = 128, 512


def _photographs() -> Path:
    if len(sys.argv) > 2:
        return Path(sys.argv[2])
    folder = Path(tempfile.mkdtemp()) / "photographs"
    for number in range(64):
        coarse = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(folder / str(number % 2) / f"{number}.jpg", quality=90)
    return folder


class Shift(torch.nn.Module):
    """The paper's colour noise, as a transform: one shift for the picture."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[3, H, W] to the same."""
        return image + torch.randn(3, 1, 1) * 5


def pipeline() -> float:
    """Images a second of torchvision's transforms on one core."""
    torch.set_num_threads(1)
    crop = [v2.Resize(256), v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    transform = v2.Compose([*crop, v2.ToDtype(torch.float32), Shift()])
    folder = ImageFolder(str(_photographs()), transform)
    began = time.perf_counter()
    for start in range(0, IMAGES, BATCH):
        torch.stack([folder[place % len(folder)][0] for place in range(start, start + BATCH)])
    return IMAGES / (time.perf_counter() - began)


def ours() -> float:
    """Images a second of the trainer's batches on one core: read from the store, cut, mirrored, coloured."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as work:
        prepare("synthetic", Path(work) / "store", size=256, limit_per_class=200, workers=1)
        store = open_store(Path(work) / "store")
        train = store.splits["train"]
        views = Views(store.mean, store.covariance, 224, AUTHORS.augmentation, torch.device("cpu"))
        seen = 0
        for epoch in range(1, 5):
            draws = draw_epoch(0, epoch, len(train), views.margin, AUTHORS.augmentation)
            for start in range(0, len(train) - BATCH, BATCH):
                if epoch == 2 and start == 0:
                    began, seen = time.perf_counter(), 0
                batch = draws[start : start + BATCH]
                views.augment(train.images(batch.index), batch)
                seen += BATCH
        return seen / (time.perf_counter() - began)


CANDIDATES = {"pipeline": pipeline, "store": ours, "step": training_step(bf16=True)}

if __name__ == "__main__":
    folders = [] if len(sys.argv) > 1 and sys.argv[1] in CANDIDATES else sys.argv[1:]
    speed = take_turns(CANDIDATES, arguments=folders)
    print("images/s:", ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    print(HEAD)
    print(
        Row("batches from a store", "torchvision's pipeline on JPEG files", speed["store"] / speed["pipeline"], "≥ 10")
    )
    print(Row("batches from a store", "a training step, bf16", speed["store"] / speed["step"], "≥ 20"))
