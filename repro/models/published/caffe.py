"""Caffe's `.caffemodel`: a `NetParameter` message with the layers and their weights.

The schema is the part of Caffe's `src/caffe/proto/caffe.proto` that a net of AlexNet's kind uses; the field numbers
and defaults are those published there. Layers come as `layer` (2015 and later) or `layers` (before, as in the
distributed `bvlc_alexnet.caffemodel`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import ReproError, how_to_install
from repro.models.published.layers import ReadLayer, ReadNetwork, assemble, decimal
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Pool

# Message: field name → number, type ("*" marks repeated, "[]" packed), default.
SCHEMA: Mapping[str, Mapping[str, tuple[int, str, str]]] = {
    "BlobShape": {"dim": (1, "int64[]", "")},
    "BlobProto": {
        "num": (1, "int64", "0"),
        "channels": (2, "int64", "0"),
        "height": (3, "int64", "0"),
        "width": (4, "int64", "0"),
        "data": (5, "float[]", ""),
        "shape": (7, "BlobShape", ""),
    },
    "ConvolutionParameter": {
        "num_output": (1, "uint32", "0"),
        "bias_term": (2, "bool", "true"),
        "pad": (3, "uint32*", ""),
        "kernel_size": (4, "uint32*", ""),
        "group": (5, "uint32", "1"),
        "stride": (6, "uint32*", ""),
        "pad_h": (9, "uint32", "0"),
        "pad_w": (10, "uint32", "0"),
        "kernel_h": (11, "uint32", "0"),
        "kernel_w": (12, "uint32", "0"),
        "stride_h": (13, "uint32", "0"),
        "stride_w": (14, "uint32", "0"),
        "dilation": (18, "uint32*", ""),
    },
    "InnerProductParameter": {
        "num_output": (1, "uint32", "0"),
        "bias_term": (2, "bool", "true"),
        "transpose": (6, "bool", "false"),
    },
    "LRNParameter": {
        "local_size": (1, "uint32", "5"),
        "alpha": (2, "float", "1"),
        "beta": (3, "float", "0.75"),
        "norm_region": (4, "int32", "0"),  # an enum; 0: across channels
        "k": (5, "float", "1"),
    },
    "PoolingParameter": {
        "pool": (1, "int32", "0"),  # an enum; 0: max, 1: average
        "kernel_size": (2, "uint32", "0"),
        "stride": (3, "uint32", "1"),
        "pad": (4, "uint32", "0"),
        "kernel_h": (5, "uint32", "0"),
        "kernel_w": (6, "uint32", "0"),
        "stride_h": (7, "uint32", "0"),
        "stride_w": (8, "uint32", "0"),
        "global_pooling": (12, "bool", "false"),
        "round_mode": (13, "int32", "0"),  # an enum; 0: up
    },
    "DropoutParameter": {"dropout_ratio": (1, "float", "0.5")},
    "ReLUParameter": {"negative_slope": (1, "float", "0")},
    "LayerParameter": {
        "name": (1, "string", ""),
        "type": (2, "string", ""),
        "bottom": (3, "string*", ""),
        "top": (4, "string*", ""),
        "blobs": (7, "BlobProto*", ""),
        "convolution_param": (106, "ConvolutionParameter", ""),
        "dropout_param": (108, "DropoutParameter", ""),
        "inner_product_param": (117, "InnerProductParameter", ""),
        "lrn_param": (118, "LRNParameter", ""),
        "pooling_param": (121, "PoolingParameter", ""),
        "relu_param": (123, "ReLUParameter", ""),
    },
    "V1LayerParameter": {
        "bottom": (2, "string*", ""),
        "top": (3, "string*", ""),
        "name": (4, "string", ""),
        "type": (5, "int32", "0"),  # an enum, see V1_TYPES
        "blobs": (6, "BlobProto*", ""),
        "convolution_param": (10, "ConvolutionParameter", ""),
        "dropout_param": (12, "DropoutParameter", ""),
        "inner_product_param": (17, "InnerProductParameter", ""),
        "lrn_param": (18, "LRNParameter", ""),
        "pooling_param": (19, "PoolingParameter", ""),
        "relu_param": (30, "ReLUParameter", ""),
    },
    "NetParameter": {
        "name": (1, "string", ""),
        "layers": (2, "V1LayerParameter*", ""),
        "layer": (100, "LayerParameter*", ""),
    },
}
V1_TYPES = {
    1: "Accuracy", 4: "Convolution", 5: "Data", 6: "Dropout", 12: "ImageData", 14: "InnerProduct", 15: "LRN",
    17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 23: "TanH",
}  # fmt: skip
# What a net for training has around the layers that compute logits from images.
AROUND = frozenset({"Accuracy", "Data", "ImageData", "Input", "Softmax", "SoftmaxWithLoss", "Split"})


@cache
def message_types() -> dict[str, Any]:
    """Return the message classes of `SCHEMA` by name. Raises ReproError if protobuf is not installed."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise ReproError(f"reading a .caffemodel needs protobuf: {how_to_install('export')}") from None
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="repro/caffe.proto", package="caffe", syntax="proto2")
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, default) in fields.items():
            packed, repeated = kind.endswith("[]"), kind.endswith(("[]", "*"))
            kind = kind.rstrip("[]*")
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in SCHEMA:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if packed:
                field.options.packed = True
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in SCHEMA}


def read(path: Path) -> ReadNetwork:
    """Read a net of Caffe. Raises ReproError if the file is cut off, or has layers that no net here has."""
    from_file = message_types()["NetParameter"]
    from google.protobuf.message import DecodeError

    try:
        net = from_file.FromString(path.read_bytes())
    except OSError as error:
        raise ReproError(f"cannot read '{path}': {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ReproError(f"'{path}' is no complete .caffemodel ({error}): download it again") from error
    if not net.layer and not net.layers:
        raise ReproError(f"'{path}' is no .caffemodel: it has no layers")
    try:
        layers, weights = assemble(_chain([*net.layers, *net.layer]))
    except ReproError as error:
        raise ReproError(f"'{path}': {error}") from error
    return ReadNetwork(layers, weights, bgr=True)


def _chain(described: list[Any]) -> list[ReadLayer]:
    """Read the layers from images to logits, each of which must take what the one before it gives."""
    chain, below = [], None
    for each in described:
        kind = V1_TYPES.get(each.type, f"number {each.type}") if isinstance(each.type, int) else each.type
        if kind in AROUND:
            continue
        if below is not None and list(each.bottom) != [below]:
            raise ReproError(f"the layer '{each.name}' takes {', '.join(each.bottom)}, expected '{below}'")
        if len(each.top) != 1:
            raise ReproError(f"the layer '{each.name}' has {len(each.top)} outputs, expected one")
        below = each.top[0]
        chain.append(_layer(kind, each))
    return chain


def _layer(kind: str, described: Any) -> ReadLayer:
    layer: Layer
    match kind:
        case "Convolution":
            setting = described.convolution_param
            if set(setting.dilation) > {1}:
                raise ReproError(f"the layer '{described.name}' is dilated, which no net here is")
            layer = Conv(
                described.name,
                setting.num_output,
                _square(described.name, setting.kernel_size, setting.kernel_h, setting.kernel_w, 0),
                _square(described.name, setting.stride, setting.stride_h, setting.stride_w, 1),
                _square(described.name, setting.pad, setting.pad_h, setting.pad_w, 0),
                setting.group,
            )
            return _weighted(layer, described, setting.bias_term)
        case "InnerProduct":
            layer = Linear(described.name, described.inner_product_param.num_output)
            if described.inner_product_param.transpose:
                raise ReproError(f"the layer '{described.name}' has transposed weights, which are not read")
            return _weighted(layer, described, described.inner_product_param.bias_term)
        case "ReLU":
            if described.relu_param.negative_slope:
                raise ReproError(f"the layer '{described.name}' has a negative slope, which no net here has")
            layer = Activation(described.name)
        case "TanH":
            layer = Activation(described.name, "tanh")
        case "LRN":
            setting = described.lrn_param
            if setting.norm_region:
                raise ReproError(f"the layer '{described.name}' normalizes within channels, which is not read")
            # Caffe divides alpha by the number of maps. A float32 of the file, as the decimal number that was typed.
            alpha = decimal(setting.alpha) / setting.local_size
            layer = LRN(described.name, setting.local_size, decimal(setting.k), alpha, decimal(setting.beta))
        case "Pooling":
            setting = described.pooling_param
            if setting.pad or setting.global_pooling or setting.round_mode or setting.pool not in (0, 1):
                raise ReproError(f"the layer '{described.name}' pools in a way that no net here does")
            size = _square(described.name, [setting.kernel_size], setting.kernel_h, setting.kernel_w, 0)
            stride = _square(described.name, [setting.stride], setting.stride_h, setting.stride_w, 1)
            layer = Pool(described.name, size, stride, "mean" if setting.pool else "max")
        case "Dropout":
            layer = Dropout(described.name, decimal(described.dropout_param.dropout_ratio))
        case _:
            raise ReproError(f"the layer '{described.name}' is of the type {kind}, which no net here has")
    return ReadLayer(layer)


def _square(name: str, values: Any, height: int, width: int, default: int) -> int:
    """Return a size that Caffe gives as one value, as one for each dimension, or as height and width."""
    found = {int(value) for value in values} | ({height, width} if height or width else set())
    found = found - {0} if height or width else found
    if len(found) > 1:
        raise ReproError(f"the layer '{name}' is not square: {sorted(found)}")
    return found.pop() if found else default


def _weighted(layer: Layer, described: Any, has_bias: bool) -> ReadLayer:
    if len(described.blobs) != 2 or not has_bias:
        raise ReproError(f"the layer '{described.name}' has {len(described.blobs)} arrays, expected weights and biases")
    weight, bias = (_tensor(blob, described.name) for blob in described.blobs)
    if isinstance(layer, Linear):
        weight = weight.flatten(0, -2)  # in old files [1, 1, units, inputs]
    return ReadLayer(layer, weight, bias.flatten())


def _tensor(blob: Any, name: str) -> Tensor:
    """Return a blob's values in its shape, float32."""
    sides = blob.shape.dim if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    shape = list(sides)
    if not shape or any(side < 1 for side in shape) or int(np.prod(shape, dtype=object)) != len(blob.data):
        raise ReproError(f"the layer '{name}' has an array of {len(blob.data):,} values with the shape {shape}")
    return torch.from_numpy(np.fromiter(blob.data, np.float32, len(blob.data)).reshape(shape))
