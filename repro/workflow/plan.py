"""`repro plan`: disk space, operations and hours of an experiment, from a short measurement on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from repro.baselines.encoders import seconds_per_image
from repro.baselines.features import feature_bytes
from repro.baselines.model import model_shapes
from repro.errors import unknown
from repro.models.devices import autocast, check_precision, find_devices, float32_products
from repro.models.network import AlexNet
from repro.models.towers import to_devices
from repro.paper.arithmetic import count, parameters
from repro.paper.baselines import BASELINES, find_method
from repro.paper.datasets import DATASET_SIZES, dataset_size
from repro.paper.experiments import EXPERIMENTS
from repro.paper.networks import Network
from repro.paper.scales import SCALES
from repro.paper.variants import Configuration, configure
from repro.processors import available_processors
from repro.training.optim import build_optimiser
from repro.workflow.trainings import PlannedTraining, trainings_of

MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class Plan:
    """The cost of an experiment at one scale.

    Attributes:
        scale: name of the scale.
        runs: number of trainings.
        store_bytes: size of the stores.
        run_bytes: size of the runs' weights.
        operations: multiplications and additions of all trainings.
        speed: training speed of `alexnet` in images/s.
        hours: duration of all trainings.
        feature_bytes: disk space that the vectors of the baselines take until their runs are finished, in all.
        feature_hours: duration of describing all images on this machine's processors, without the classifiers.
    """

    scale: str
    runs: int
    store_bytes: int
    run_bytes: int
    operations: float
    speed: float
    hours: float
    feature_bytes: int = 0
    feature_hours: float = 0.0


def plan(
    experiment: str, device: str | None = None, precision: str = "fp32", paper_speed: float | None = None
) -> list[Plan]:
    """Return the cost of `experiment` at each scale, largest first.

    Operations are the multiplications and additions of the forward and backward passes. Hours are operations over the
    rate that a measured training step of `alexnet` reaches, or at the paper's scale over the rate that `paper_speed`,
    in images/s, implies. Loading, validation and evaluation are left out. Of a baseline, the hours are those of
    describing the images, at the speed of one processor on a few random images. Raises ReproError for an unknown name,
    and for a precision that the device only emulates.
    """
    if experiment not in EXPERIMENTS:
        raise unknown("experiment", experiment, EXPERIMENTS)
    requirements = EXPERIMENTS[experiment].requirements
    trainings = {each for requirement in requirements for each in trainings_of(requirement)}
    baselines = {(each.net, each.dataset) for each in requirements if each.net in BASELINES}
    plans = []
    for scale in SCALES:
        nets = _plan(trainings, scale, device, precision, paper_speed if scale == "paper" else None)
        plans.append(_with_baselines(nets, sorted(baselines)))
    return plans


def _with_baselines(nets: Plan, baselines: Sequence[tuple[str, str]]) -> Plan:
    """Return the plan with the runs of `baselines`, methods and datasets, on the same stores."""
    scale = nets.scale
    # Datasets that one store replaces at this scale are described once.
    described = {(name, dataset_size(dataset, scale)) for name, dataset in baselines}
    stored, weights, seconds = 0, 0, 0.0
    for name, size in described:
        method, images = find_method(name, scale), size.train + size.val
        stored += feature_bytes(method, images)
        shapes = model_shapes(method, size.classes)
        weights += sum(4 * math.prod(shape) for shape in shapes.values())
        seconds += images * seconds_per_image(method, SCALES[scale].image_size) / available_processors()
    return replace(
        nets, runs=nets.runs + len(described), run_bytes=nets.run_bytes + weights, feature_bytes=stored,
        feature_hours=seconds / 3600,
    )  # fmt: skip


def _plan(trainings: set[PlannedTraining], scale: str, device: str | None, precision: str, speed: float | None) -> Plan:
    """Return the cost of `trainings` at a scale; `speed` None is measured."""
    alexnet = configure("alexnet", "authors", scale, dataset_size("ilsvrc2012", scale).classes)
    speed = speed or measured_speed(alexnet, device, precision)
    stores: dict[tuple[str, int], int] = {}
    operations, run_bytes = 0.0, 0
    for training in trainings:
        size = dataset_size(training.dataset, scale)
        configuration = configure(training.variant, "authors", scale, size.classes, training.dataset)
        pixels = configuration.scale.image_size
        replaced = size != DATASET_SIZES[training.dataset]  # by one dataset for all at this scale
        stores[scale if replaced else training.dataset, pixels] = size.total * pixels * pixels * 3
        operations += operations_per_image(configuration.network) * size.train * configuration.length
        run_bytes += 4 * parameters(configuration.network)
    hours = operations / (speed * operations_per_image(alexnet.network)) / 3600
    return Plan(scale, len(trainings), sum(stores.values()), run_bytes, operations, speed, hours)


def operations_per_image(network: Network) -> float:
    """Return the multiplications and additions of a training step per image, three times those of a forward pass."""
    return 6.0 * sum(row.multiplications for row in count(network))


def measured_speed(configuration: Configuration, device: str | None, precision: str) -> float:
    """Return the images/s of a training step on random images: forward pass, loss, backward pass and update."""
    devices = find_devices(device)
    check_precision(precision, devices[0])
    first = devices[0]
    model = to_devices(AlexNet(configuration.network).initialise(configuration.recipe.initialisation), devices)
    optimiser = build_optimiser(model, configuration.recipe)
    size = configuration.recipe.batch_size
    images = torch.randn(size, 3, configuration.network.input_size, configuration.network.input_size, device=first)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.zeros(size, dtype=torch.long, device=first)
    started, steps = 0.0, -1  # the first step warms up
    while steps < 1 or time.perf_counter() - started < MEASURE_SECONDS:
        with float32_products(precision), autocast(first, precision):
            loss = F.cross_entropy(model(images).float(), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss.item()  # waits for the device
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    return steps * size / (time.perf_counter() - started)
