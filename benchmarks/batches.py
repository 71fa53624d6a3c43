"""Speed of training batches from a store on one core, compared with torchvision's pipeline and a training step.

    python benchmarks/batches.py [FOLDER]

FOLDER holds full-size photographs as CLASS/*.jpg; without it, images are generated. The pipeline decodes, resizes to
256, takes a random 224×224 crop, flips, and shifts the colours; the store was prepared at 256. The step is that of the
paper's network on all cores, in the fastest precision of the processor.
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
from timing import HEAD, Row, precisions, print_machine, take_turns
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
    """The paper's colour augmentation as a transform: one random shift per image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape, [3, H, W]."""
        return image + torch.randn(3, 1, 1) * 5


def pipeline() -> float:
    """Return the images/s of torchvision's transforms on one core."""
    torch.set_num_threads(1)
    crop = [v2.Resize(256), v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    transform = v2.Compose([*crop, v2.ToDtype(torch.float32), Shift()])
    folder = ImageFolder(str(_photographs()), transform)
    began = time.perf_counter()
    for start in range(0, IMAGES, BATCH):
        torch.stack([folder[index % len(folder)][0] for index in range(start, start + BATCH)])
    return IMAGES / (time.perf_counter() - began)


def ours() -> float:
    """Return the images/s of the trainer's batches on one core: read from the store and augmented."""
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


PRECISION = precisions()[-1]
CANDIDATES = {"pipeline": pipeline, "store": ours, "step": training_step(bf16=PRECISION == "bf16")}

if __name__ == "__main__":
    folders = [] if len(sys.argv) > 1 and sys.argv[1] in CANDIDATES else sys.argv[1:]
    speed = take_turns(CANDIDATES, arguments=folders)
    print_machine()
    print("images/s:", ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    print(HEAD)
    print(
        Row("batches from a store", "torchvision's pipeline on JPEG files", speed["store"] / speed["pipeline"], "≥ 10")
    )
    print(Row("batches from a store", f"a training step, {PRECISION}", speed["store"] / speed["step"], "≥ 20"))
