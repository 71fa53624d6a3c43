"""Files of published weights as other programs write them, made from random weights with the published layouts.

None of this uses the readers' own tables: protocol buffers are encoded by hand from Caffe's published field numbers,
pickles as Python 2's `cPickle` encodes them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Weights = dict[str, tuple[np.ndarray, np.ndarray]]

CAFFE_SHAPES = {
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
}  # fmt: skip
ONE_TOWER_SHAPES = {
    "conv1": (64, 3, 11, 11), "conv2": (192, 64, 5, 5), "conv3": (384, 192, 3, 3), "conv4": (256, 384, 3, 3),
    "conv5": (256, 256, 3, 3), "fc4096a": (4096, 9216), "fc4096b": (4096, 4096), "fc1000": (1000, 4096),
}  # fmt: skip


def random_weights(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Weights:
    """Draw weights with which activations keep their size from layer to layer; the first layer sees values of ±100."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in shapes.items():
        spread = np.sqrt(6 / np.prod(shape[1:])) * (0.02 if name == "conv1" else 1)
        weight = random.random(shape, np.float32) * np.float32(2 * spread) - np.float32(spread)
        weights[name] = (weight, random.random(shape[0], np.float32) * np.float32(0.2))
    return weights


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def message(*fields: tuple[int, Any]) -> bytes:
    """Encode a protocol buffer: integers as varints, floats as 32 bits, text, bytes and messages by their length."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        elif isinstance(value, float):
            parts.append(varint(number << 3 | 5) + struct.pack("<f", value))
        else:
            content = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(content)) + content)
    return b"".join(parts)


def old_blob(array: np.ndarray) -> bytes:
    """Encode an array as Caffe did until 2015: with four dimensions."""
    sides = (*(1,) * (4 - array.ndim), *array.shape)
    return message(*zip((1, 2, 3, 4), sides, strict=True), (5, array.tobytes()))


def new_blob(array: np.ndarray) -> bytes:
    """Encode an array as Caffe does since."""
    return message((7, message((1, b"".join(map(varint, array.shape))))), (5, array.tobytes()))


# Kind, name, settings by the fields of the parameter's message.
CONVOLUTIONS = {
    "conv1": ((1, 96), (4, 11), (6, 4)),
    "conv2": ((1, 256), (3, 2), (4, 5), (5, 2)),
    "conv3": ((1, 384), (3, 1), (4, 3)),
    "conv4": ((1, 384), (3, 1), (4, 3), (5, 2)),
    "conv5": ((1, 256), (3, 1), (4, 3), (5, 2)),
}
LRN_SETTINGS = ((1, 5), (2, 1e-4), (3, 0.75))
POOL_SETTINGS = ((1, 0), (2, 3), (3, 2))
ALEXNET = (
    "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 "
    "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
)
CAFFENET = ALEXNET.replace("norm1 pool1", "pool1 norm1").replace("norm2 pool2", "pool2 norm2")
# By the first letters of a layer's name: type, its number in V1, parameter's field in V1 and since.
KINDS = {
    "conv": ("Convolution", 4, 10, 106), "relu": ("ReLU", 18, 30, 123), "norm": ("LRN", 15, 18, 118),
    "pool": ("Pooling", 17, 19, 121), "fc": ("InnerProduct", 14, 17, 117), "drop": ("Dropout", 6, 12, 108),
}  # fmt: skip


def caffemodel(weights: Weights, order: str = ALEXNET, old: bool = True) -> bytes:
    """Encode a net for training as Caffe saves it: data, layers, loss. `old`: with `V1LayerParameter`s."""
    number, type_at, bottom_at, top_at, name_at, blobs_at = (2, 5, 2, 3, 4, 6) if old else (100, 2, 3, 4, 1, 7)
    around = {"data": ("Data", 5), "loss": ("SoftmaxWithLoss", 21)}
    parts = [message((1, "AlexNet")), layer_message("data", *around["data"], old)]
    below = "data"
    for name in order.split():
        kind, v1_kind, v1_parameter, parameter = KINDS[name.rstrip("0123456789")]
        in_place = kind in ("ReLU", "Dropout")
        top = below if in_place else name
        settings = {
            "Convolution": CONVOLUTIONS.get(name, ()), "LRN": LRN_SETTINGS, "Pooling": POOL_SETTINGS,
            "InnerProduct": ((1, CAFFE_SHAPES.get(name, (0,))[0]),), "Dropout": ((1, 0.5),),
        }.get(kind, ())  # fmt: skip
        blobs = [(old_blob if old else new_blob)(array) for array in weights.get(name, ())]
        fields = [
            (name_at, name), (type_at, v1_kind if old else kind), (bottom_at, below), (top_at, top),
            *((blobs_at, blob) for blob in blobs), (v1_parameter if old else parameter, message(*settings)),
        ]  # fmt: skip
        parts.append(message((number, message(*fields))))
        below = top
    parts.append(layer_message("loss", *around["loss"], old))
    return b"".join(parts)


def layer_message(name: str, kind: str, v1_kind: int, old: bool) -> bytes:
    fields = ((4, name), (5, v1_kind), (3, name)) if old else ((1, name), (2, kind), (4, name))
    return message((2 if old else 100, message(*fields)))


class Python2Pickle:
    """Encodes plain containers, numbers, text, arrays and objects as Python 2's `cPickle` does with protocol 2."""

    def __init__(self) -> None:
        self.parts = [b"\x80\x02"]

    def dump(self, value: Any) -> bytes:
        self.put(value)
        return b"".join([*self.parts, b"."])

    def put(self, value: Any) -> None:
        write = self.parts.append
        if value is None or isinstance(value, bool):
            write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            write(b"J" + struct.pack("<i", value))
        elif isinstance(value, float):
            write(b"G" + struct.pack(">d", value))
        elif isinstance(value, str | bytes):
            content = value.encode("latin1") if isinstance(value, str) else value
            write(b"T" + struct.pack("<i", len(content)) + content)
        elif isinstance(value, dict):
            write(b"}(")
            for key, each in value.items():
                self.put(key)
                self.put(each)
            write(b"u")
        elif isinstance(value, list | tuple):
            write(b"](" if isinstance(value, list) else b"(")
            for each in value:
                self.put(each)
            write(b"e" if isinstance(value, list) else b"t")
        elif isinstance(value, np.ndarray):
            self.put_array(value)
        elif isinstance(value, Python2Object):
            # An instance of a class of the old style: its class with nothing, then its attributes.
            module, name = value.name.rsplit(".", 1)
            write(b"(i" + f"{module}\n{name}\n".encode())
            self.put(value.attributes)
            write(b"b")
        else:
            raise TypeError(f"cannot encode a {type(value).__name__}")

    def put_array(self, array: np.ndarray) -> None:
        write = self.parts.append
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt R".replace(b" ", b""))
        write(b"(K\x01")
        self.put(array.shape)
        write(b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        self.put(fortran)
        self.put(array.tobytes("F" if fortran else "C"))
        write(b"tb")


class Python2Object:
    """An object of a class that only the pickle's writer has."""

    def __init__(self, name: str, **attributes: Any) -> None:
        self.name, self.attributes = name, attributes


def cuda_convnet2_layers(weights: Weights) -> dict[str, dict[str, Any]]:
    """Make the layers of cuda-convnet2's `layers-imagenet-1gpu.cfg` as its parser leaves them in a checkpoint."""
    layers: dict[str, dict[str, Any]] = {}

    def add(name: str, kind: str, inputs: str, **settings: Any) -> None:
        layers[name] = {"name": name, "type": kind, "id": len(layers), "inputs": [inputs], **settings}

    def conv(name: str, inputs: str, padding: int, stride: int) -> None:
        weight, bias = weights[name]
        kernels, maps, size, _ = weight.shape
        # [maps · size², kernels] by rows, and biases in a column.
        matrix = np.ascontiguousarray(weight.reshape(kernels, -1).T)
        add(
            name, "conv", inputs, filterSize=[size], filterChannels=[maps], channels=[maps], filters=kernels,
            stride=[stride], padding=[-padding], groups=[1], sharedBiases=True, weights=[matrix],
            weightsInc=[np.zeros((1, 1), np.float32)], biases=bias[:, None], initW=[0.01], usesActs=False,
        )  # fmt: skip

    def fc(name: str, inputs: str) -> None:
        weight, bias = weights[name]
        add(name, "fc", inputs, outputs=len(bias), weights=[np.asfortranarray(weight.T)], biases=bias[None])

    def relu(name: str) -> None:
        neuron = {"type": "relu", "params": {}, "usesActs": True, "usesInputs": False}
        add(f"{name}_neuron", "neuron", name, neuron=neuron)

    def norm(name: str, inputs: str) -> None:
        add(name, "cmrnorm", inputs, size=5, scale=0.0001 / 5, pow=0.75, minDiv=2.0, blocked=False)

    def pool(name: str, inputs: str) -> None:
        add(name, "pool", inputs, pool="max", sizeX=3, stride=2, start=0)

    layers["data"] = {"name": "data", "type": "data", "id": 0, "dataIdx": 0}
    layers["labvec"] = {"name": "labvec", "type": "data", "id": 1, "dataIdx": 1}
    conv("conv1", "data", 0, 4)
    norm("rnorm1", "conv1")
    pool("pool1", "rnorm1")
    conv("conv2", "pool1_neuron", 2, 1)
    norm("rnorm2", "conv2_neuron")
    pool("pool2", "rnorm2")
    conv("conv3", "pool2", 1, 1)
    conv("conv4", "conv3_neuron", 1, 1)
    conv("conv5", "conv4_neuron", 1, 1)
    pool("pool3", "conv5")
    fc("fc4096a", "pool3_neuron")
    add("dropout1", "dropout2", "fc4096a_neuron", keep=0.5, enable=True)
    fc("fc4096b", "dropout1")
    add("dropout2", "dropout2", "fc4096b_neuron", keep=0.5, enable=True)
    fc("fc1000", "dropout2")
    add("probs", "softmax", "fc1000")
    layers["logprob"] = {"name": "logprob", "type": "cost.logreg", "inputs": ["labvec", "probs"], "coeff": [1.0]}
    for name in ("pool1", "conv2", "conv3", "conv4", "pool3", "fc4096a", "fc4096b"):
        relu(name)
    # A dictionary of Python 2 has no order.
    return dict(sorted(layers.items(), key=lambda item: hash(item[0][::-1]) % 7))


def cuda_convnet2_checkpoint(weights: Weights) -> bytes:
    """Encode a checkpoint: the training state, and the object of options beside it."""
    options = Python2Object(
        "python_util.options.OptionsParser",
        options={"gpu": Python2Object("python_util.options.Option", letter="gpu", value=[0])},
    )
    state = {"epoch": 90, "batchnum": 417, "train_outputs": [({"logprob": [1.86, 0.43]}, 128)]}
    return Python2Pickle().dump({"model_state": {**state, "layers": cuda_convnet2_layers(weights)}, "op": options})


def write_onnx_zoo(path: Path, weights: Weights, external: bool = False) -> Path:
    """Write the graph of the ONNX zoo's `bvlcalexnet-12.onnx`: Caffe2's names, padded pooling, `Reshape` and `Gemm`."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, arrays, below, index = [], [], "data_0", 0

    def add(kind: str, inputs: Sequence[str] = (), **settings: Any) -> None:
        nonlocal below, index
        index += 1
        nodes.append(helper.make_node(kind, [below, *inputs], [f"{kind.lower()}_{index}"], **settings))
        below = nodes[-1].output[0]

    def array(name: str, value: np.ndarray) -> str:
        arrays.append(numpy_helper.from_array(value, name))
        return name

    for name in ALEXNET.split():
        kind = name.rstrip("0123456789")
        if kind == "conv":
            settings = dict(CONVOLUTIONS[name])
            inputs = [array(f"{name}_{part}_0", value) for part, value in zip("wb", weights[name], strict=True)]
            size, pad = settings[4], settings.get(3, 0)
            add("Conv", inputs, kernel_shape=[size] * 2, strides=[settings.get(6, 1)] * 2, pads=[pad] * 4,
                group=settings.get(5, 1))  # fmt: skip
        elif kind == "fc":
            if name == "fc6":
                add("Reshape", [array("shape", np.array([1, 9216]))])
            inputs = [array(f"{name}_{part}_0", value) for part, value in zip("wb", weights[name], strict=True)]
            add("Gemm", inputs, transB=1)
        elif kind == "norm":
            add("LRN", size=5, alpha=1e-4, beta=0.75, bias=1.0)
        elif kind == "pool":
            # 54 positions give 27 with a window that runs over the edge.
            add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1] if name == "pool1" else [0] * 4)
        else:
            add({"relu": "Relu", "drop": "Dropout"}[kind])
    add("Softmax")
    if external:
        arrays[0].data_location = TensorProto.EXTERNAL
        arrays[0].external_data.add(key="location", value="../elsewhere.bin")
        arrays[0].ClearField("raw_data")
    images = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [1, 3, 224, 224])
    probabilities = helper.make_tensor_value_info(below, TensorProto.FLOAT, [1, 1000])
    graph = helper.make_graph(nodes, "AlexNet", [images], [probabilities], arrays)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)]), path)
    return path
