"""`repro import`: a run made of weights that others published, which every command takes that takes a finished run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch

from repro import atomic
from repro.data.store import open_store
from repro.errors import ReproError
from repro.evaluation.class_lists import read_classes
from repro.formatting import command_line
from repro.models.published import PublishedWeights, read_published
from repro.paper.networks import network_record
from repro.provenance import current_provenance
from repro.records.file_names import RUN
from repro.records.reading import read_run
from repro.records.runs import Run
from repro.records.schema import ClassRecord, DataRecord, EndRecord, Origin, PreprocessingRecord, RunRecord
from repro.records.writing import write_mean, write_record, write_weights

RECIPE = "published"


def import_weights(
    source: Path, out: Path, name: str | None = None, classes: Path | None = None, data: Path | None = None
) -> Run:
    """Write a finished run with the weights of the file `source` to the new folder `out`.

    `name` is one of `repro.paper.published.MODELS`, where several share their layers. `classes` is a file that
    `read_classes` takes, for weights that do not have ILSVRC-2012's classes in the order of their WordNet ids. `data`
    is the store whose mean image is subtracted, for nets that were published without one. Raises ReproError for files,
    classes or folders that do not fit; nothing is then written.
    """
    weights = read_published(source, name, read_classes(classes) if classes else ())
    if not weights.classes:
        raise ReproError(
            f"the order of the classes of '{source}' is not known: add --classes ILSVRC2012_devkit_t12.tar.gz, or a "
            "file with an id in each line"
        )
    mean = _mean(weights, data)
    atomic.make_folder(out, parents=True)
    if any(out.iterdir()):
        raise ReproError(f"'{out}' is not empty: choose another --out")
    content = safetensors.torch.save(weights.weights)
    ended = EndRecord("imported", weights=hashlib.sha256(content).hexdigest())
    record = replace(_record(weights, _command(source, out, name, classes, data)), ended=ended)
    write_record(out / RUN, record)
    run = read_run(out)
    write_mean(out, mean)
    write_weights(out, content)
    return run


def _mean(weights: PublishedWeights, data: Path | None) -> np.ndarray:
    """Return the mean that is subtracted, as an image."""
    size, mean = weights.model.preprocessing.image_size, weights.model.preprocessing.mean
    if mean is not None:
        return np.broadcast_to(np.array(mean, np.float32), (size, size, 3)).copy()
    if data is None:
        raise ReproError(
            f"{weights.model.name} subtracts the mean image of its training images: add --data with a store of them"
        )
    store = open_store(data)
    if store.size != size:
        raise ReproError(f"the store '{data}' has images of {store.size} pixels, {weights.model.name} takes {size}")
    return store.mean


def _command(source: Path, out: Path, name: str | None, classes: Path | None, data: Path | None) -> str:
    """Return the command line that repeats the import."""
    given = {"--as": name, "--classes": classes, "--data": data}
    options = [word for option, value in given.items() if value for word in (option, value)]
    return command_line(["repro", "import", source, "--out", out, *options])


def _record(weights: PublishedWeights, command: str) -> RunRecord:
    model, network = weights.model, weights.network
    return RunRecord(
        variant=model.name,
        recipe=RECIPE,
        scale="paper",
        seed=0,
        epochs=0,
        init_from=Origin(weights.file, weights.sha256),
        network=network_record(network),
        input_size=network.input_size,
        preprocessing=PreprocessingRecord(
            image_size=model.preprocessing.image_size,
            crop_size=model.preprocessing.crop_size,
            resize=model.preprocessing.resize,
            mean_of_patch=False,
        ),
        data=DataRecord(
            dataset="ilsvrc2012" if network.classes == 1000 else "published",
            size=model.preprocessing.image_size,
            classes=tuple(ClassRecord(each.id, each.name) for each in weights.classes),
        ),
        command=command,
        **vars(current_provenance()),
    )
