"""Weights that others published, read into the nets of `repro.paper.published`: a module per file format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from repro.data.store import ClassInfo
from repro.errors import ReproError, unknown
from repro.models.network import AlexNet
from repro.models.published import caffe, cuda_convnet2, onnx_zoo, torchvision
from repro.models.published.classes import imagenet_classes
from repro.models.published.layers import ReadNetwork, convert
from repro.paper.networks import Network
from repro.paper.published import MODELS, PublishedModel

# Endings of file names; a checkpoint of cuda-convnet2 is named after its epoch and batch instead, such as 90.417.
READERS = {
    ".pth": torchvision.read,
    ".pt": torchvision.read,
    ".caffemodel": caffe.read,
    ".onnx": onnx_zoo.read,
    "": cuda_convnet2.read,
}
ANY_ORDER = {
    "cuda-convnet2-alexnet"
}  # their classes are in the order of the development kit that they were trained from


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that others published, as a net of this program.

    Attributes:
        model: what was published: preprocessing and results.
        network: the layers.
        weights: parameters of `AlexNet(network)` by name. They take RGB values of 0–255 less the mean.
        classes: the classes in the order of the net's outputs; empty if they are not known.
        file: name of the file.
        sha256: checksum of the file.
    """

    model: PublishedModel
    network: Network
    weights: dict[str, Tensor]
    classes: tuple[ClassInfo, ...]
    file: str
    sha256: str

    def build(self) -> AlexNet:
        """Return the net with its weights, in evaluation mode."""
        net = AlexNet(self.network)
        net.load_state_dict(self.weights)
        return net.eval()


def read_published(path: Path, name: str | None = None, classes: tuple[ClassInfo, ...] = ()) -> PublishedWeights:
    """Read a file of published weights; its format follows from its ending and its content.

    `name` is one of `repro.paper.published.MODELS`, needed where several share their layers. `classes` are the
    classes in the order of the outputs, for nets that do not have ILSVRC-2012's in the order of their WordNet ids.
    Raises ReproError if the file cannot be read, is damaged, names code, or holds another net.
    """
    if name is not None and name not in MODELS:
        raise unknown("published net", name, MODELS)
    if not path.is_file():
        raise ReproError(f"no file at '{path}': name a file of weights, such as {', '.join(_file_names())}")
    read = _reader(path)(path)
    model = _identify(path, read.layers, name)
    network = replace(model.network, layers=read.layers)
    try:
        weights = convert(read, network)
    except ReproError as error:
        raise ReproError(f"'{path}' does not hold {model.name}: {error}") from error
    known = classes or _classes(model, network)
    if known and len(known) != network.classes:
        raise ReproError(f"'{path}' has {network.classes:,} classes, and {len(known):,} are named")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return PublishedWeights(model, network, weights, known, path.name, sha256)


def _reader(path: Path) -> Callable[[Path], ReadNetwork]:
    ending = path.suffix.lower()
    if ending[1:].isdigit():
        ending = ""
    if ending not in READERS:
        endings = ", ".join(filter(None, READERS))
        raise ReproError(f"'{path}' has none of the formats of published weights: {endings}, or cuda-convnet2's")
    return READERS[ending]


def _file_names() -> list[str]:
    return list(dict.fromkeys(file for model in MODELS.values() for file in model.files[:1]))


def _identify(path: Path, layers: tuple[object, ...], name: str | None) -> PublishedModel:
    """Return the published model that has these layers, whatever its number of classes."""
    fitting = [model for model in MODELS.values() if model.network.layers[:-1] == layers[:-1]]
    if name is not None:
        fitting = [model for model in fitting if model.name == name]
    if not fitting:
        known = name or ", ".join(MODELS)
        difference = _difference(layers, MODELS[name].network.layers) if name else ""
        raise ReproError(f"'{path}' does not have the layers of {known}{difference}")
    by_format = [model for model in fitting if any(file.endswith(path.suffix) for file in model.files)]
    by_file = [model for model in fitting if path.name in model.files]
    return (by_file or by_format or fitting)[0]


def _difference(found: tuple[object, ...], expected: tuple[object, ...]) -> str:
    for one, other in zip(found, expected, strict=False):
        if one != other:
            return f": it has {one}, expected {other}"
    return f": it has {len(found)} layers, expected {len(expected)}"


def _classes(model: PublishedModel, network: Network) -> tuple[ClassInfo, ...]:
    if model.name in ANY_ORDER or network.classes != 1000:
        return ()
    return imagenet_classes()
