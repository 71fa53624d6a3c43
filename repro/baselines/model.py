"""A trained baseline: its encoders and classifiers, from and to the arrays of `weights.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from repro.baselines.encoders import (
    Encoder,
    encoder_from_arrays,
    encoder_shapes,
    one_thread,
    require_packages,
    vector_size,
)
from repro.baselines.linear_classifiers import mean_scores, softmax
from repro.errors import ReproError
from repro.paper.baselines import Method
from repro.processors import available_processors
from repro.records.runs import Run

Floats: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout


@dataclass(frozen=True)
class BaselineModel:
    """A method with all that it has learned.

    Attributes:
        method: the method.
        encoders: encoder of each channel.
        classifiers: weight [classes, D] and bias [classes] of each channel.
        temperature: divisor of the averaged scores in the softmax.
    """

    method: Method
    encoders: tuple[Encoder, ...]
    classifiers: tuple[tuple[Floats, Floats], ...]
    temperature: float

    def probabilities(self, images: NDArray[np.uint8], threads: int | None = None) -> Floats:
        """Return the probabilities [N, classes] of stored images, uint8 [N, S, S, 3].

        `threads` images are described at once; None for one per processor.
        """
        with one_thread(self.method), ThreadPoolExecutor(threads or available_processors()) as pool:
            vectors = [np.stack(list(pool.map(encoder.encode, images))) for encoder in self.encoders]
        return softmax(mean_scores(self.classifiers, vectors), self.temperature)

    def in_order(self, order: Sequence[int]) -> BaselineModel:
        """Return the model with its classes in another order."""
        rows = list(order)
        return replace(self, classifiers=tuple((weight[rows], bias[rows]) for weight, bias in self.classifiers))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that was learned, by name: <channel>.<name>, and the temperature."""
        found: dict[str, NDArray[Any]] = {}
        for channel, encoder, (weight, bias) in zip(self.method.channels, self.encoders, self.classifiers, strict=True):
            learned = {**encoder.arrays(), "classifiers.weight": weight, "classifiers.bias": bias}
            found |= {f"{channel}.{name}": array for name, array in learned.items()}
        return {**found, "temperature": np.array([self.temperature], np.float32)}


def model_from_arrays(method: Method, arrays: Mapping[str, NDArray[Any]]) -> BaselineModel:
    """Return the model that `BaselineModel.arrays` describes. Raises KeyError if an array is missing.

    Raises ReproError if a package that the method needs is not installed.
    """
    require_packages(method)
    encoders, classifiers = [], []
    for channel in method.channels:
        own = channel_arrays(arrays, channel)
        encoders.append(encoder_from_arrays(channel, method, own))
        classifiers.append((own["classifiers.weight"], own["classifiers.bias"]))
    return BaselineModel(method, tuple(encoders), tuple(classifiers), float(arrays["temperature"][0]))


def channel_arrays(arrays: Mapping[str, NDArray[Any]], channel: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a channel, under their names within it."""
    return {name.removeprefix(f"{channel}."): array for name, array in arrays.items() if name.startswith(f"{channel}.")}


def model_shapes(method: Method, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's arrays by name."""
    shapes: dict[str, tuple[int, ...]] = {"temperature": (1,)}
    for channel in method.channels:
        own = encoder_shapes(channel, method)
        own |= {"classifiers.weight": (classes, vector_size(channel, method)), "classifiers.bias": (classes,)}
        shapes |= {f"{channel}.{name}": shape for name, shape in own.items()}
    return shapes


def method_of(run: Run) -> Method:
    """Return the method that the record of a baseline's run spells out. Raises ReproError if it does not."""
    try:
        return msgspec.convert(run.settings, Method)
    except msgspec.ValidationError as error:
        raise ReproError(f"'{run.folder}' does not spell out its method ({error}): train the run again") from error
