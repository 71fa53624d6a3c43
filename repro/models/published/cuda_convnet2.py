"""cuda-convnet2's checkpoints: pickles written by Python 2, read without running anything that they name.

A checkpoint is a dictionary with the training state under "model_state"; its "layers" hold each layer's settings and
arrays. Beside them lies the program's object of options, which is of no use here.

The weights of a convolution are [maps · size², kernels], those of a fully-connected layer [inputs, units].
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import ReproError
from repro.models.published.layers import ReadLayer, ReadNetwork, assemble, decimal
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Pool

# What a checkpoint may name: modules of the program itself, of NumPy's arrays and of Python's plain containers.
PROGRAM = ("python_util.", "options", "convnet", "convdata", "layer", "data", "util", "gpumodel")
KNOWN = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
        ("copy_reg", "_reconstructor"),
        ("__builtin__", "object"),
        ("__builtin__", "set"),
    }
)
NEURONS = {"relu": "relu", "tanh": "tanh"}


class _Inert:
    """Stands for every function and class that a pickle names: it records what it is given and does nothing."""

    origin: tuple[str, str] = ("", "")

    arguments: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]

    def __new__(cls, *arguments: Any) -> _Inert:
        made = super().__new__(cls)
        made.arguments, made.state, made.entries = arguments, None, {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, value: Any) -> None:
        self.entries[len(self.entries)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)


class _InertUnpickler(pickle.Unpickler):
    """Builds plain containers and `_Inert` objects only."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an inert class for what a checkpoint names. Raises ReproError for anything that none would name."""
        program = any(module == known or module.startswith(known) for known in PROGRAM)
        if not program and (module, name) not in KNOWN:
            raise ReproError(f"it names '{module}.{name}', which no checkpoint of cuda-convnet2 does")
        return type(name, (_Inert,), {"origin": (module, name)})


def read(path: Path) -> ReadNetwork:
    """Read the net of a checkpoint. Raises ReproError if the file is no such checkpoint, or names foreign code."""
    try:
        with path.open("rb") as file:
            content = _InertUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise ReproError(f"cannot read '{path}': {error.strerror}") from error
    except ReproError as error:
        raise ReproError(f"'{path}' is refused: {error}") from error
    except Exception as error:  # damaged pickles make the unpickler raise almost any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReproError(f"'{path}' is no complete checkpoint of cuda-convnet2 ({reason})") from error
    try:
        layers, weights = assemble(_chain(_layers(content)))
    except ReproError as error:
        raise ReproError(f"'{path}': {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__} {error}"
        raise ReproError(f"'{path}' is no checkpoint of cuda-convnet2 ({reason})") from error
    return ReadNetwork(layers, weights, dropout_rescales=False)


def _layers(content: Any) -> Mapping[str, Any]:
    """Return the layers of a checkpoint by name."""
    layers = content["model_state"]["layers"]
    if isinstance(layers, _Inert) and layers.origin == ("collections", "OrderedDict"):
        layers = layers.entries or dict(layers.arguments[0])
    if isinstance(layers, list):  # cuda-convnet of 2012
        layers = {layer["name"]: layer for layer in layers}
    return dict(layers)


def _chain(layers: Mapping[str, Any]) -> list[ReadLayer]:
    """Read the layers from images to logits: from the input of the softmax back to the data."""
    softmaxes = [layer for layer in layers.values() if layer["type"] == "softmax"]
    if len(softmaxes) != 1:
        raise ReproError(f"it has {len(softmaxes)} softmax layers, expected one")
    chain: list[ReadLayer] = []
    layer = _input(softmaxes[0], layers)
    while layer["type"] != "data":
        if len(chain) > len(layers):
            raise ReproError(f"the layer '{layer['name']}' is its own input")
        chain.insert(0, _layer(layer))
        layer = _input(layer, layers)
    return chain


def _input(layer: Mapping[str, Any], layers: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = layer["inputs"]
    if len(inputs) != 1:
        raise ReproError(f"the layer '{layer['name']}' has {len(inputs)} inputs, expected one")
    below: Mapping[str, Any] = layers[inputs[0]] if isinstance(inputs[0], str) else list(layers.values())[inputs[0]]
    return below


def _layer(described: Mapping[str, Any]) -> ReadLayer:
    name, kind = described["name"], described["type"]
    layer: Layer
    match kind:
        case "conv":
            size, maps = _only(described, "filterSize"), _only(described, "filterChannels")
            kernels, stride, groups = int(described["filters"]), _only(described, "stride"), _only(described, "groups")
            # Padding is stored as the position of the first window. The number of positions is rounded up.
            layer = Conv(name, kernels, size, stride, -_only(described, "padding"), groups, round_up=stride > 1)
            weight = _array(described["weights"][0]).T.reshape(kernels, maps, size, size)
            bias = _array(described["biases"]).reshape(-1)
            if len(bias) != kernels:
                raise ReproError(
                    f"the layer '{name}' has {len(bias):,} biases for {kernels} kernels, expected shared ones"
                )
            return ReadLayer(layer, _tensor(weight), _tensor(bias))
        case "fc":
            weight = _array(described["weights"][0]).T
            bias = _array(described["biases"]).reshape(-1)
            return ReadLayer(Linear(name, len(weight)), _tensor(weight), _tensor(bias))
        case "neuron":
            neuron = described["neuron"]["type"]
            if neuron not in NEURONS:
                raise ReproError(f"the layer '{name}' has the neuron {neuron}, which no net here has")
            layer = Activation(name, NEURONS[neuron])
        case "cmrnorm":
            if described.get("blocked"):
                raise ReproError(f"the layer '{name}' normalizes in blocks, which no net here does")
            # The scale is stored divided by the size already.
            k, alpha, beta = (float(described[key]) for key in ("minDiv", "scale", "pow"))
            layer = LRN(name, int(described["size"]), k, alpha, beta)
        case "pool":
            if described["start"] or described["pool"] not in ("max", "avg"):
                raise ReproError(f"the layer '{name}' pools in a way that no net here does")
            pooling = "max" if described["pool"] == "max" else "mean"
            layer = Pool(name, int(described["sizeX"]), int(described["stride"]), pooling)
        case "dropout2":
            layer = Dropout(name, 1 - decimal(described["keep"]))
        case _:
            raise ReproError(f"the layer '{name}' is of the type {kind}, which no net here has")
    return ReadLayer(layer)


def _only(described: Mapping[str, Any], key: str) -> int:
    """Return a setting that is a list with a value for each input."""
    (value,) = described[key]
    return int(value)


def _array(recorded: Any) -> np.ndarray:
    """Return the float32 array that a pickle describes, from its shape, type, order and bytes."""
    if not isinstance(recorded, _Inert) or recorded.origin != ("numpy.core.multiarray", "_reconstruct"):
        raise ReproError(f"it has a {type(recorded).__name__} where an array was expected")
    _, shape, dtype, fortran, content = recorded.state
    (code, *_), (_, order, *_) = dtype.arguments, dtype.state
    if code not in ("f4", "f8") or order not in "<>=|":
        raise ReproError(f"it has an array of the type '{code}', expected floats")
    stored = content if isinstance(content, bytes) else content.encode("latin1")
    values = np.frombuffer(stored, np.dtype(code).newbyteorder(order))
    return values.reshape(shape, order="F" if fortran else "C").astype(np.float32)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
