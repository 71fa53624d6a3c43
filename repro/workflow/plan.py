"""`repro plan`: disk, operations and hours that an experiment takes, from a short measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from repro.errors import unknown
from repro.models.devices import find_devices
from repro.models.network import AlexNet
from repro.models.towers import to_devices
from repro.paper.arithmetic import count, parameters
from repro.paper.datasets import DATASET_SIZES, dataset_size
from repro.paper.experiments import EXPERIMENTS, Requirement
from repro.paper.networks import Network
from repro.paper.scales import SCALES
from repro.paper.variants import ENSEMBLES, Configuration, configure, find_variant
from repro.training.optim import build_optimiser

MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class Plan:
    """What an experiment takes at one scale; `speed` is the images/s of `alexnet`'s training step."""

    scale: str
    runs: int
    store_bytes: int
    run_bytes: int
    operations: float
    speed: float
    hours: float


@dataclass(frozen=True)
class _Run:
    variant: str
    dataset: str
    seed: int
    rate: float | None


def plan(
    experiment: str, device: str | None = None, precision: str = "fp32", paper_speed: float | None = None
) -> list[Plan]:
    """The cost of `experiment` at each scale, largest first.

    Operations are those of multiplying and adding in forward and backward pass. Hours are operations over the rate
    that a measured training step of `alexnet` reaches, or at the paper's scale that which `paper_speed`, in
    images/s, implies. Loading, validation and evaluation are left out. Raises ReproError for an unknown name.
    """
    if experiment not in EXPERIMENTS:
        raise unknown("experiment", experiment, EXPERIMENTS)
    runs = {run for need in EXPERIMENTS[experiment].requirements for run in _runs(need)}
    return [_plan(runs, scale, device, precision, paper_speed if scale == "paper" else None) for scale in SCALES]


def _plan(runs: set[_Run], scale: str, device: str | None, precision: str, speed: float | None) -> Plan:
    alexnet = configure("alexnet", "authors", scale, dataset_size("ilsvrc2012", scale).classes)
    speed = speed or measured_speed(alexnet, device, precision)
    stores: dict[tuple[str, int], int] = {}
    operations, run_bytes = 0.0, 0
    for run in runs:
        size = dataset_size(run.dataset, scale)
        configuration = configure(run.variant, "authors", scale, size.classes)
        pixels = configuration.scale.image_size
        stand_in = run.dataset if dataset_size(run.dataset, scale) == DATASET_SIZES[run.dataset] else scale
        stores[stand_in, pixels] = size.total * pixels * pixels * 3
        operations += operations_per_image(configuration.network) * size.train * configuration.epochs
        run_bytes += 4 * parameters(configuration.network)
    hours = operations / (speed * operations_per_image(alexnet.network)) / 3600
    return Plan(scale, len(runs), sum(stores.values()), run_bytes, operations, speed, hours)


def _runs(need: Requirement) -> Iterator[_Run]:
    """Every training that a need implies, those that others begin from included."""
    for variant, seeds in ENSEMBLES.get(need.net, ((need.net, need.seeds),)):
        rates = need.lrs or (None,)
        trainings = [(0, rate) for rate in rates] + [(seed, rates[0]) for seed in range(1, seeds)]
        for seed, rate in trainings:
            yield _Run(variant, need.dataset, seed, rate)
            if need.pretrained_on:
                yield _Run(variant, need.pretrained_on, seed, None)
            before = find_variant(variant).begins_from
            while before:
                yield _Run(before, find_variant(before).dataset, seed, None)
                before = find_variant(before).begins_from


def operations_per_image(network: Network) -> float:
    """Multiplications and additions of one training step per image: twice a forward pass's products, three times."""
    return 6.0 * sum(row.multiplications for row in count(network))


def measured_speed(configuration: Configuration, device: str | None, precision: str) -> float:
    """Images/s of the training step on random images: net, loss, gradient and update."""
    devices = find_devices(device)
    where = devices[0]
    model = to_devices(AlexNet(configuration.network).initialise(configuration.recipe.initialisation), devices)
    update = build_optimiser(model, configuration.recipe)
    size = configuration.recipe.batch_size
    images = torch.randn(size, 3, configuration.network.input_size, configuration.network.input_size, device=where)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.zeros(size, dtype=torch.long, device=where)
    started, steps = 0.0, -1  # the first step warms up
    while steps < 1 or time.perf_counter() - started < MEASURE_SECONDS:
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(images).float(), labels)
        update.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        update.step()
        loss.item()  # waits for the device
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    return steps * size / (time.perf_counter() - started)
