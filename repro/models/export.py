"""`repro export`: a trained net in the formats of other programs: ONNX, torch.export, timm, a state dict.

The file or folder holds what its user needs besides the weights: the classes, and how images are preprocessed. With
`preprocessing` the graph takes uint8 images [N, S, S, 3] in RGB, squares as `repro prepare` makes them, and returns
probabilities; without, it takes float32 [N, 3, C, C], values of 0–255 less the mean, and returns logits.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import load_pretrained, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from repro import atomic
from repro.data.store import ClassInfo
from repro.data.views import Views
from repro.errors import ReproError, how_to_install, unknown
from repro.models.network import AlexNet
from repro.paper.networks import Conv, network_from_record, network_record

OPSET = 18  # of ONNX: the oldest that torch's exporter writes without conversion


@dataclass(frozen=True)
class ExportedNet:
    """A net with what belongs to it.

    Attributes:
        net: the trained net.
        views: the test views that it is evaluated on.
        classes: the classes in the order of its outputs.
        name: name of the run.
        image_size: side of the square images that crops are cut from.
        resize: how images become squares, see `repro.paper.published.Preprocessing`.
        orientation: "exif": images are first turned upright as their EXIF data say; "stored": they are not.
        description: what else the file should say of the run: variant, recipe, scale, seed, dataset.
    """

    net: AlexNet
    views: Views
    classes: Sequence[ClassInfo]
    name: str
    image_size: int
    resize: str = "shorter side"
    orientation: str = "stored"
    description: dict[str, Any] = field(default_factory=dict)

    def metadata(self, preprocessing: bool, views: int) -> dict[str, str]:
        """Return the classes and the preprocessing as text by name, as ONNX files hold them."""
        mean = self.views.mean.cpu().double().mean((0, 1)).tolist()
        described = {
            "resize": self.resize,
            "orientation": self.orientation,
            "image_size": self.image_size,
            "crop_size": self.views.crop,
            "interpolation": "bilinear, antialiased",
            "channels": "RGB",
            "mean": mean,
            "divided_by": self.views.inputs_divided_by,
            "in_graph": preprocessing,
            "views": views if preprocessing else 1,
        }
        return {
            "run": self.name,
            "classes": json.dumps([asdict(each) for each in self.classes]),
            "preprocessing": json.dumps(described),
            **{key: str(value) for key, value in self.description.items()},
        }


class ImageClassifier(nn.Module):
    """A net with its preprocessing: uint8 images [N, S, S, 3] to probabilities [N, classes].

    The probabilities are the mean over the test views: the centre crop, or the paper's ten (Sec. 4.1).
    """

    offsets: Tensor

    def __init__(self, net: AlexNet, views: Views, view_count: int = 1) -> None:
        super().__init__()
        self.net, self.crop, self.divided_by = net, views.crop, views.inputs_divided_by
        self.positions = views.positions(view_count)
        means = [views.mean_at(*position) for position in self.positions]
        self.register_buffer("offsets", torch.stack(means).clone())

    def forward(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] to [N, classes]; all views are one batch, so that the graph holds the net once."""
        patches = []
        for top, left, flipped in self.positions:
            patch = images[:, top : top + self.crop, left : left + self.crop]
            patches.append(patch.flip(2) if flipped else patch)
        inputs = (torch.stack(patches).float() - self.offsets[:, None]) / self.divided_by
        probabilities: Tensor = self.net(inputs.flatten(0, 1).permute(0, 3, 1, 2)).softmax(1)
        return probabilities.view(len(patches), -1, probabilities.shape[1]).mean(0)


def export_net(source: ExportedNet, out: Path, format: str, preprocessing: bool = False, views: int = 1) -> Path:
    """Write `source` to `out` in one of `FORMATS`; returns the path of the file or folder.

    Raises ReproError for an unknown format, packages that are missing, or a path that cannot be written.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if preprocessing and format in ("timm", "state-dict"):
        raise ReproError(f"--format {format} has no graph to put the preprocessing into: use onnx or torch-export")
    if views != 1 and not preprocessing:
        raise ReproError("several views are a part of the preprocessing: add --preprocessing")
    if out.is_dir() and format != "timm":
        raise ReproError(f"'{out}' is a folder: name a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReproError(f"cannot make the folder '{out.parent}': {error.strerror}") from error
    try:
        FORMATS[format](source, out, preprocessing, views)
    except OSError as error:
        raise ReproError(f"cannot write '{out}': {error.strerror or error}") from error
    return out


def _graph(source: ExportedNet, preprocessing: bool, views: int) -> tuple[nn.Module, Tensor]:
    """Return the module to capture, and an example of its input: two images, so that the batch is not fixed to one."""
    side = source.image_size
    # A copy in ordinary memory: weights in channels-last memory, or parts of a file's memory, are not written whole.
    net = AlexNet(source.net.network).eval()
    net.load_state_dict(_weights(source.net))
    if preprocessing:
        return ImageClassifier(net, source.views, views), torch.zeros(2, side, side, 3, dtype=torch.uint8)
    return net, torch.zeros(2, 3, source.views.crop, source.views.crop)


def _capture(source: ExportedNet, preprocessing: bool, views: int) -> torch.export.ExportedProgram:
    """Capture the net with any number of images, on the CPU."""
    module, example = _graph(source, preprocessing, views)
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module.cpu().eval(), (example,), dynamic_shapes=({0: batch},))


def _write_onnx(source: ExportedNet, out: Path, preprocessing: bool, views: int) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx writes through it
    except ImportError:
        raise ReproError(f"exporting to ONNX needs onnx and onnxscript: {how_to_install('export')}") from None
    names = ("images", "probabilities") if preprocessing else ("inputs", "logits")
    with _quiet():
        program = torch.onnx.export(
            _capture(source, preprocessing, views),
            input_names=names[:1],
            output_names=names[1:],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for key, value in source.metadata(preprocessing, views).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    atomic.write(out, model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages of torch's exporter about its versions and steps."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _write_torch_export(source: ExportedNet, out: Path, preprocessing: bool, views: int) -> None:
    with _quiet():
        program, content = _capture(source, preprocessing, views), io.BytesIO()
        torch.export.save(program, content, extra_files=source.metadata(preprocessing, views))
    atomic.write(out, content.getvalue())


def _write_state_dict(source: ExportedNet, out: Path, preprocessing: bool, views: int) -> None:
    """Write weights that `torch.load(..., weights_only=True)` reads, and a JSON file beside them."""
    content = io.BytesIO()
    torch.save(_weights(source.net), content)
    atomic.write(out, content.getvalue())
    # The ending of "net-lr0.01" is a part of its name, and that of "net.json" would be the description's.
    described = out.with_suffix(".json") if out.suffix in (".pth", ".pt") else out.with_name(f"{out.name}.json")
    atomic.write_json(described, source.metadata(False, 1) | {"input_size": source.views.crop})


def _weights(net: AlexNet) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


class OffsetAlexNet(AlexNet):
    """A net for images less a mean per channel, as timm normalizes them; a buffer holds what the mean image adds."""

    input_offset: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        side = self.network.input_size
        self.register_buffer("input_offset", torch.zeros(3, side, side))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the features of the images less the buffer."""
        return super().forward_features(images - self.input_offset)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the images less the buffer."""
        return super().forward(images - self.input_offset)


def _write_timm(source: ExportedNet, out: Path, preprocessing: bool, views: int) -> None:
    """Write a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads."""
    network, crop, divided_by = source.net.network, source.views.crop, source.views.inputs_divided_by
    middle = source.views.margin // 2
    mean = source.views.mean_at(middle, middle, False).cpu().double()
    channel_means = mean.mean((0, 1))
    offset = ((mean - channel_means) / divided_by).permute(2, 0, 1).float()
    first = next(layer.name for layer in network.layers if isinstance(layer, Conv))
    config = {
        "architecture": "repro_run",
        "num_classes": network.classes,
        "num_features": source.net.num_features,
        "model_args": {"layers": network_record(network), "input_size": network.input_size},
        "pretrained_cfg": {
            "input_size": [3, crop, crop],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": crop / source.image_size,
            "crop_mode": "squash" if source.resize == "squash" else "center",
            "mean": (channel_means / 255).tolist(),
            "std": [divided_by / 255] * 3,
            "num_classes": network.classes,
            "first_conv": first,
            "classifier": network.layers[-1].name,
            "label_names": [each.id for each in source.classes],
            "label_descriptions": {each.id: each.name for each in source.classes},
            "origin_url": source.name,
        },
    }
    atomic.make_folder(out)
    weights = {**_weights(source.net), "input_offset": offset.contiguous()}
    atomic.write(out / "model.safetensors", safetensors.torch.save(weights))
    atomic.write_json(out / "config.json", config)


@register_model
def repro_run(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    layers: Sequence[dict[str, Any]] = (),
    input_size: int = 224,
    num_classes: int | None = None,
    pretrained_model_args: Any = None,
) -> OffsetAlexNet:
    """Build the net that an exported folder describes; timm calls this with the folder's `model_args`.

    `pretrained_model_args` are the same once more, from recent versions of timm.
    """
    model = OffsetAlexNet(network_from_record(layers, input_size))
    config: Any = resolve_pretrained_cfg("repro_run", pretrained_cfg, pretrained_cfg_overlay)
    model.pretrained_cfg = model.default_cfg = config.to_dict()
    if pretrained:
        load_pretrained(model, model.pretrained_cfg, num_classes=model.num_classes, cache_dir=cache_dir)
    if num_classes is not None and num_classes != model.num_classes:
        model.reset_classifier(num_classes)
    return model


FORMATS: dict[str, Callable[[ExportedNet, Path, bool, int], None]] = {
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "timm": _write_timm,
    "state-dict": _write_state_dict,
}
