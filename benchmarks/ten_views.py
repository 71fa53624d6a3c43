"""Speed of evaluation with ten views, compared with one view: the paper's network, both recipes, float32.

The text's recipe subtracts the mean before cropping, so that views share more computation; the program's does so after.

python benchmarks/ten_views.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import HEAD, Row, print_machine, take_turns

from repro.data.store import Split, open_store
from repro.data.views import Views
from repro.evaluation.predictions import predict
from repro.models.allocator import keep_freed_memory
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.preparation.prepare import prepare

IMAGES = 512


def views(recipe: str, count: int) -> Callable[[], float]:
    """Return a function that measures the images/s with `count` views of a network by `recipe`."""

    def speed() -> float:
        keep_freed_memory()
        with tempfile.TemporaryDirectory() as work:
            store = open_store(prepare("synthetic", Path(work) / "store", size=256, limit_per_class=60).path)
            configuration = configure("alexnet", recipe, "paper")
            model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
            model = model.to(memory_format=torch.channels_last)
            maker = Views(store.mean, store.covariance, 224, configuration.recipe.augmentation, torch.device("cpu"))
            split: Split = store.splits["train"]
            predict([model], maker, split, 1)
            began = time.perf_counter()
            predict([model], maker, split, count)
            return len(split) / (time.perf_counter() - began)

    return speed


RECIPES = ("paper", "authors")
CANDIDATES = {f"{recipe}, {count} views": views(recipe, count) for recipe in RECIPES for count in (1, 10)}

if __name__ == "__main__":
    speed = take_turns(CANDIDATES)
    print_machine()
    print("images/s:", ", ".join(f"{name} {value:.1f}" for name, value in speed.items()))
    print(HEAD)
    for recipe, goal in zip(RECIPES, ("≤ 8", ""), strict=True):
        ratio = speed[f"{recipe}, 1 views"] / speed[f"{recipe}, 10 views"]
        print(Row(f"time of ten views, recipe {recipe}", "one view", ratio, goal))
