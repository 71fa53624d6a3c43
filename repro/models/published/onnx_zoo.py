"""An ONNX file of a net of AlexNet's kind, such as the ONNX model zoo's `bvlcalexnet-12.onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import ReproError, how_to_install
from repro.models.published.layers import ReadLayer, ReadNetwork, assemble, decimal
from repro.paper.arithmetic import conv_positions, pool_positions
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Pool

# Operators that leave a feed-forward net's values as they are, or are no part of the logits.
SHAPING = frozenset({"Reshape", "Flatten", "Identity", "Softmax"})


def read(path: Path) -> ReadNetwork:
    """Read a net from an ONNX file. Raises ReproError if it is cut off, or has operators that no net here has.

    Tensors in other files beside it are not followed.
    """
    try:
        import onnx
    except ImportError:
        raise ReproError(f"reading an .onnx file needs onnx: {how_to_install('export')}") from None
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
    except OSError as error:
        raise ReproError(f"cannot read '{path}': {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ReproError(f"'{path}' is no complete ONNX file ({error}): download it again") from error
    if not graph.node:
        raise ReproError(f"'{path}' is no ONNX file of a net: its graph is empty")
    try:
        layers, weights = assemble(_chain(graph))
    except ReproError as error:
        raise ReproError(f"'{path}': {error}") from error
    return ReadNetwork(layers, weights, bgr=True)


def _chain(graph: Any) -> list[ReadLayer]:
    """Read the layers from images to logits, each of which must take what the one before it gives."""
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    images = next((each for each in graph.input if each.name not in arrays), None)
    sides = [side.dim_value for side in images.type.tensor_type.shape.dim] if images is not None else []
    if images is None or len(sides) != 4 or sides[2] != sides[3] or sides[2] < 1:
        raise ReproError(f"its input has the shape {sides}, expected images [N, 3, S, S]")
    chain, below, size = [], images.name, sides[2]
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        if not node.input or node.input[0] != below:
            raise ReproError(f"the operator '{_name(node)}' does not take '{below}', what the one before it gives")
        below = node.output[0]
        if node.op_type not in SHAPING:
            read, size = _layer(node, arrays, size)
            chain.append(read)
    return chain


def _layer(node: Any, arrays: Mapping[str, Any], size: int) -> tuple[ReadLayer, int]:
    """Read an operator on maps of `size`×`size`; returns the size of what it gives too."""
    import onnx

    settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    name = _name(node)
    layer: Layer
    match node.op_type:
        case "Conv":
            weight, bias = _array(node, 1, arrays), _array(node, 2, arrays)
            kernel, stride, pads = _window(name, settings, weight.shape[2:])
            if len(set(pads)) > 1:
                raise ReproError(f"the operator '{name}' has the pads {pads}, expected the same on all sides")
            layer = Conv(name, len(weight), kernel, stride, pads[0], settings.get("group", 1))
            return ReadLayer(layer, weight, bias), conv_positions(layer, size)
        case "Gemm":
            weight, bias = _array(node, 1, arrays), _array(node, 2, arrays)
            if settings.get("transA", 0) or settings.get("alpha", 1.0) != 1 or settings.get("beta", 1.0) != 1:
                raise ReproError(f"the operator '{name}' is no fully-connected layer")
            weight = weight if settings.get("transB", 0) else weight.T.contiguous()
            return ReadLayer(Linear(name, len(weight)), weight, bias), 1
        case "MaxPool":
            kernel, stride, pads = _window(name, settings, ())
            layer = Pool(name, kernel, stride)
            spans = [size + before + after - kernel for before, after in zip(pads[:2], pads[2:], strict=True)]
            rounded_up = bool(settings.get("ceil_mode", 0))
            sizes = {(-(-span // stride) if rounded_up else span // stride) + 1 for span in spans}
            # Padding on the right and below stands for windows over the edge; a maximum does not see it.
            if pads[:2] != [0, 0] or sizes != {pool_positions(layer, size)}:
                raise ReproError(f"the operator '{name}' with the pads {pads} pools in a way that no net here does")
            return ReadLayer(layer), pool_positions(layer, size)
        case "LRN":
            # ONNX divides alpha by the number of maps.
            maps = settings["size"]
            alpha, beta = decimal(settings.get("alpha", 1e-4)) / maps, decimal(settings.get("beta", 0.75))
            return ReadLayer(LRN(name, maps, decimal(settings.get("bias", 1.0)), alpha, beta)), size
        case "Relu":
            return ReadLayer(Activation(name)), size
        case "Dropout":
            return ReadLayer(Dropout(name, _dropout_rate(node, settings, arrays))), size
    raise ReproError(f"the operator '{name}' is of the type {node.op_type}, which no net here has")


def _name(node: Any) -> str:
    return str(node.name or node.output[0])


def _dropout_rate(node: Any, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> float:
    """Return the rate, an attribute until opset 11 and an optional input since."""
    if len(node.input) > 1 and node.input[1]:
        return decimal(float(_array(node, 1, arrays)))
    return decimal(settings.get("ratio", 0.5))


def _window(name: str, settings: Mapping[str, Any], default: Any) -> tuple[int, int, list[int]]:
    """Return the size, the stride and the pads [top, left, bottom, right] of a square window."""
    kernel, strides = list(settings.get("kernel_shape", default)), list(settings.get("strides", (1, 1)))
    pads = list(settings.get("pads", (0, 0, 0, 0)))
    square = len(kernel) == len(strides) == 2 and kernel[0] == kernel[1] and strides[0] == strides[1]
    dilated = any(each != 1 for each in settings.get("dilations", (1, 1)))
    if not square or len(pads) != 4 or dilated or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ReproError(f"the operator '{name}' has windows that no net here has")
    return int(kernel[0]), int(strides[0]), pads


def _array(node: Any, position: int, arrays: Mapping[str, Any]) -> Tensor:
    """Return the array that an operator takes at `position`, float32."""
    import onnx

    if len(node.input) <= position or node.input[position] not in arrays:
        raise ReproError(f"the operator '{_name(node)}' lacks the array at its input {position}")
    stored = arrays[node.input[position]]
    if stored.data_location == onnx.TensorProto.EXTERNAL:
        raise ReproError(f"the array '{stored.name}' is in another file, which is not read")
    try:
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(stored), np.float32))
    except (ValueError, TypeError, KeyError) as error:
        raise ReproError(f"the array '{stored.name}' is damaged ({error})") from error
