"""Published weights: the nets compute what the publishers' own programs compute, and bad files are errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_files import (
    ALEXNET,
    CAFFE_SHAPES,
    CAFFENET,
    ONE_TOWER_SHAPES,
    Python2Pickle,
    Weights,
    caffemodel,
    cuda_convnet2_checkpoint,
    cuda_convnet2_layers,
    message,
    random_weights,
    write_onnx_zoo,
)
from torch import Tensor

from repro.errors import ReproError
from repro.models.published import PublishedWeights, read_published
from repro.paper.arithmetic import count
from repro.paper.published import MODELS
from repro.preparation.preprocess import to_square

pytest.importorskip("onnx")  # with protobuf, which reads Caffe's files too


@pytest.fixture(scope="module")
def photographs(real_images: Callable[[str], Path]) -> np.ndarray:
    """Three photographs as a store has them, uint8 [3, 256, 256, 3]."""
    paths = sorted(path for path in real_images("imagenet5").rglob("*") if path.is_file())
    images = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    return np.stack([to_square(path.read_bytes(), 256) for path in images[:: len(images) // 3][:3]])


def crop(images: np.ndarray, size: int) -> np.ndarray:
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def logits(published: PublishedWeights, images: np.ndarray) -> Tensor:
    """The imported net's outputs for uint8 RGB images, by this program's convention: values of 0–255 less the mean."""
    mean = published.model.preprocessing.mean or (120.0, 110.0, 100.0)
    inputs = torch.from_numpy(crop(images, published.network.input_size) - np.array(mean, np.float32))
    with torch.inference_mode():
        return published.build()(inputs.permute(0, 3, 1, 2).contiguous())


def double(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).double()


def lrn(x: Tensor, k: float) -> Tensor:
    """Normalization over five maps with alpha 1e-4 / 5, summed map by map."""
    squares = torch.stack([(x[:, max(0, i - 2) : i + 3] ** 2).sum(1) for i in range(x.shape[1])], 1)
    return x / (k + 1e-4 / 5 * squares) ** 0.75


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def caffe_forward(weights: Weights, images: np.ndarray, mean: tuple[float, ...], after_pool: bool) -> Tensor:
    """Caffe's net in float64 on BGR values less the mean; dropout does nothing in testing."""
    w = {name: (double(weight), double(bias)) for name, (weight, bias) in weights.items()}
    x = double(images - np.array(mean)).permute(0, 3, 1, 2).flip(1)
    for name, stride in (("conv1", 4), ("conv2", 1)):
        x = F.relu(F.conv2d(x, *w[name], stride=stride, padding=0 if stride > 1 else 2, groups=1 if stride > 1 else 2))
        x = lrn(pool(x), 1.0) if after_pool else pool(lrn(x, 1.0))
    x = F.relu(F.conv2d(x, *w["conv3"], padding=1))
    x = F.relu(F.conv2d(x, *w["conv4"], padding=1, groups=2))
    x = pool(F.relu(F.conv2d(x, *w["conv5"], padding=1, groups=2))).flatten(1)
    x = F.relu(F.linear(x, *w["fc6"]))
    return F.linear(F.relu(F.linear(x, *w["fc7"])), *w["fc8"])


def cuda_convnet2_forward(weights: Weights, inputs: Tensor) -> Tensor:
    """cuda-convnet2's net in float64; its dropout multiplies by one half in testing."""
    w = {name: (double(weight), double(bias)) for name, (weight, bias) in weights.items()}
    # The last window runs over the right and bottom edge: 224 pixels give 55 positions.
    x = F.relu(pool(lrn(F.conv2d(F.pad(inputs, (0, 3, 0, 3)), *w["conv1"], stride=4), 2.0)))
    x = pool(lrn(F.relu(F.conv2d(x, *w["conv2"], padding=2)), 2.0))
    x = F.relu(F.conv2d(x, *w["conv3"], padding=1))
    x = F.relu(F.conv2d(x, *w["conv4"], padding=1))
    x = F.relu(pool(F.conv2d(x, *w["conv5"], padding=1))).flatten(1)
    x = F.relu(F.linear(x, *w["fc4096a"])) * 0.5
    return F.linear(F.relu(F.linear(x, *w["fc4096b"])) * 0.5, *w["fc1000"])


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Logits agree to 1e-5 of their size, and so do the probabilities; the images are told apart."""
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(found.softmax(1).double(), expected.double().softmax(1), rtol=0, atol=1e-5)


def test_torchvision_alexnet_computes_what_torchvision_computes(tmp_path: Path, photographs: np.ndarray) -> None:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.alexnet().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save(model.state_dict(), path)
    published = read_published(path)
    preprocess = torchvision.transforms.Compose(
        [
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        expected = model(torch.stack([preprocess(image) for image in crop(photographs, 224)]))
    assert published.model.name == "torchvision-alexnet"
    assert published.classes[0].id == "n01440764"
    assert published.classes[999].id == "n15075141"
    assert_same(logits(published, photographs), expected)


@pytest.mark.parametrize(
    ("order", "old", "name"), [(ALEXNET, True, "caffe-alexnet"), (CAFFENET, False, "caffe-caffenet")]
)
def test_caffe_nets_compute_what_their_layers_say(
    order: str, old: bool, name: str, tmp_path: Path, photographs: np.ndarray
) -> None:
    photographs = photographs[:2]
    weights = random_weights(CAFFE_SHAPES)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(weights, order, old))
    published = read_published(path)
    path.unlink()
    expected = caffe_forward(weights, crop(photographs, 227), (123, 117, 104), after_pool=order == CAFFENET)
    assert published.model.name == name
    assert_same(logits(published, photographs), expected)


def test_a_caffemodel_is_read_as_openvino_evaluates_it_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "bvlc_alexnet.caffemodel"
    path.write_bytes(caffemodel(small_weights()))
    with pytest.raises(ReproError, match=r"does not have the layers of caffe-caffenet: it has .*LRN.* expected .*Pool"):
        read_published(path, "caffe-caffenet")
    with pytest.raises(
        ReproError, match=r"does not hold openvino-alexnet: its conv1.weight has the shape \[1, 1, 1, 1\]"
    ):
        read_published(path, "openvino-alexnet")
    with pytest.raises(ReproError, match="unknown published net 'openvino': did you mean openvino-alexnet"):
        read_published(path, "openvino")


def test_an_onnx_zoo_net_computes_what_its_graph_says(tmp_path: Path, photographs: np.ndarray) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = random_weights(CAFFE_SHAPES, seed=1)
    path = write_onnx_zoo(tmp_path / "bvlcalexnet-12.onnx", weights)
    published = read_published(path)
    images = crop(photographs, 224) - np.array((123.68, 116.779, 103.939), np.float32)
    blobs = np.ascontiguousarray(images.transpose(0, 3, 1, 2)[:, ::-1], np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"data_0": blob[None]})[0] for blob in blobs])
    path.unlink()
    assert published.model.name == "onnx-zoo-alexnet"
    found = logits(published, photographs)
    torch.testing.assert_close(found.softmax(1), torch.from_numpy(expected), rtol=0, atol=1e-5)
    reference = caffe_forward(weights, crop(photographs, 224), (123.68, 116.779, 103.939), after_pool=False)
    assert_same(found, reference)


def test_a_cuda_convnet2_checkpoint_computes_what_its_layers_say(tmp_path: Path, photographs: np.ndarray) -> None:
    weights = random_weights(ONE_TOWER_SHAPES, seed=2)
    path = tmp_path / "90.417"
    path.write_bytes(cuda_convnet2_checkpoint(weights))
    published = read_published(path)
    path.unlink()
    inputs = double(crop(photographs, 224) - np.array((120.0, 110.0, 100.0))).permute(0, 3, 1, 2)
    assert published.model.name == "cuda-convnet2-alexnet"
    assert published.classes == ()  # they are in the order of the development kit that it was trained from
    assert_same(logits(published, photographs), cuda_convnet2_forward(weights, inputs))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_published_net_fits_its_crops_and_has_61_million_parameters(model: object) -> None:
    assert model.network.input_size == model.preprocessing.crop_size
    assert all(row.size > 0 for row in count(model.network))
    assert 60e6 < sum(row.parameters for row in count(model.network)) < 63e6
    assert all(0 < result.top5_error < result.top1_error < 50 for result in model.results)


class Harmful:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"open({str(self.path)!r}, 'w')",))


@pytest.mark.parametrize("name", ["alexnet.pth", "90.417"])
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save({"features.0.weight": Harmful(made)}, path)
    else:
        path.write_bytes(pickle.dumps({"model_state": {"layers": Harmful(made)}}, protocol=2))
    with pytest.raises(ReproError, match=r"(?i)exec"):
        read_published(path)
    assert not made.exists()


def small_weights() -> Weights:
    return {name: (np.zeros((1,) * len(shape), "f4"), np.zeros(1, "f4")) for name, shape in CAFFE_SHAPES.items()}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_is_one_error(share: float, tmp_path: Path) -> None:
    one_tower = {
        name: (np.zeros((2,) * len(shape), "f4"), np.zeros(2, "f4")) for name, shape in ONE_TOWER_SHAPES.items()
    }
    onnx_file = write_onnx_zoo(tmp_path / "whole.onnx", small_weights())
    torch.save({"features.0.weight": torch.zeros(9, 9)}, tmp_path / "whole.pth")
    whole = {
        "cut.caffemodel": caffemodel(small_weights()),
        "90.417": cuda_convnet2_checkpoint(one_tower),
        "cut.onnx": onnx_file.read_bytes(),
        "cut.pth": (tmp_path / "whole.pth").read_bytes(),
    }
    for name, content in whole.items():
        path = tmp_path / name
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ReproError, match=name):
            read_published(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not weights at all\n", b"\x80\x02}.", b"\x80\x02N."])
@pytest.mark.parametrize("name", ["a.pth", "a.caffemodel", "a.onnx", "90.417"])
def test_a_file_of_something_else_is_one_error(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReproError, match=name):
        read_published(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "net.h5", "net.NPZ"])
def test_a_format_that_is_not_read_is_named_as_such(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"content")
    with pytest.raises(ReproError, match=rf"{name}' has none of the formats .* \.pth, \.pt, \.caffemodel, \.onnx, or"):
        read_published(path)


def test_arrays_of_another_shape_are_one_error(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    torch.save(
        {"features.0.weight": torch.zeros(64, 3, 11, 10), "features.0.bias": torch.zeros(64)}, tmp_path / "a.pth"
    )
    with pytest.raises(ReproError, match=r"conv1\.weight has the shape \[64, 3, 11, 10\], expected \[64, 3, 11, 11\]"):
        read_published(tmp_path / "a.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "b.pth")
    with pytest.raises(ReproError, match="has the entry 'weight', which torchvision's alexnet has not"):
        read_published(tmp_path / "b.pth")
    layers = cuda_convnet2_layers(
        {name: (np.zeros((2,) * len(s), "f4"), np.zeros(2, "f4")) for name, s in ONE_TOWER_SHAPES.items()}
    )
    layers["conv2"]["biases"] = np.zeros((50, 1), np.float32)
    (tmp_path / "1.1").write_bytes(Python2Pickle().dump({"model_state": {"layers": layers}}))
    with pytest.raises(ReproError, match="'conv2' has 50 biases for 2 kernels"):
        read_published(tmp_path / "1.1")
    write_onnx_zoo(tmp_path / "a.onnx", small_weights(), external=True)
    with pytest.raises(ReproError, match="'conv1_w_0' is in another file"):
        read_published(tmp_path / "a.onnx")
    blob = message((7, message((1, bytes([2, 3])))), (5, np.zeros(5, "f4").tobytes()))
    layer = message((1, "ip"), (2, "InnerProduct"), (3, "data"), (4, "ip"), (7, blob), (7, blob))
    (tmp_path / "a.caffemodel").write_bytes(message((100, layer)))
    with pytest.raises(ReproError, match=r"'ip' has an array of 5 values with the shape \[2, 3\]"):
        read_published(tmp_path / "a.caffemodel")


def test_values_that_are_not_finite_are_one_error(tmp_path: Path) -> None:
    weights = small_weights() | {"conv1": (np.full(CAFFE_SHAPES["conv1"], np.nan, "f4"), np.zeros(96, "f4"))}
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(weights))
    with pytest.raises(ReproError, match=r"conv1\.weight has values that are not finite"):
        read_published(tmp_path / "a.caffemodel")
