"""Nets of AlexNet's kind whose weights others published: layers, preprocessing, accuracy; imports no torch.

Each was evaluated by its publisher on the 50,000 validation images of ILSVRC-2012. A reader with those images can
check data preparation, nets and evaluation against these numbers without training anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from repro.paper.networks import LRN, Activation, Conv, Dropout, Linear, Network, Pool

Resize = Literal["shorter side", "squash"]


@dataclass(frozen=True)
class Preprocessing:
    """From an image to a net's input.

    Attributes:
        image_size: side of the square images that crops are cut from, in pixels.
        crop_size: side of a crop, in pixels.
        mean: RGB mean that is subtracted, of values 0–255; None for the mean image of the store.
        resize: "shorter side": the shorter side is resized to `image_size` and the central square cut out, as
            `repro prepare` does; "squash": both sides are resized to `image_size`.
    """

    image_size: int
    crop_size: int
    mean: tuple[float, float, float] | None = None
    resize: Resize = "shorter side"


@dataclass(frozen=True)
class PublishedResult:
    """An error in percent on the 50,000 validation images of ILSVRC-2012, as its publisher gives it.

    Attributes:
        top1_error: top-1 error.
        top5_error: top-5 error.
        source: where it was published.
        views: number of views that are averaged, 1 or 10.
        tolerance: largest deviation, in points, that counts as a match.
        tolerance_reason: what may differ by that much.
    """

    top1_error: float
    top5_error: float
    source: str
    views: int = 1
    tolerance: float = 0.3
    tolerance_reason: str = "images on the edge of a decision: resampling and JPEG decoding differ by a grey level"


@dataclass(frozen=True)
class PublishedModel:
    """A net whose weights others published.

    Attributes:
        name: name of the net, which takes the place of a variant in the record of an imported run.
        summary: what the net is, in a line.
        files: names of the files that it is distributed as.
        network: the layers.
        preprocessing: from an image to the input of the net with which the results were measured.
        results: published errors.
    """

    name: str
    summary: str
    files: tuple[str, ...]
    network: Network
    preprocessing: Preprocessing
    results: tuple[PublishedResult, ...]


def _fully_connected(
    inputs_dropped: bool = False, outputs_dropped: bool = True
) -> tuple[Linear | Activation | Dropout, ...]:
    """Layers fc6 to fc8, with dropout before or after the two hidden ones."""
    return (
        *((Dropout("drop5"),) if inputs_dropped else ()),
        Linear("fc6", 4096), Activation("relu6"), Dropout("drop6"),
        Linear("fc7", 4096), Activation("relu7"), *((Dropout("drop7"),) if outputs_dropped else ()),
        Linear("fc8", 1000),
    )  # fmt: skip


# One tower and no normalization, from "One weird trick for parallelizing convolutional neural networks" (2014).
TORCHVISION_ALEXNET = Network((
    Conv("conv1", 64, 11, stride=4, padding=2), Activation("relu1"), Pool("pool1"),
    Conv("conv2", 192, 5, padding=2), Activation("relu2"), Pool("pool2"),
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 256, 3, padding=1), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1), Activation("relu5"), Pool("pool5"),
    *_fully_connected(inputs_dropped=True, outputs_dropped=False),
))  # fmt: skip

# The same net with normalization, in the order of the authors' program of 2012, from the same paper.
CUDA_CONVNET2_ALEXNET = Network((
    Conv("conv1", 64, 11, stride=4, round_up=True),
    LRN("lrn1", alpha=1e-4 / 5), Pool("pool1"), Activation("relu1"),
    Conv("conv2", 192, 5, padding=2), Activation("relu2"), LRN("lrn2", alpha=1e-4 / 5), Pool("pool2"),
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 256, 3, padding=1), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1), Pool("pool5"), Activation("relu5"),
    *_fully_connected(),
))  # fmt: skip

_CAFFE_LRN = LRN("lrn1", k=1.0, alpha=1e-4 / 5)
_CAFFE_TOP = (
    Conv("conv3", 384, 3, padding=1), Activation("relu3"),
    Conv("conv4", 384, 3, padding=1, towers=2), Activation("relu4"),
    Conv("conv5", 256, 3, padding=1, towers=2), Activation("relu5"), Pool("pool5"),
    *_fully_connected(),
)  # fmt: skip

# Two towers as in the paper; k is 1, and normalization is across both towers.
CAFFE_ALEXNET = Network((
    Conv("conv1", 96, 11, stride=4), Activation("relu1"), _CAFFE_LRN, Pool("pool1"),
    Conv("conv2", 256, 5, padding=2, towers=2), Activation("relu2"), replace(_CAFFE_LRN, name="lrn2"), Pool("pool2"),
    *_CAFFE_TOP,
), input_size=227)  # fmt: skip

# CaffeNet normalizes after pooling.
CAFFENET = Network((
    Conv("conv1", 96, 11, stride=4), Activation("relu1"), Pool("pool1"), _CAFFE_LRN,
    Conv("conv2", 256, 5, padding=2, towers=2), Activation("relu2"), Pool("pool2"), replace(_CAFFE_LRN, name="lrn2"),
    *_CAFFE_TOP,
), input_size=227)  # fmt: skip

_CAFFE_PREPROCESSING = Preprocessing(256, 227, mean=(123.0, 117.0, 104.0), resize="squash")

MODELS = {
    model.name: model
    for model in (
        PublishedModel(
            "torchvision-alexnet",
            "torchvision's alexnet: one tower, 64-192-384-256-256 kernels, no normalization",
            ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
            TORCHVISION_ALEXNET,
            Preprocessing(256, 224, mean=(0.485 * 255, 0.456 * 255, 0.406 * 255)),
            (PublishedResult(100 - 56.522, 100 - 79.066, "torchvision, AlexNet_Weights.IMAGENET1K_V1"),),
        ),
        PublishedModel(
            "caffe-alexnet",
            "Caffe's bvlc_alexnet: two towers, normalization before pooling",
            ("bvlc_alexnet.caffemodel",),
            CAFFE_ALEXNET,
            _CAFFE_PREPROCESSING,
            (
                PublishedResult(
                    100 - 57.1,
                    100 - 80.2,
                    "Caffe, models/bvlc_alexnet/readme.md",
                    tolerance=0.6,
                    tolerance_reason="published to a tenth, with the mean image instead of the mean pixel",
                ),
            ),
        ),
        PublishedModel(
            "openvino-alexnet",
            "bvlc_alexnet as OpenVINO's Open Model Zoo evaluates it",
            ("alexnet.caffemodel", "bvlc_alexnet.caffemodel"),
            CAFFE_ALEXNET,
            _CAFFE_PREPROCESSING,
            (PublishedResult(100 - 56.598, 100 - 79.812, "Open Model Zoo, models/public/alexnet"),),
        ),
        PublishedModel(
            "onnx-zoo-alexnet",
            "bvlc_alexnet as the ONNX model zoo converts and evaluates it: whole images squashed to 224 pixels",
            ("bvlcalexnet-12.onnx", "bvlcalexnet-9.onnx"),
            replace(CAFFE_ALEXNET, input_size=224),
            Preprocessing(224, 224, mean=(123.68, 116.779, 103.939), resize="squash"),
            (PublishedResult(100 - 54.80, 100 - 78.23, "ONNX model zoo, vision/classification/alexnet"),),
        ),
        PublishedModel(
            "caffe-caffenet",
            "Caffe's bvlc_reference_caffenet: two towers, normalization after pooling",
            ("bvlc_reference_caffenet.caffemodel",),
            CAFFENET,
            _CAFFE_PREPROCESSING,
            (
                PublishedResult(
                    100 - 57.4,
                    100 - 80.4,
                    "Caffe, models/bvlc_reference_caffenet/readme.md",
                    tolerance=0.6,
                    tolerance_reason="published to a tenth, with the mean image instead of the mean pixel",
                ),
            ),
        ),
        PublishedModel(
            "cuda-convnet2-alexnet",
            "cuda-convnet2's one-tower example on ImageNet, 64-192-384-256-256 kernels",
            (),
            CUDA_CONVNET2_ALEXNET,
            Preprocessing(256, 224),
            (
                PublishedResult(42.5480, 19.8100, "cuda-convnet2, TrainingExample"),
                PublishedResult(40.4200, 18.1500, "cuda-convnet2, TrainingExample", views=10),
            ),
        ),
    )
}
