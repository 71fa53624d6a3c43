"""`repro activations`: statistics of the activations of each layer of a net on a split, after training or before.

They help to understand a net that does not learn: dead units, which are zero for every image, and layers whose
activations hardly differ between images. Writes `activations-<split>.json` into the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from repro import atomic
from repro.data.reader import Request, read_ahead
from repro.data.store import Split, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.command_lines import activations_argv, command_line
from repro.evaluation.predictions import BATCH, NOT_FINITE
from repro.evaluation.replicas import consecutive, replica_devices
from repro.evaluation.trained_model import network_of, open_run
from repro.models.network import AlexNet, initial_net, is_linear
from repro.paper.networks import Activation, Conv, Linear, Local
from repro.paper.recipes import Initialisation
from repro.provenance import current_provenance, data_record
from repro.records.file_names import activations_name
from repro.records.runs import Run
from repro.records.schema import ActivationsRecord, LayerActivity
from repro.records.writing import write_record


def measure_activations(
    path: Path,
    data: Path,
    split: str = "val",
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = BATCH,
    untrained: bool = False,
) -> tuple[Path, ActivationsRecord]:
    """Measure the activations of a run's net for the centre views of a split; return the record's path and contents.

    `untrained` takes the random weights with which the run began. Moments over the images are summed in float64.
    `on_progress` is called with images done and images in all; `batch_size` images are computed at once. Raises
    ReproError for a run, data or a split that do not fit, or if the folder of the run is not writable.
    """
    store = open_store(data)
    device = replica_devices(None)[0]
    model = open_run(path, str(device), store)
    model.check_store(store, (split,))
    net = _initial_net(model.run).to(device).eval() if untrained else model.net
    assert isinstance(net, AlexNet)  # on one device
    images = store.splits[split]
    atomic.check_writable(model.run.folder, "the activations")
    layers = layer_activities(net, model.views(store), images, on_progress, batch_size)
    if not all(math.isfinite(each.size) for each in layers):
        raise ReproError(NOT_FINITE)
    record = ActivationsRecord(
        run=model.run.folder.name,
        variant=model.run.variant,
        recipe=model.run.recipe,
        scale=model.run.scale,
        seed=model.run.seed,
        data=data_record(store),
        split=split,
        images=len(images),
        untrained=untrained,
        layers=layers,
        command=command_line(activations_argv(path, data, split, untrained)),
        **vars(current_provenance()),
    )
    out = model.run.folder / activations_name(split, untrained)
    write_record(out, record)
    return out, record


def layer_activities(
    net: AlexNet,
    views: Views,
    images: Split,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = BATCH,
) -> tuple[LayerActivity, ...]:
    """Return the activity of each layer for the centre views of all images, on the device of `views`."""
    moments: dict[str, Moments] = {}
    requests = map(Request, consecutive(len(images), batch_size))
    with closing(read_ahead(images, requests, [views.device])) as batches:
        done = 0
        for batch in batches:
            for layer, outputs in activations(net, next(views.test_views(batch.images, 1))):
                moments.setdefault(layer, Moments(outputs)).add(outputs)
            done += len(batch.images)
            if on_progress:
                on_progress(done, len(images))
    return tuple(each.activity(layer) for layer, each in moments.items())


def _initial_net(run: Run) -> AlexNet:
    """Return the net of a run with its initial weights. Raises ReproError if they were not random."""
    if run.init_from is not None or (run.ended and run.ended.reason == "imported"):
        raise ReproError(f"'{run.folder}' did not start from random weights: --untrained is about runs that did")
    try:
        initialisation = msgspec.convert(run.settings["initialisation"], Initialisation)
    except (KeyError, msgspec.ValidationError) as error:
        raise ReproError(
            f"'{run.folder}' does not record its initial weights ({error}): train the run again"
        ) from error
    return initial_net(network_of(run), initialisation, run.seed)


@torch.inference_mode()
def activations(net: AlexNet, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each convolution or fully-connected layer with its outputs [N, units, …] for `images`.

    They are those after its nonlinearity, which in the first block of the authors' program follows normalisation and
    pooling; of the last layer the logits. `images` are preprocessed, [N, 3, S, S].
    """
    name, outputs = "", images
    for spec, layer in zip(net.network.layers, net.children(), strict=True):
        outputs = layer(outputs.flatten(1) if is_linear(layer) else outputs)
        if isinstance(spec, Conv | Local | Linear):
            name = spec.name
        elif isinstance(spec, Activation):
            yield name, outputs
    yield name, outputs


class Moments:
    """Sums over images of the outputs of a layer."""

    def __init__(self, outputs: Tensor) -> None:
        """Begin with none; `outputs` [N, units, …] give the shape."""
        self.images = 0
        self.sums, self.squares = (torch.zeros_like(outputs[0], dtype=torch.float64) for _ in range(2))
        self.sizes = 0.0
        self.alive = torch.zeros(outputs.shape[1], dtype=torch.bool, device=outputs.device)

    def add(self, outputs: Tensor) -> None:
        """Add the outputs [N, units, …] for some images."""
        exact = outputs.double()
        self.images += len(outputs)
        self.sums += exact.sum(0)
        self.squares += exact.square().sum(0)
        self.sizes += float(exact.abs().sum())
        self.alive |= (outputs != 0).transpose(0, 1).flatten(1).any(1)

    def activity(self, layer: str) -> LayerActivity:
        """Return the activity of the layer over all images."""
        variance = self.squares / self.images - (self.sums / self.images).square()
        return LayerActivity(
            layer=layer,
            units=len(self.alive),
            dead=int((~self.alive).sum()),
            size=self.sizes / self.images / self.sums.numel(),
            spread=float(variance.clamp(min=0).sqrt().mean()),
        )
