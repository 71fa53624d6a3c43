"""Schema of the records that training, evaluation and retrieval write; imports no torch.

Files in a run's folder, <runs>/<variant>-<recipe>-<scale>-seed<k>/:

    run.json                       a `RunRecord`: everything needed to repeat the run; written first, and once more with
                                   `ended` when training ends
    mean.npy                       mean image that is subtracted from images, float32 [S, S, 3] of values 0–255
    log.jsonl                      an `EpochRecord` per line
    checkpoints/                   until the run is finished
    weights.safetensors.sha256     checksum of the weights, in the format of `sha256sum -c`
    weights.safetensors            written last
    conv1.safetensors              conv1's kernels, in records that are published without the weights
    .lock                          held by the process that trains the run
    evaluation-<split>-<views>.json    an `EvaluationRecord`, with predictions-<split>-<views>.npz; the names of
                                       those on another store than the run's own end in -on-<store>
    retrieval-<split>.json             a `RetrievalRecord`, with retrieval-<split>.npz
    activations-<split>.json           an `ActivationsRecord`; of the initial weights activations-<split>-untrained.json

The evaluation of an ensemble has its own folder beside the runs'. Files of an ensemble whose weights were searched
end in "-searched".

`to_json` and `write_record` are strict: they refuse values that do not conform to the schema. `read_records` is
lenient: it reads records of older versions, of unfinished runs and of damaged files as far as possible.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec
import numpy as np
import safetensors
from safetensors.numpy import load_file

from repro import atomic
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES

FORMAT = 1

RUN = "run.json"
MEAN = "mean.npy"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"
WEIGHTS_CHECKSUM = "weights.safetensors.sha256"
CONV1, WEIGHTS_OF_CONV1 = "conv1.safetensors", "conv1.weight"  # a file, and the name of its array
LOCK = ".lock"
EVALUATIONS = "evaluation-*.json"
RETRIEVALS = "retrieval-*.json"
ACTIVATIONS = "activations-*.json"

NET, BASELINE = "net", "baseline"  # kinds of runs
SPACES = ("fc7", "pixels", "codes")  # in which neighbours are retrieved

T = TypeVar("T")


def run_name(
    variant: str, recipe: str, scale: str, seeds: Sequence[int], lr: float | None = None, tuned: bool = False
) -> str:
    """Return the folder name of a run, or of an ensemble if there are several `seeds`.

    `lr`: the initial learning rate where it differs from the recipe's. `tuned`: the run is fine-tuned from another
    run although its variant does not require that.
    """
    label = "seed" if len(seeds) == 1 else "seeds"
    extras = (f"-lr{lr:g}" if lr else "") + ("-tuned" if tuned else "")
    return f"{variant}-{recipe}-{scale}{extras}-{label}{'+'.join(map(str, seeds))}"


def evaluation_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of an evaluation; `store` names another one than the run was trained on."""
    return f"evaluation-{_evaluation_stem(split, views, searched, store)}.json"


def predictions_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of an evaluation's predictions per image."""
    return f"predictions-{_evaluation_stem(split, views, searched, store)}.npz"


def submission_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of the predictions that the challenge's server scores."""
    return f"submission-{_evaluation_stem(split, views, searched, store)}.txt"


def _evaluation_stem(split: str, views: int, searched: bool, store: str) -> str:
    return f"{split}-{views}{'-searched' if searched else ''}{f'-on-{store}' if store else ''}"


def retrieval_name(split: str) -> str:
    """Return the file name of a retrieval."""
    return f"retrieval-{split}.json"


def retrieval_arrays_name(split: str) -> str:
    """Return the file name of a retrieval's neighbours and example images."""
    return f"retrieval-{split}.npz"


def activations_name(split: str, untrained: bool = False) -> str:
    """Return the file name of the activations on a split, of the trained net or before training."""
    return f"activations-{split}{'-untrained' if untrained else ''}.json"


@dataclass(frozen=True)
class ClassRecord:
    """A class of the dataset: its id in the source (a WordNet id or a folder's name) and its readable name."""

    id: str = ""
    name: str = ""


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
        return tuple(each.name or each.id for each in self.classes)

    @property
    def label(self) -> str:
        """Name of the data for readers, marked if the store holds only a part of the training images."""
        if self.dataset == "folder":
            return self.name or "a folder of images"
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
        kind: "net", or "baseline" for a method of before the paper, which has no network.
        variant: name of the net or method.
        recipe: name of the training recipe.
        scale: name of the scale.
        seed: seed of the initial weights, the order of the images, the augmentation and dropout.
        epochs: maximum number of epochs.
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
        return _number(self.settings.get("lr"))

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
class RetrievalRecord(Provenance):
    """Contents of `retrieval-<split>.json`: the nearest training images of each image of a split (Sec. 6.1).

    Attributes:
        format: version of the schema.
        run: name of the run's folder.
        variant: name of the net.
        recipe: name of the recipe.
        scale: name of the scale.
        seed: the run's seed.
        data: the store that was searched.
        split: split of the query images.
        images: number of query images.
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

    format: int = FORMAT
    run: str
    variant: str
    recipe: str
    scale: str
    seed: int
    data: DataRecord
    split: str
    images: int
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
class ActivationsRecord(Provenance):
    """Contents of `activations-<split>.json`: what each layer of a net makes of the images of a split.

    Attributes:
        format: version of the schema.
        run: name of the run's folder.
        variant: name of the net.
        recipe: name of the recipe.
        scale: name of the scale.
        seed: the run's seed.
        data: the store.
        split: its split.
        images: number of images.
        untrained: the weights are the initial ones, before training.
        layers: the layers in order.
        command: command line that repeats the measurement.
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
    untrained: bool = False
    layers: tuple[LayerActivity, ...]
    command: str = ""


Record = RunRecord | EpochRecord | EvaluationRecord | RetrievalRecord | ActivationsRecord


def to_json(record: Record) -> dict[str, Any]:
    """Return the JSON document of a record, with the provenance last.

    Raises ValueError for numbers that are not finite, and TypeError for values of a wrong type.
    """
    content = msgspec.to_builtins(record)
    try:
        msgspec.convert(content, type(record))
    except msgspec.ValidationError as error:
        raise TypeError(f"a {type(record).__name__} that does not conform to its schema: {error}") from error
    for each in dataclasses.fields(record):
        if each.metadata.get("null") and math.isnan(content[each.name]):
            content[each.name] = None
    last = [each.name for each in dataclasses.fields(Provenance) if each.name in content]
    content = {name: value for name, value in content.items() if name not in last} | {
        name: content[name] for name in last
    }
    json.dumps(content, allow_nan=False)
    return content


def write_record(path: Path, record: Record) -> None:
    """Write a record to `path`, completely or not at all. Raises ReproError if it cannot be written."""
    atomic.write_json(path, to_json(record))


def write_weights(folder: Path, content: bytes) -> None:
    """Write the trained weights, a safetensors file's `content`, into a run's folder, after their checksum.

    Raises ReproError if they cannot be written.
    """
    atomic.write(folder / WEIGHTS_CHECKSUM, f"{hashlib.sha256(content).hexdigest()}  {WEIGHTS}\n".encode())
    atomic.write(folder / WEIGHTS, content)


def write_mean(folder: Path, mean: np.ndarray) -> None:
    """Write the mean image of a run, float32 [S, S, 3], into its folder. Raises ReproError if it cannot be written."""
    buffer = io.BytesIO()
    np.save(buffer, mean.astype(np.float32), allow_pickle=False)
    atomic.write(folder / MEAN, buffer.getvalue())


@dataclass(frozen=True, kw_only=True)
class Run(RunRecord):
    """A run: the contents of its `run.json`, its folder and its log so far.

    Runs of older versions did not record how they ended: `ended` is then derived from the log and the weights.

    Attributes:
        folder: the run's folder.
        name: path of the folder relative to the folder of runs.
        log: the epochs in order.
    """

    folder: Path
    name: str
    log: tuple[EpochRecord, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether training ended as planned; the weights of a run that was published may be missing."""
        return self.ended is not None

    @property
    def has_weights(self) -> bool:
        """Whether the trained weights are there."""
        return self.weights_path.is_file()

    def require_net(self) -> None:
        """Raise ReproError if the run is not that of a net."""
        if self.kind != NET:
            raise ReproError(f"'{self.folder}' is a run of {self.variant}, which is no net: name the run of a net")

    def require_weights(self) -> None:
        """Raise ReproError if the run has no trained weights."""
        if self.has_weights:
            return
        if self.finished:
            raise ReproError(
                f"the run '{self.folder}' is finished, but its {WEIGHTS} is missing: copy it there, or train the run "
                f"again with another --out: {self.command}"
            )
        raise ReproError(f"the run '{self.folder}' is not finished: continue it with {self.command} --resume")

    @property
    def log_path(self) -> Path:
        """Path of the log."""
        return self.folder / LOG

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def weights_path(self) -> Path:
        """Path of the trained weights, which are written when training ends."""
        return self.folder / WEIGHTS

    @property
    def mean_path(self) -> Path:
        """Path of the mean image; runs of older versions have none."""
        return self.folder / MEAN

    @property
    def checksum_path(self) -> Path:
        """Path of the weights' checksum; runs of older versions have none."""
        return self.folder / WEIGHTS_CHECKSUM

    def conv1(self) -> np.ndarray | None:
        """Return conv1's kernels, [kernels ≥ 2, 3, height, width] float32; None if there are no finite ones."""
        path = self.weights_path if self.has_weights else self.folder / CONV1
        try:
            weights = load_file(path).get(WEIGHTS_OF_CONV1)
        except (OSError, ValueError, safetensors.SafetensorError):
            return None
        if weights is None or weights.ndim != 4 or len(weights) < 2 or weights.shape[1] != 3:
            return None
        return weights if np.isfinite(weights).all() else None


@dataclass(frozen=True, kw_only=True)
class Evaluation(EvaluationRecord):
    """An evaluation and its folder: the run's, or that of an ensemble."""

    folder: Path

    @property
    def predictions_path(self) -> Path:
        """Path of the predictions per image."""
        return self.folder / Path(self.predictions).name

    def wrong(self, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the labels and whether each prediction is wrong, both [N]; None if they cannot be read."""
        arrays = _read_arrays(self.predictions_path, ("labels", "top5"))
        try:
            labels, guesses = arrays["labels"], arrays["top5"][:, : 1 if metric == "top1_error" else 5]
            return labels, (guesses != labels[:, None]).all(axis=1)
        except (KeyError, ValueError, IndexError):
            return None


EXAMPLES = (
    "labelled_labels", "labelled_top5", "labelled_probabilities", "labelled_images", "query_labels", "query_images",
    "query_fc7_images", "query_fc7_labels", "query_pixels_images", "query_pixels_labels",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Retrieval(RetrievalRecord):
    """A retrieval and the folder of its run."""

    folder: Path

    @property
    def arrays_path(self) -> Path:
        """Path of the neighbours and example images."""
        return self.folder / Path(self.arrays).name

    def examples(self) -> dict[str, np.ndarray] | None:
        """Return Figure 4's example images, labels and probabilities by name; None if they cannot be read."""
        return _read_arrays(self.arrays_path, EXAMPLES) or None


@dataclass(frozen=True, kw_only=True)
class Activations(ActivationsRecord):
    """The activations of a net and the folder of its run."""

    folder: Path


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of an `.npz` file; an empty dictionary if any of them cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
        return {}


@dataclass(frozen=True, eq=False)
class Records:
    """All records below a folder of runs; `problems` are lines that name what was left out, and why.

    Two are equal if they are the same object: what is derived from the records can be cached by them.
    """

    runs: tuple[Run, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    activations: tuple[Activations, ...] = ()
    problems: tuple[str, ...] = ()

    def members(self, evaluation: Evaluation) -> list[Run]:
        """Return the runs of an evaluation, as far as their records exist."""
        folders = (evaluation.folder.parent / name for name in evaluation.runs)
        return [self._by_folder[folder] for folder in folders if folder in self._by_folder]

    @cached_property
    def _by_folder(self) -> dict[Path, Run]:
        return {run.folder: run for run in self.runs}


def read_run(folder: Path) -> Run:
    """Return the run in `folder`, or that of a `run.json`. Raises ReproError if there is none that can be read."""
    folder = folder.parent if folder.name == RUN else folder
    path = folder / RUN
    try:
        return _read_run(path, folder.name)
    except (FileNotFoundError, NotADirectoryError):
        what = f"it has no {RUN}" if folder.is_dir() or not folder.exists() else f"it is a file, and not a {RUN}"
        raise ReproError(f"no run at '{folder}': {what}; `repro train` makes runs") from None
    except (OSError, ValueError) as error:
        raise ReproError(f"'{path}' cannot be read ({error})") from error


def read_evaluation(path: Path) -> Evaluation:
    """Return the evaluation at `path`. Raises OSError or ValueError if it cannot be read."""
    return Evaluation(folder=path.parent, **vars(_read(path, EvaluationRecord)))


def read_retrieval(path: Path) -> Retrieval:
    """Return the retrieval at `path`. Raises OSError or ValueError if it cannot be read."""
    return Retrieval(folder=path.parent, **vars(_read(path, RetrievalRecord)))


def read_activations(path: Path) -> Activations:
    """Return the activations at `path`. Raises OSError or ValueError if they cannot be read."""
    return Activations(folder=path.parent, **vars(_read(path, ActivationsRecord)))


def read_records(folders: Path | Sequence[Path]) -> Records:
    """Return every run and all that was measured of them below one or several folders; none of those that do not exist.

    With several folders the name of a run starts with that of its folder, with as many parents as make it unique. A
    record in two of the folders, one of which contains the other, is read once.
    """
    runs: list[Run] = []
    evaluations: list[Evaluation] = []
    retrievals: list[Retrieval] = []
    activations: list[Activations] = []
    problems: list[str] = []
    found: dict[Path, tuple[Path, str]] = {}
    for folder, label in _labels([folders] if isinstance(folders, Path) else folders).items():
        if not folder.is_dir():
            problems.append(f"there is no folder {folder}")
        for path in sorted(folder.rglob("*.json")):
            name = (PurePosixPath(label) / path.relative_to(folder).as_posix()).as_posix()
            found.setdefault(path.resolve(), (path, name))
    for path, name in found.values():
        if path.parent.name == CHECKPOINTS and (path.parents[1] / RUN).exists():
            continue
        try:
            if path.name == RUN:
                runs.append(_read_run(path, name.removesuffix(RUN).rstrip("/") or "."))
            elif path.match(EVALUATIONS):
                evaluations.append(read_evaluation(path))
            elif path.match(RETRIEVALS):
                retrievals.append(read_retrieval(path))
            elif path.match(ACTIVATIONS):
                activations.append(read_activations(path))
        except (OSError, ValueError) as error:
            problems.append(f"{name} was left out: {error}")
    for run in runs:
        if run.log and not math.isfinite(run.log[-1].train_loss):
            problems.append(f"{run.name}: the loss is not finite after epoch {_last_finite(run)}")
    return Records(tuple(runs), tuple(evaluations), tuple(retrievals), tuple(activations), tuple(problems))


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the prefix of the names of the runs in each folder: empty for one, ends of their paths for several."""
    parts = {folder.resolve().parts: folder for folder in reversed(folders)}
    if len(parts) < 2:
        return dict.fromkeys(parts.values(), "")
    length = next(n for n in range(1, 1 + max(map(len, parts))) if len({each[-n:] for each in parts}) == len(parts))
    return {folder: "/".join(each[-length:]) for each, folder in reversed(parts.items())}


def _last_finite(run: Run) -> int:
    return max((epoch.epoch for epoch in run.log if math.isfinite(epoch.train_loss)), default=0)


def _read_run(path: Path, name: str) -> Run:
    content = _read_json(path)
    log = tuple(read_log(path.parent / LOG))
    run = Run(folder=path.parent, name=name, log=log, **vars(_convert(content, RunRecord)))
    return run if "ended" in content else dataclasses.replace(run, ended=_derive_end(run))


def _derive_end(run: Run) -> EndRecord | None:
    """Return how a run of an older version ended, which did not record it."""
    reason = end_reason(run, run.log)
    if reason is None and run.has_weights:
        reason = "plateau" if run.log and "patience" in run.schedule else "unknown"
    elif reason is None and _plateau_ended(run):
        reason = "plateau"
    return EndRecord(reason, len(run.log)) if reason else None


def end_reason(record: RunRecord, log: Sequence[EpochRecord]) -> str | None:
    """Return why training ends after the last epoch of `log`, see `EndRecord`; None if the log does not show it."""
    if not log:
        return None
    if log[-1].epoch >= record.epochs:
        return "epochs"
    until = record.until_train_error
    return "until_train_error" if until is not None and log[-1].train_top1_error <= until else None


def _plateau_ended(run: Run) -> bool:
    """Return whether the validation error has not improved for `patience` epochs at the lowest learning rate."""
    try:
        patience, drops = int(run.schedule["patience"]), int(run.schedule["drops"])
    except (KeyError, TypeError, ValueError):
        return False
    lowest = [epoch for epoch in run.log if math.isclose(epoch.lr, run.lr * 0.1**drops)]
    if len(lowest) < patience:
        return False
    before = run.log[: len(run.log) - patience]
    best = min((epoch.val_top1_error for epoch in before), default=math.nan)
    return all(epoch.val_top1_error >= best for epoch in run.log[-patience:])


def read_log(path: Path) -> Iterator[EpochRecord]:
    """Yield the epochs of a log in order, each once: of an epoch that was repeated, the last line.

    Lines that cannot be read, such as an incomplete last one, are skipped; so is a log that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    epochs: dict[int, EpochRecord] = {}
    for line in lines:
        try:
            epoch = _convert(json.loads(line), EpochRecord)
        except ValueError:
            continue
        epochs[epoch.epoch] = epoch
    yield from (epochs[number] for number in sorted(epochs))


def check_epoch(line: str | bytes) -> EpochRecord:
    """Return the epoch of a complete line of a log. Raises ValueError that names the field that is missing or wrong."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    for each in dataclasses.fields(EpochRecord):
        if each.name not in content and each.name != "note":
            raise ValueError(f"{each.name} is missing")
        value = content.get(each.name)
        if each.metadata.get("null") and value is None:
            content[each.name] = math.nan
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{each.name} is {value}, not a finite number")
    return msgspec.convert(content, EpochRecord)


def _read(path: Path, kind: type[T]) -> T:
    """Return the record of `kind` at `path`. Raises OSError, or ValueError for another format or damage."""
    return _convert(_read_json(path), kind)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object at `path`. Raises OSError, or ValueError for another format or damage."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if "format" not in content:
        raise ValueError("it has no 'format'")
    if content["format"] != FORMAT:
        newer = isinstance(content["format"], int) and content["format"] > FORMAT
        reason = "it was written by a newer version of repro, update this one" if newer else "it is not supported"
        raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}: {reason}")
    return content


def _convert(content: Any, kind: type[T]) -> T:
    """Convert a JSON document to a record of `kind`; raises ValueError if a required field is missing or wrong.

    Unknown fields are ignored, null is the same as a missing field, and what should be a number but is not a finite
    one becomes NaN.
    """
    return msgspec.convert(_tolerant(content, kind), kind, strict=False)


def _tolerant(value: Any, hint: Any) -> Any:
    """Return `value`, to be converted to the type `hint`, with NaN for bad numbers and without null fields."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return _number(value)
    if hint is str and isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = _type_hints(hint)
        return {
            name: _tolerant(each, hints[name])
            for name, each in value.items()
            if name in hints and (each is not None or hints[name] is float)
        }
    if isinstance(value, dict) and origin is Mapping:
        return {name: _tolerant(each, arguments[1]) for name, each in value.items()}
    if isinstance(value, list) and origin is tuple:
        return [_tolerant(each, arguments[0]) for each in value]
    return value


@cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _number(value: object) -> float:
    """Return a finite float, or NaN for anything else: null, a string, an infinite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return math.nan
