"""Training on a GPU in images/s, and as a share of what the GPU could reach: step, feed, whole training, ten views.

    python benchmarks/gpu.py [--device cuda:0] [--scale paper] [--steps 50]

Prints a table with a row for each precision that the device has. `step` is forward pass, backward pass and update on a
batch in the device's memory, `feed` reading, copying and augmenting batches without a step, `training` both as `repro
train` combines them, `ten views` the evaluation of stored images. The roofline is the speed at which either the
operations take as long as in a large matrix product, or each map, weight, gradient and velocity is moved between
memory and processor once, at the rate of a large copy; both rates are measured. Without a GPU the program prints a line
and exits with 3; `--device cpu` measures the CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from repro.data.reader import Request, read_ahead
from repro.data.sampling import draw_epoch
from repro.data.store import Store, Subset
from repro.errors import ReproError
from repro.evaluation.predictions import predict
from repro.models.allocator import keep_freed_memory
from repro.models.devices import AUTOCAST, PRECISIONS, autocast, check_precision, find_devices, float32_products
from repro.models.layers import DropoutMasks, use_dropout_masks
from repro.paper.arithmetic import count, parameters
from repro.paper.networks import Network
from repro.paper.scales import SCALES
from repro.preparation.prepare import prepare
from repro.provenance import current_machine, current_provenance
from repro.training.loop import Step, train_epochs
from repro.training.settings import Settings
from repro.training.state import Training, prepare_training
from repro.workflow.plan import operations_per_image

WARM_UP = 2  # steps that are not measured: kernels are chosen and compiled
HEAD = (
    "| precision | roofline | step | of the roofline | feed | training | of the roofline | ten views |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Speeds:
    """A row of the table, in images/s."""

    precision: str
    roofline: float
    step: float
    feed: float
    training: float
    ten_views: float

    def __str__(self) -> str:
        return (
            f"| {self.precision} | {self.roofline:,.0f} | {self.step:,.0f} | {self.step / self.roofline:.0%} "
            f"| {self.feed:,.0f} | {self.training:,.0f} | {self.training / self.roofline:.0%} | {self.ten_views:,.0f} |"
        )


def seconds(device: torch.device, action: Callable[[], object], times: int) -> float:
    """Return the time of an action on `device`, the mean of `times` after a few others."""
    for _ in range(WARM_UP):
        action()
    torch.get_device_module(device).synchronize()
    began = time.perf_counter()
    for _ in range(times):
        action()
    torch.get_device_module(device).synchronize()
    return (time.perf_counter() - began) / times


def roofline(network: Network, device: torch.device, precision: str, batch: int) -> float:
    """Return the images/s that the operations or the memory traffic of a training step allow, whichever are fewer."""
    side, length = (1024, 2**24) if device.type == "cpu" else (8192, 2**28)
    a, b = (torch.randn(side, side, device=device, dtype=AUTOCAST.get(precision, torch.float32)) for _ in range(2))
    operations_per_second = 2 * side**3 / seconds(device, lambda: a @ b, 5)
    source, target = (torch.zeros(length, device=device) for _ in range(2))
    bytes_per_second = 2 * 4 * length / seconds(device, lambda: target.copy_(source), 5)
    # A map is written and read forward, and its gradient backward. A weight is read in both passes; its gradient is
    # written and read, weight and velocity are read and written.
    maps = sum(row.maps * row.size**2 for row in count(network)) * 4 * a.element_size()
    weights = parameters(network) * (2 * a.element_size() + 6 * 4)
    return min(operations_per_second / operations_per_image(network), bytes_per_second / (maps + weights / batch))


def step_speed(training: Training, steps: int) -> float:
    """Return the images/s of forward pass, backward pass and update."""
    device, size = training.devices[0], training.configuration.recipe.batch_size
    masks = DropoutMasks(device)
    use_dropout_masks(training.model.train(), masks)
    side = training.configuration.network.input_size
    images = torch.randn(size, 3, side, side, device=device).mul_(60).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(size, device=device) % len(training.store.classes)

    def step() -> None:
        masks.begin(0, size, slice(0, size))
        with autocast(device, training.precision):
            logits = training.model(images)
        training.optimiser.zero_grad()
        training.scaler.scale(F.cross_entropy(logits.float(), labels)).backward()
        training.scaler.step(training.optimiser)
        training.scaler.update()

    return size / seconds(device, step, steps)


def feed_speed(training: Training, steps: int) -> float:
    """Return the images/s of batches that are read, copied and augmented."""
    train, views, size = training.store.splits["train"], training.views, training.configuration.recipe.batch_size
    draws = draw_epoch(0, 1, len(train), views.margin, training.configuration.recipe.augmentation)

    def requests() -> Sequence[Request]:
        parts = [draws[start : start + size] for start in range(0, size * (steps + WARM_UP), size)]
        return [Request(part.index, views.crops(part)) for part in parts]

    done, began = 0, 0.0
    for number, batch in enumerate(read_ahead(train, requests(), training.devices)):
        views.cut(batch.images, batch.columns)
        if number == WARM_UP - 1:
            torch.get_device_module(training.devices[0]).synchronize()
            began = time.perf_counter()
        elif number >= WARM_UP:
            done += len(batch.images)
    torch.get_device_module(training.devices[0]).synchronize()
    return done / (time.perf_counter() - began)


def training_speed(training: Training, steps: int) -> float:
    """Return the images/s of an epoch of `repro train`, without log and checkpoints."""
    began = 0.0
    for event in train_epochs(training):
        assert isinstance(event, Step)
        if event.batch in (WARM_UP, WARM_UP + steps):
            torch.get_device_module(training.devices[0]).synchronize()
            if event.batch == WARM_UP + steps:
                break
            began = time.perf_counter()
    return steps * training.configuration.recipe.batch_size / (time.perf_counter() - began)


def ten_view_speed(training: Training, steps: int) -> float:
    """Return the images/s of an evaluation with ten views, the second one, of 20 images for each step."""
    val = training.store.splits["val"]
    split = Subset(val, np.arange(min(len(val), 20 * steps)))
    for _ in range(2):
        began = time.perf_counter()
        predict([training.model], training.views, split, 10, training.precision)
    return len(split) / (time.perf_counter() - began)


def measure(settings: Settings, store: Store, steps: int) -> Speeds:
    """Return the speeds of a new net in one precision."""
    training = prepare_training(settings, store)
    network, size = training.configuration.network, training.configuration.recipe.batch_size
    with float32_products(settings.precision):
        return Speeds(
            settings.precision,
            roofline(network, training.devices[0], settings.precision, size),
            step_speed(training, steps),
            feed_speed(training, steps),
            training_speed(training, steps),
            ten_view_speed(training, steps),
        )


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", help="device to measure [default: the first GPU]")
    parser.add_argument("--scale", choices=SCALES, default="paper", help="size of the net [default: paper]")
    parser.add_argument("--precision", choices=PRECISIONS, help="precision to measure [default: all]")
    parser.add_argument("--steps", type=int, default=50, help="number of steps of a measurement [default: 50]")
    options = parser.parse_args()
    try:
        if options.device is None and not torch.cuda.is_available():
            raise ReproError("torch finds no GPU; --device cpu measures the CPU")
        (device,) = find_devices(options.device or "cuda:0")
    except ReproError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 3
    keep_freed_memory()
    machine, versions = current_machine(), current_provenance().versions
    print(f"{machine.gpus if device.type == 'cuda' else machine.processor}; {machine.switches or 'no GPU'}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    with tempfile.TemporaryDirectory() as folder:
        size = SCALES[options.scale].image_size
        store = prepare("synthetic", Path(folder) / "store", size=size)
        # Repeated to fill an epoch of that many steps.
        train = store.splits["train"]
        repeated = Subset(train, np.arange(128 * (options.steps + WARM_UP)) % len(train))
        store = replace(store, splits={**store.splits, "train": repeated})
        print(f"images/s, batches of 128, scale {options.scale}\n{HEAD}")
        for precision in (options.precision,) if options.precision else PRECISIONS:
            try:
                check_precision(precision, device)
            except ReproError:
                continue
            settings = Settings("alexnet", scale=options.scale, devices=str(device), precision=precision)
            print(measure(settings, store, options.steps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
