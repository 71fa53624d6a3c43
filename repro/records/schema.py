"""The records as dataclasses: what each file contains, field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repro.formatting import valid_text
from repro.paper.datasets import DATASET_SIZES
from repro.records.conversion import FORMAT, finite_number

NET, BASELINE = "net", "baseline"  # kinds of runs
SPACES = ("fc7", "pixels", "codes")  # in which neighbours are retrieved


@dataclass(frozen=True)
class ClassRecord:
    """A class of the dataset: its id in the source (a WordNet id or a folder's name) and its readable name."""

    id: str = ""
    name: str = ""

    @property
    def readable_name(self) -> str:
        """The name, or else the id, as valid text: a folder's name need not be UTF-8."""
        return valid_text(self.name or self.id)


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The store that a run was trained on or evaluated on. Two are equal if dataset and fingerprint are.

    Attributes:
        dataset: name of the dataset, or "folder" for the user's own images.
        name: name of the store's folder.
        path: path of the store as it was given.
        fingerprint: SHA-256 over the store's contents.
        size: side of the stored images in pixels.
        classes: the classes, in the order of the labels.
        images: number of images by split.
    """

    dataset: str
    name: str = field(default="", compare=False)
    path: str = field(default="", compare=False)
    fingerprint: str = ""
    size: int = field(default=0, compare=False)
    classes: tuple[ClassRecord, ...] = field(default=(), compare=False)
    images: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def has_top5_error(self) -> bool:
        """Whether a top-5 error says anything: with at most five classes one of five guesses is always right."""
        return not 0 < len(self.classes) <= 5

    @property
    def class_names(self) -> tuple[str, ...]:
        """Readable names of the classes, in the order of the labels."""
        return tuple(each.readable_name for each in self.classes)

    @property
    def label(self) -> str:
        """Name of the data for readers, marked if the store holds only a part of the training images."""
        if self.dataset == "folder":
            return valid_text(self.name) or "a folder of images"
        if self.dataset == "synthetic":
            return "the built-in synthetic images"
        official, train = DATASET_SIZES.get(self.dataset), self.images.get("train")
        partial = official is not None and train is not None and train < 0.9 * official.train
        return f"a part of {self.dataset}" if partial else self.dataset

    @property
    def description(self) -> str:
        """The label with the number of classes, where it is known."""
        return f"{self.label} ({len(self.classes):,} classes)" if self.classes else self.label


@dataclass(frozen=True)
class MachineRecord:
    """The machine that computed a result.

    Attributes:
        platform: operating system and its version.
        processor: model name of the processor.
        instructions: vector instructions of the processor that torch uses, such as "AVX512, bf16".
        cpus: number of logical processors.
        gpus: names of the GPUs, separated by commas.
        switches: settings of torch that decide which bits the GPUs compute, such as "cudnn.benchmark False",
            separated by commas; empty without GPUs.
        threads: number of threads with which torch computed on the CPU, on which the rounding of results depends. None
            where an earlier version did not record it.
    """

    platform: str = ""
    processor: str = ""
    instructions: str = ""
    cpus: int | None = None
    gpus: str = ""
    switches: str = ""
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """When, where and with which software a result was computed.

    Attributes:
        versions: version by name, of this program, its main libraries, Python, and with GPUs CUDA, cuDNN and driver.
        machine: the machine.
        git_revision: commit of the checkout, with "+changes" if there are uncommitted ones; empty outside a checkout.
        started: time of the start, ISO 8601 in UTC.
    """

    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    machine: MachineRecord = MachineRecord()
    git_revision: str = ""
    started: str = ""


@dataclass(frozen=True)
class Origin:
    """The finished run, or the file, whose weights another run was initialised with.

    Attributes:
        run: name of that run's folder, or of the file.
        weights: SHA-256 of the run's weights, or of the file.
    """

    run: str = ""
    weights: str = ""


@dataclass(frozen=True)
class EndRecord:
    """How the training of a run ended.

    Attributes:
        reason: "epochs" if the maximum number of epochs was reached, "plateau" if the validation error stopped
            improving at the lowest learning rate (Sec. 5), "until_train_error" if the training error that was asked
            for was reached before that, "imported" for weights that were trained elsewhere. "unknown" for a run of an
            older version with weights whose log does not show it.
        epochs: number of epochs that were trained.
        weights: SHA-256 of the trained weights; empty in runs of older versions.
    """

    reason: str
    epochs: int = 0
    weights: str = ""


@dataclass(frozen=True)
class PreprocessingRecord:
    """From an image to a net's input. The mean is in the run's folder, as an image of `image_size` pixels.

    Attributes:
        image_size: side of the square images that crops are cut from, in pixels.
        crop_size: side of a crop, in pixels.
        resize: "shorter side": the shorter side is resized to `image_size` and the central square cut out;
            "squash": both sides are resized to `image_size`.
        mean_of_patch: the mean is subtracted before cropping and flipping; otherwise its centre crop is, from each
            crop.
        inputs_divided_by: what the values are divided by after that.
        orientation: "exif": images are first turned upright as their EXIF data say; "stored": they are not.
    """

    image_size: int
    crop_size: int
    resize: str = "shorter side"
    mean_of_patch: bool = True
    inputs_divided_by: float = 1.0
    orientation: str = "stored"


@dataclass(frozen=True, kw_only=True)
class RunRecord(Provenance):
    """Contents of `run.json`: everything needed to repeat a run and to use its net.

    Attributes:
        format: version of the schema.
        kind: "net", or "baseline" for a method that preceded the paper, which has no network.
        variant: name of the net or method.
        recipe: name of the training recipe.
        scale: name of the scale.
        seed: seed of the initial weights, the order of the images, the augmentation and dropout.
        epochs: maximum number of epochs.
        length: maximum length of training in passes over the training images: 28.3 for 29 epochs of which the last is
            cut short. None for baselines and imported weights, and in runs of older versions.
        until_train_error: training error in percent at which training ends early; None for no such end.
        precision: "fp32", "tf32", "bf16" or "fp16".
        devices: devices of each process.
        ranks: number of processes.
        init_from: the run whose weights this one was initialised with; None for random weights.
        network: the layers, each a mapping of its kind under "layer" and its fields.
        input_size: side of the net's input in pixels.
        preprocessing: from an image to the net's input; None in runs of older versions.
        settings: fields of the recipe or of the method as used, with the learning rate that was chosen.
        data: the store that the run was trained on.
        command: command line that repeats the run.
        ended: how training ended; None (null in the file) while it has not.
    """

    format: int = FORMAT
    kind: str = NET
    variant: str
    recipe: str
    scale: str
    seed: int
    epochs: int
    length: float | None = None
    until_train_error: float | None = None
    precision: str = ""
    devices: tuple[str, ...] = ()
    ranks: int = 1
    init_from: Origin | None = None
    network: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    input_size: int = 0
    preprocessing: PreprocessingRecord | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    data: DataRecord
    command: str = ""
    ended: EndRecord | None = None

    @property
    def lr(self) -> float:
        """Initial learning rate; NaN if it was not recorded."""
        return finite_number(self.settings.get("lr"))

    @property
    def schedule(self) -> Mapping[str, Any]:
        """Fields of the learning-rate schedule; empty if it was not recorded."""
        schedule = self.settings.get("schedule")
        return schedule if isinstance(schedule, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """A line of `log.jsonl`. Errors in percent; NaN where a line that was read has no finite number.

    Training figures are running figures: those of the augmented views, each before the update that it led to.

    Attributes:
        epoch: number of the epoch, from 1.
        step: number of updates since the start of the run.
        lr: learning rate of the weights in this epoch.
        train_loss: mean cross-entropy.
        train_top1_error: top-1 error on the training images.
        val_top1_error: top-1 error on the val split, centre view; NaN (null in the file) without a val split.
        val_top5_error: top-5 error on the val split; NaN (null in the file) without a val split.
        seconds: duration of the epoch with its validation.
        images_per_second: training speed, without validation.
        note: what the user should know about this epoch; None for nothing.
    """

    epoch: int
    step: int = 0
    lr: float = math.nan
    train_loss: float = math.nan
    train_top1_error: float = math.nan
    val_top1_error: float = field(default=math.nan, metadata={"null": True})
    val_top5_error: float = field(default=math.nan, metadata={"null": True})
    seconds: float = math.nan
    images_per_second: float = math.nan
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Provenance):
    """Contents of `evaluation-<split>-<views>.json`: errors of a run, or of an ensemble, on one split.

    Attributes:
        format: version of the schema.
        runs: names of the folders of the runs whose softmax outputs are averaged.
        checksums: SHA-256 of each run's weights; empty in records of older versions.
        variant: names of the nets, joined by "+".
        recipe: name of the recipe.
        scale: name of the scale.
        seeds: the runs' seeds.
        data: the store that was evaluated on.
        split: "train", "val" or "test".
        views: views per image that are averaged, 1 or 10 (Sec. 4.1).
        images: number of images.
        classes: number of classes.
        top1_error: top-1 error in percent.
        top5_error: top-5 error in percent.
        top1_interval: 95% confidence interval of the top-1 error.
        top5_interval: 95% confidence interval of the top-5 error.
        weights: weights of the runs in the ensemble if they were searched; empty for equal weights.
        weights_selected_on: split that the weights were searched on; empty for equal weights.
        note: what the user should know about these numbers; empty for nothing.
        predictions: file name of the predictions per image.
        command: command line that repeats the evaluation.
    """

    format: int = FORMAT
    runs: tuple[str, ...]
    checksums: tuple[str, ...] = ()
    variant: str
    recipe: str
    scale: str
    seeds: tuple[int, ...]
    data: DataRecord
    split: str
    views: int
    images: int
    classes: int = 0
    top1_error: float
    top5_error: float
    top1_interval: tuple[float, float] = (math.nan, math.nan)
    top5_interval: tuple[float, float] = (math.nan, math.nan)
    weights: tuple[float, ...] = ()
    weights_selected_on: str = ""
    note: str = ""
    predictions: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if self.weights and not self.weights_selected_on:
            raise ValueError("it has no 'weights_selected_on'")

    def error(self, metric: str) -> float:
        """Return `top1_error` or `top5_error`, in percent; NaN if the record has no finite one."""
        return self.top1_error if metric == "top1_error" else self.top5_error


@dataclass(frozen=True)
class Estimate:
    """A mean over images, in percent, with its 95% confidence interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class NetRecord(Provenance):
    """What the records of measurements on one net have in common.

    Attributes:
        format: version of the schema.
        run: name of the run's folder.
        variant: name of the net.
        recipe: name of the recipe.
        scale: name of the scale.
        seed: the run's seed.
        data: the store.
        split: split whose images the net was shown.
        images: number of them.
    """

    format: int = FORMAT
    run: str
    variant: str
    recipe: str
    scale: str
    seed: int
    data: DataRecord
    split: str
    images: int


@dataclass(frozen=True, kw_only=True)
class RetrievalRecord(NetRecord):
    """Contents of `retrieval-<split>.json`: the nearest training images of each image of a split (Sec. 6.1).

    Attributes:
        searched: number of training images that were searched.
        neighbours: number of nearest neighbours per query.
        activations: number of fc7's units.
        bits: length of the binary codes.
        precision: percentage of the neighbours that have the query's class, by space: fc7, pixels, codes.
        precision_at_random: the same percentage for neighbours drawn at random.
        overlap: percentage of the neighbours in fc7 that are neighbours in pixels too.
        seconds_per_query: duration of a search, by space.
        arrays: file name of the neighbours and example images.
        command: command line that repeats the retrieval.
    """

    searched: int
    neighbours: int = 6
    activations: int = 0
    bits: int
    precision: Mapping[str, Estimate] = field(hash=False)
    precision_at_random: float = math.nan
    overlap: Estimate
    seconds_per_query: Mapping[str, float] = field(hash=False)
    arrays: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("precision", "seconds_per_query"):
            if missing := [space for space in SPACES if space not in getattr(self, name)]:
                raise ValueError(f"its {name} has no '{missing[0]}'")


@dataclass(frozen=True)
class LayerActivity:
    """The activations of one layer for the images of a split, after its nonlinearity; the logits of the last layer.

    Attributes:
        layer: name of the convolution or fully-connected layer.
        units: number of kernels, or of units of a fully-connected layer.
        dead: number of them whose output is zero for every image, at all positions.
        size: mean absolute activation.
        spread: standard deviation of a neuron over the images, averaged over the neurons.
    """

    layer: str
    units: int
    dead: int
    size: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class ActivationsRecord(NetRecord):
    """Contents of `activations-<split>.json`: what each layer of a net makes of the images of a split.

    Attributes:
        untrained: the weights are the initial ones, before training.
        layers: the layers in order.
        command: command line that repeats the measurement.
    """

    untrained: bool = False
    layers: tuple[LayerActivity, ...]
    command: str = ""


Record = RunRecord | EpochRecord | EvaluationRecord | RetrievalRecord | ActivationsRecord
