"""A finished run, opened once: its net with the trained weights, its classes and its preprocessing."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from repro.data.store import SQUASH, Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.predictions import mean_softmax
from repro.models.devices import find_devices
from repro.models.finite import all_finite
from repro.models.network import AlexNet
from repro.models.towers import Towers, to_devices
from repro.paper.networks import Network, network_from_record
from repro.paper.recipes import Augmentation
from repro.preparation.preprocess import UndecodableImage, exif_orientation, rgb_pixels, to_square
from repro.records.reading import read_checksum, read_run
from repro.records.runs import Run
from repro.records.schema import ClassRecord, PreprocessingRecord

ImageLike: TypeAlias = str | Path | bytes | bytearray | memoryview | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True)
class Guess:
    """A class with its probability."""

    id: str
    name: str
    probability: float


@dataclass(frozen=True)
class TrainedModel:
    """A finished run, ready to be used; the store that it was trained on is not needed.

    Attributes:
        run: the run's record and folder.
        net: the trained net in evaluation mode, with preprocessed images [N, 3, S, S] as input and logits
            [N, classes] as output, both on the first of `devices`.
        devices: one device, or two with a tower of the net on each.
        preprocessing: from an image to the net's input.
        mean: mean image that is subtracted, float32 [S, S, 3] of values 0–255.
        checksum: SHA-256 of the weights, which identifies the run among copies and namesakes.
    """

    run: Run
    net: AlexNet | Towers
    devices: tuple[torch.device, ...]
    preprocessing: PreprocessingRecord
    mean: NDArray[np.float32]
    checksum: str

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """The classes, in the order of the net's outputs."""
        return self.run.data.classes

    def views(self, store: Store | None = None) -> Views:
        """Return the test views of the run's images, or of those of `store`, less the run's own mean.

        Raises ReproError if the images of `store` have another size than those that the run was trained on.
        """
        if store is not None and store.size != self.preprocessing.image_size:
            raise ReproError(
                f"the store '{store.path}' has images of {store.size} pixels, the run '{self.run.folder}' takes "
                f"{self.preprocessing.image_size}: prepare it with --size {self.preprocessing.image_size}"
            )
        settings = self.preprocessing
        augmentation = Augmentation(mean_of_patch=settings.mean_of_patch, inputs_divided_by=settings.inputs_divided_by)
        no_colour_noise = np.zeros((3, 3))
        return Views(self.mean, no_colour_noise, settings.crop_size, augmentation, self.devices[0])

    def check_store(self, store: Store, splits: Sequence[str], same: bool = True) -> None:
        """Raise ReproError if `store` does not fit the run, see `check_store`."""
        check_store(self.run, store, splits, same)

    def in_order_of(self, store: Store) -> TrainedModel:
        """Return the model with its outputs in the order of the classes of `store`, which has the same ids.

        Raises ReproError if that changes the order and the net is on two devices.
        """
        order = class_order(self.run, store)
        if order == list(range(len(order))):
            return self
        if not isinstance(self.net, AlexNet):
            raise ReproError("the classes of the store are in another order: name one device with --devices")
        net = copy.deepcopy(self.net)
        with torch.no_grad():
            for parameter in net.get_classifier().parameters():
                parameter.copy_(parameter[order].clone())
        classes = tuple(self.classes[index] for index in order)
        return replace(self, net=net, run=replace(self.run, data=replace(self.run.data, classes=classes)))

    def preprocess(self, image: ImageLike) -> NDArray[np.uint8]:
        """Return an image as a store would hold it, uint8 [S, S, 3]. Raises ReproError if it cannot be decoded.

        `image` is a file's path or contents, uint8 RGB pixels [H, W, 3], or a PIL image, which is turned upright where
        the store's images were, if its EXIF data say so.
        """
        return preprocess(image, self.preprocessing)

    @torch.inference_mode()
    def probabilities(self, images: NDArray[np.uint8], views: int = 10) -> Tensor:
        """Return the softmax outputs for stored images [N, S, S, 3], averaged over views, float32 [N, classes]."""
        return mean_softmax(self.net, self.views(), images, views, "fp32").cpu()

    def predict(self, image: ImageLike, views: int = 10, top: int = 5) -> tuple[Guess, ...]:
        """Return the `top` most probable classes of an image, the most probable first.

        The image is preprocessed as `repro prepare` does, and `views` are averaged as in `repro evaluate`: the ten of
        the paper, or the centre crop (Sec. 4.1). Raises ReproError if the image cannot be decoded.
        """
        return best_guesses(self.probabilities(self.preprocess(image)[None], views)[0], self.classes, top)


def check_store(run: Run, store: Store, splits: Sequence[str], same: bool = True) -> None:
    """Raise ReproError if `store` lacks any of `splits`, or is not the one that the run was trained on.

    Without `same` it may be another, if it has the same classes by id, in any order.
    """
    for split in splits:
        if split not in store.splits:
            raise ReproError(f"the store '{store.path}' has no split '{split}', only {', '.join(store.splits)}")
    trained_on = run.data
    if same and trained_on.fingerprint != store.fingerprint:
        raise ReproError(
            f"the run '{run.folder}' was trained on other data than '{store.path}' (fingerprint "
            f"{trained_on.fingerprint[:12]}, not {store.fingerprint[:12]}): name the store '{trained_on.path}'"
        )
    known, found = {each.id for each in trained_on.classes}, {info.id for info in store.classes}
    if known != found:
        differing = sorted(known ^ found)[0]
        where = "the run" if differing in known else "the store"
        raise ReproError(
            f"the run '{run.folder}' and the store '{store.path}' have other classes: {len(known):,} and "
            f"{len(found):,}, and only {where} has '{differing}'; name a store with the classes of "
            f"'{trained_on.path or trained_on.dataset}'"
        )


def class_order(run: Run, store: Store) -> list[int]:
    """Return the position among the run's classes of each class of `store`, which has the same ids."""
    positions = {each.id: index for index, each in enumerate(run.data.classes)}
    return [positions[info.id] for info in store.classes]


def open_run(path: str | Path, devices: str | None = None, store: Store | None = None) -> TrainedModel:
    """Open the finished run in the folder `path`, or that of a `run.json`, with its net on `devices`.

    `devices` is a device such as "cpu" or "cuda:0", or two that hold one tower each; None for a GPU if there is one,
    else the CPU. A run of an older version does not hold its mean image: it is that of `store`, if the run was trained
    on it, or of the store at the path of then. Raises ReproError if there is no run, if it is not finished, if its
    weights are damaged or not finite, or if there is no mean image.
    """
    run = read_run(Path(path))
    run.require_net()
    found = find_devices(devices)
    weights, checksum = read_weights(run)
    net = _net(run, weights)
    preprocessing, mean = read_preprocessing(run, store)
    return TrainedModel(run, to_devices(net, found).eval(), found, preprocessing, mean, checksum)


def read_weights(run: Run) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a finished run by name, on the CPU, and their SHA-256.

    Raises ReproError if the run is not that of a net or not finished, or if its weights cannot be read, do not have
    the checksum that was written with them, or are not finite.
    """
    run.require_net()
    return read_tensors(run)


def read_tensors(run: Run) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a finished run, of a net or not, see `read_weights`."""
    run.require_weights()
    try:
        content = run.weights_path.read_bytes()
        weights = safetensors.torch.load(content)
    except (OSError, safetensors.SafetensorError) as error:
        raise damaged_weights(run, str(error).splitlines()[0]) from error
    checksum = hashlib.sha256(content).hexdigest()
    written = read_checksum(run.folder)
    if written is not None and checksum != written:
        raise damaged_weights(run, f"checksum mismatch: SHA-256 {checksum[:12]}…, not {written[:12]}…")
    for name, value in weights.items():
        if not all_finite(value):
            raise ReproError(
                f"the weights '{run.weights_path}' are not finite ({name}): the training diverged; train the run again "
                "with a lower --lr"
            )
    return weights, checksum


def _net(run: Run, weights: dict[str, Tensor]) -> AlexNet:
    net = AlexNet(network_of(run))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged_weights(run, str(error).splitlines()[0]) from error
    return net


def damaged_weights(run: Run, reason: str) -> ReproError:
    """Return the error for weights that cannot be used."""
    return ReproError(f"the weights '{run.weights_path}' are damaged ({reason}): train the run again")


def network_of(run: Run) -> Network:
    """Return the net that a run's record spells out. Raises ReproError if it does not."""
    try:
        network = network_from_record(run.network, run.input_size)
        if network.classes != len(run.data.classes):
            raise ValueError(f"{network.classes} outputs for {len(run.data.classes)} classes")
    except ValueError as error:
        raise ReproError(f"'{run.folder}' does not spell out its net ({error}): train the run again") from error
    return network


def read_preprocessing(run: Run, store: Store | None = None) -> tuple[PreprocessingRecord, NDArray[np.float32]]:
    """Return a run's preprocessing and its mean image [S, S, 3]. Raises ReproError if they are not there.

    A run of an older version has neither: the mean is then that of `store`, if the run was trained on it, or that of
    the store at its recorded path.
    """
    if run.preprocessing is not None and run.mean_path.exists():
        size = run.preprocessing.image_size
        try:
            mean = np.load(run.mean_path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ReproError(f"the mean image '{run.mean_path}' is damaged ({error}): train the run again") from error
        if mean.dtype != np.float32 or mean.shape != (size, size, 3) or not np.isfinite(mean).all():
            found = f"{mean.dtype} {list(mean.shape)}"
            raise ReproError(
                f"the mean image '{run.mean_path}' is damaged ({found}, expected float32 {[size, size, 3]})"
            )
        return run.preprocessing, mean
    if store is None or store.fingerprint != run.data.fingerprint:
        try:
            store = open_store(Path(run.data.path))
        except ReproError as error:
            raise ReproError(
                f"'{run.folder}' is of an older version and needs its store for the mean image: {error}"
            ) from error
    if store.fingerprint != run.data.fingerprint:
        raise ReproError(f"'{run.folder}' needs its store for the mean image, and '{store.path}' holds other data")
    augmentation = run.settings.get("augmentation", {})
    settings = {key: augmentation[key] for key in ("mean_of_patch", "inputs_divided_by") if key in augmentation}
    return PreprocessingRecord(store.size, run.input_size, **settings), store.mean


def preprocess(image: ImageLike, preprocessing: PreprocessingRecord) -> NDArray[np.uint8]:
    """Return an image as a store would hold it, uint8 [S, S, 3]. Raises ReproError if it cannot be decoded."""
    name = f"'{image}'" if isinstance(image, str | Path) else "the image"
    turn, orientation = preprocessing.orientation == "exif", 1
    try:
        if isinstance(image, Image.Image):
            image, orientation = rgb_pixels(image)
        elif isinstance(image, str | Path | bytes | bytearray | memoryview):
            image = Path(image).read_bytes() if isinstance(image, str | Path) else bytes(image)
            orientation = exif_orientation(image) if turn else 1
        _check_pixels(image)
        orientation = orientation if turn else 1
        squash = preprocessing.resize == SQUASH
        return to_square(image, preprocessing.image_size, orientation=orientation, squash=squash)
    except OSError as error:
        raise ReproError(f"cannot read {name}: {error.strerror or error}") from error
    except UndecodableImage as error:
        raise ReproError(f"{name} cannot be used: {error}") from error


def _check_pixels(image: object) -> None:
    """Raise ReproError if `image` is neither encoded nor RGB pixels."""
    if isinstance(image, bytes):
        return
    if not isinstance(image, np.ndarray):
        raise ReproError(f"an image is a path, the bytes of a file, pixels or a PIL image, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ReproError(f"pixels must be uint8 [H, W, 3] in RGB, not {image.dtype} {list(image.shape)}")


def best_guesses(probabilities: Tensor, classes: Sequence[ClassRecord], top: int) -> tuple[Guess, ...]:
    """Return the `top` classes of the highest probabilities [classes]."""
    best = probabilities.topk(min(top, len(probabilities)))
    return tuple(
        Guess(classes[index].id, classes[index].readable_name, probability)
        for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
