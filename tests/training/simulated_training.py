"""Train on the simulated accelerator and print what happened, as JSON: `python simulated_training.py STORE OUT`."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated_accelerator import Counts, Simulated, install  # before repro

from repro.data.store import Store, open_store
from repro.errors import ReproError, Stopped
from repro.evaluation.predictions import mean_softmax
from repro.models.layers import DropoutMasks
from repro.records.schema import EpochRecord
from repro.training import loop
from repro.training.loop import train_epochs
from repro.training.settings import Settings
from repro.training.state import Training, prepare_training
from repro.training.train import train


class CountedMasks(DropoutMasks):
    """The masks of an accelerator, on the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.counted = True


def epoch(store: Store, devices: str, mode: Simulated) -> dict[str, Any]:
    """Train for an epoch of two updates; return its record, the weights, and what the second update asked for."""
    training = prepare_training(Settings("alexnet", "paper", "smoke", seed=1, epochs=1, devices=devices), store)
    events = train_epochs(training)
    next(events)
    mode.counts = Counts()
    next(events)
    counts, late, images = mode.counts, training.pending is not None, training.totals.images
    mode.counts = Counts()
    *_, record = events
    assert isinstance(record, EpochRecord)
    tensors = training.tensors()
    return {
        "counts": asdict(counts),
        "late": late,
        "images": images,
        "record": {name: value for name, value in asdict(record).items() if "second" not in name},
        "plain": all(type(each) is torch.Tensor and each.device.type == "cpu" for each in tensors.values()),
        "tensors": tensors,
        **ten_views(training, store, mode),
    }


def ten_views(training: Training, store: Store, mode: Simulated) -> dict[str, Any]:
    """Return the softmax outputs of a few images, averaged over ten views, and the convolutions they were given to."""
    images = store.splits["val"].images(np.arange(4))
    mode.counts = Counts()
    with torch.no_grad():
        softmaxes = mean_softmax(training.model.eval(), training.views, images, 10, "fp32").cpu()
    return {"ten views": softmaxes, "convolutions": sum("convolution" in name for name in mode.counts.launches)}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any tensor, relative to that tensor's largest value."""
    return max(((one[name] - other[name]).abs().max() / one[name].abs().max()).item() for name in one)


def diverging(store: Store) -> list[str]:
    """Return the errors of a run whose second loss is NaN: after the second update, and before it would be saved."""
    training = prepare_training(Settings("alexnet", "authors", "smoke", seed=1, devices="pretend:0"), store)
    events = train_epochs(training)
    next(events)
    with torch.no_grad():
        training.model.get_parameter("fc8.bias").fill_(torch.nan)
    next(events)
    errors = []
    for action in (training.check_finite, training.check_finite):
        try:
            action()
        except ReproError as error:
            errors.append(str(error))
    return errors


def resumed(store: Store, out: Path) -> bool:
    """Return whether a run that is stopped after its first update and resumed has the bits of an uninterrupted one."""
    settings = Settings("alexnet", "authors", "smoke", seed=1, epochs=1, devices="pretend:0")
    list(train(settings, store.path, out / "whole"))
    try:
        list(train(settings, store.path, out / "parts", stop_signal=lambda: signal.SIGTERM))
    except Stopped:
        list(train(settings, store.path, out / "parts", resume=True))
    whole, parts = (path.read_bytes() for path in sorted(out.rglob("weights.safetensors")))
    return whole == parts


def main() -> None:
    """Print the measurements."""
    mode = install()
    store = open_store(Path(sys.argv[1]))
    with mode:
        loop.DropoutMasks = CountedMasks  # type: ignore[misc]
        runs = {devices: epoch(store, devices, mode) for devices in ("cpu", "pretend:0", "pretend:0,pretend:1")}
        result = {"diverging": diverging(store), "resumed": resumed(store, Path(sys.argv[2]))}
    expected = runs["cpu"]
    for run in runs.values():
        run["difference"] = difference(expected["tensors"], run["tensors"])
        run["difference of ten views"] = (run["ten views"] - expected["ten views"]).abs().max().item()
    for run in runs.values():
        del run["tensors"], run["ten views"]
    print(json.dumps({**result, "runs": runs}))


if __name__ == "__main__":
    main()
