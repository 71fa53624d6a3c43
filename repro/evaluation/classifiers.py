"""Finished runs that classify images: those of nets, and of the methods that preceded the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.baselines.model import BaselineModel, method_of, model_from_arrays
from repro.data.store import Store
from repro.errors import ReproError
from repro.evaluation.trained_model import (
    ImageLike,
    TrainedModel,
    check_store,
    class_order,
    damaged_weights,
    open_run,
    preprocess,
    read_tensors,
)
from repro.records.reading import read_run
from repro.records.runs import Run
from repro.records.schema import BASELINE, ClassRecord, PreprocessingRecord


@dataclass(frozen=True)
class TrainedBaseline:
    """A finished run of a baseline, ready to be used; the store that it was trained on is not needed.

    Attributes:
        run: the run's record and folder.
        model: the trained model.
        preprocessing: from an image to the square that the model describes.
        checksum: SHA-256 of the weights.
    """

    run: Run
    model: BaselineModel
    preprocessing: PreprocessingRecord
    checksum: str

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """The classes, in the order of the model's outputs."""
        return self.run.data.classes

    def check_store(self, store: Store, splits: Sequence[str], same: bool = True) -> None:
        """Raise ReproError if `store` does not fit the run, by its classes, splits or the size of its images."""
        check_store(self.run, store, splits, same)
        size = self.preprocessing.image_size
        if store.size != size:
            raise ReproError(
                f"the store '{store.path}' has images of {store.size} pixels, the run '{self.run.folder}' takes "
                f"{size}: prepare it with --size {size}"
            )

    def in_order_of(self, store: Store) -> TrainedBaseline:
        """Return the model with its outputs in the order of the classes of `store`, which has the same ids."""
        order = class_order(self.run, store)
        classes = tuple(self.classes[index] for index in order)
        run = replace(self.run, data=replace(self.run.data, classes=classes))
        return replace(self, model=self.model.in_order(order), run=run)

    def preprocess(self, image: ImageLike) -> NDArray[np.uint8]:
        """Return an image as a store would hold it, uint8 [S, S, 3]. Raises ReproError if it cannot be decoded."""
        return preprocess(image, self.preprocessing)

    def probabilities(self, images: NDArray[np.uint8], views: int = 1) -> Tensor:
        """Return the probabilities of stored images [N, S, S, 3], float32 [N, classes], whatever the `views`."""
        return torch.from_numpy(self.model.probabilities(images, torch.get_num_threads()))


Classifier = TrainedModel | TrainedBaseline


def open_classifier(path: Path, devices: str | None = None, store: Store | None = None) -> Classifier:
    """Open the finished run in the folder `path`, of a net (see `open_run`) or of a baseline.

    Raises ReproError if there is no run, if it is not finished, if its weights are damaged, or if a package that the
    method needs is not installed.
    """
    run = read_run(path)
    if run.kind != BASELINE:
        return open_run(path, devices, store)
    tensors, checksum = read_tensors(run)
    try:
        model = model_from_arrays(method_of(run), {name: tensor.numpy() for name, tensor in tensors.items()})
    except KeyError as error:
        raise damaged_weights(run, f"{error} is missing") from error
    if run.preprocessing is None:
        raise ReproError(f"'{run.folder}' does not record its preprocessing: train the run again")
    return TrainedBaseline(run, model, run.preprocessing, checksum)


def effective_views(models: Sequence[Classifier], views: int) -> int:
    """Return the number of views that are averaged: `views`, but 1 if no model is a net."""
    return views if any(isinstance(model, TrainedModel) for model in models) else 1
