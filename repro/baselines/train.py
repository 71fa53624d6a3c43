"""Train a baseline in its run folder: vocabulary, vectors of all images, linear classifiers.

Every stage is saved atomically below `features/` in the run's folder, which is removed when the run is finished:

    vocabulary.safetensors          what the encoders have learned
    <split>-<shard>.<channel>.npy   vectors of a shard's images, float16
    classifiers.safetensors         the classifiers in training, after every epoch and every few minutes

A run that is stopped at any moment and resumed gives the same result as one that was not.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from repro import atomic
from repro.baselines.descriptors import check_size
from repro.baselines.encoders import encoder_from_arrays, learn_encoder, one_thread, require_packages
from repro.baselines.features import (
    POOL_IMAGES,
    Features,
    FeatureTask,
    StoredImages,
    check_disk,
    extract,
    feature_tasks,
)
from repro.baselines.linear_classifiers import (
    AVERAGED_FROM,
    LinearClassifiers,
    fit_temperature,
    hinge_loss,
    learning_rate,
    mean_scores,
)
from repro.baselines.model import BaselineModel, channel_arrays
from repro.baselines.settings import BaselineSettings
from repro.data.sampling import generator
from repro.data.store import Store, open_store
from repro.errors import ReproError, Stopped
from repro.formatting import command_line
from repro.interrupts import deferred
from repro.paper.baselines import RECIPE, Method
from repro.preparation.executors import dask_pool, local_pool
from repro.processors import available_processors
from repro.provenance import current_provenance, data_record
from repro.records.file_names import CLASSIFIERS, FEATURES
from repro.records.runs import Run
from repro.records.schema import BASELINE, EpochRecord, PreprocessingRecord, RunRecord
from repro.run_folder import append_log, finish_run, locked_run, truncate_log

VOCABULARY = "vocabulary.safetensors"
PER_IMAGE = 200  # descriptors of an image among those that the vocabulary is learned from
PIXEL_IMAGES = 2000  # images that the mean of the pixels is taken over
HELD_OUT = 10  # one training image in ten sets the temperature; the final classifiers are trained on all images
SCORED = 256  # images whose scores are computed at once
CALIBRATION, FINAL = 0, 1  # phases of the classifiers' training
VOCABULARY_DRAW, HELD_OUT_DRAW, ORDER_DRAW = range(100, 103)  # separate streams of random numbers


@dataclass(frozen=True)
class Started:
    """The first event of a run: its folder."""

    path: Path


@dataclass(frozen=True)
class AlreadyFinished:
    """The only event of a run that is resumed although it is finished: its folder."""

    path: Path


@dataclass(frozen=True)
class Progress:
    """How much of a stage is done, in `unit`."""

    stage: str
    unit: str
    done: int
    total: int


Event = Started | AlreadyFinished | Progress | EpochRecord


def train_baseline(
    settings: BaselineSettings,
    data: Path,
    out: Path,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    save_minutes: float = 10.0,
) -> Iterator[Event]:
    """Train a baseline in its folder below `out` on the store `data`; yield its events.

    Images are described by `workers` processes, None for one per processor, or by those of the Dask cluster at
    `scheduler`; the result does not depend on them. With `resume` a run that was stopped continues. Raises ReproError
    for settings, data or files that the user has to fix, and Stopped when a signal arrives.
    """
    require_packages(settings.method)
    store = open_store(data)
    _check_store(store, settings.method)
    record = replace(
        describe(settings, store),
        command=command_line(settings.to_argv(data, out)),
        **vars(_provenance(settings.method)),
    )
    with locked_run(out / settings.run_name, record, resume) as run:
        folder = run.folder / FEATURES
        if run.has_weights:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed right after its weights were written
            yield AlreadyFinished(run.folder)
            return
        yield Started(run.folder)
        folder.mkdir(exist_ok=True)
        try:
            yield from _learn_vocabulary(settings, store, folder / VOCABULARY)
            splits = [name for name in ("train", "val") if name in store.splits]
            tasks = feature_tasks(store, splits, settings.method, folder / VOCABULARY)
            yield from _extract(tasks, folder, workers, scheduler)
        except Stopped as stopped:
            message = "stopped; finished stages are saved, continue with --resume"
            raise Stopped(stopped.signal, message) from stopped
        training = _Training(settings, store, tasks, run)
        with deferred() as stop_signal:
            yield from training.epochs(stop_signal, save_minutes)
        content = save({name: np.ascontiguousarray(array) for name, array in training.model().arrays().items()})
        finish_run(run, "epochs", content)
        shutil.rmtree(folder, ignore_errors=True)


def describe(settings: BaselineSettings, store: Store) -> RunRecord:
    """Return the part of a run's `run.json` that decides the result. Raises ReproError for unknown names."""
    method = settings.method
    return RunRecord(
        kind=BASELINE,
        variant=settings.variant,
        recipe=RECIPE,
        scale=settings.scale,
        seed=settings.seed,
        epochs=method.epochs,
        precision="fp32",
        devices=("cpu",),
        preprocessing=PreprocessingRecord(
            image_size=store.size,
            crop_size=store.size,
            resize=store.resize,
            orientation=store.manifest.get("orientation", "stored"),
        ),
        settings=asdict(method),
        data=data_record(store),
    )


def _provenance(method: Method) -> Any:
    found = current_provenance()
    names = () if method.encoding == "pixels" else ("scikit-learn", "scikit-image")
    return replace(found, versions={**found.versions, **{name: version(name) for name in names}})


def _check_store(store: Store, method: Method) -> None:
    """Raise ReproError if the store lacks labels or classes, or if its images are too small."""
    store.require_labels(("train", "val"), "a baseline")
    check_size(store.size, method.patches)
    for name in ("train", "val"):
        if name in store.splits and not store.splits[name].compressed:
            for shard in store.splits[name].shards:
                _check_pixels(store.path / shard.file, (shard.images, store.size, store.size, 3))
    present = np.bincount(store.splits["train"].labels, minlength=len(store.classes))
    empty = [info.name or info.id for info, count in zip(store.classes, present, strict=True) if not count]
    if empty:
        more = f" and {len(empty) - 1:,} more classes" if len(empty) > 1 else ""
        raise ReproError(
            f"the class '{empty[0]}'{more} of the store '{store.path}' has no training images, so no descriptors to "
            "train a classifier with: add images, or prepare a store without that class"
        )


def _check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Raise ReproError if the header of a raw shard is not that of uint8 pixels of `shape`."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (OSError, ValueError) as error:
        raise ReproError(f"the store's file '{path}' is damaged ({error}): prepare the store again") from error
    if dtype != np.uint8 or found != shape:
        raise ReproError(f"the store's file '{path}' holds {dtype} {found}, not uint8 {shape}: prepare the store again")


def _learn_vocabulary(settings: BaselineSettings, store: Store, path: Path) -> Iterator[Event]:
    """Learn the encoder of every channel from a sample of the training images, unless that is done."""
    method, seed, train = settings.method, settings.seed, store.splits["train"]
    if path.exists():
        return
    wanted = max(method.words, method.sample // PER_IMAGE) if method.words else PIXEL_IMAGES
    rows = np.sort(generator(seed, VOCABULARY_DRAW).permutation(len(train))[:wanted])
    arrays: dict[str, NDArray[Any]] = {}
    with one_thread(method):
        for number, channel in enumerate(method.channels):
            yield Progress("learning vocabularies", "channels", number, len(method.channels))
            encoder = learn_encoder(channel, method, StoredImages(train, rows), seed)
            arrays |= {f"{channel}.{name}": array for name, array in encoder.arrays().items()}
    atomic.write(path, save(arrays))
    yield Progress("learning vocabularies", "channels", len(method.channels), len(method.channels))


def _extract(
    tasks: Sequence[FeatureTask], folder: Path, workers: int | None, scheduler: str | None
) -> Iterator[Progress]:
    """Extract the vectors that are not there yet."""
    total = sum(task.images for task in tasks)
    remaining = [task for task in tasks if not task.done]
    check_disk(folder, remaining)
    done = total - sum(task.images for task in remaining)
    if not remaining:
        return
    few = total - done < POOL_IMAGES and workers is None
    count = 1 if few else min(workers or available_processors(), len(remaining))
    yield Progress("describing images", "images", done, total)
    with dask_pool(scheduler) if scheduler else local_pool(count) as pool:
        for task, _ in pool.map(extract, remaining):
            done += task.images
            yield Progress("describing images", "images", done, total)


@dataclass
class _State:
    """Where the training of the classifiers is: phase, epoch, and the sums over the epoch so far."""

    phase: int = CALIBRATION
    epoch: int = 1
    batch: int = 0
    seen: int = 0
    wrong: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    temperature: float = 1.0

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.batch, self.seen, self.wrong, self.loss, self.seconds = self.epoch + 1, 0, 0, 0, 0.0, 0.0


class _Training:
    """The training of a method's classifiers, in two phases.

    The first, on nine tenths of the training images, yields scores of images that were not trained on, which set the
    temperature of the softmax. The second trains the final classifiers on all training images.
    """

    def __init__(self, settings: BaselineSettings, store: Store, tasks: Sequence[FeatureTask], run: Run) -> None:
        self.method, self.seed, self.run = settings.method, settings.seed, run
        self.folder = Path(tasks[0].folder)
        self.features = {
            split: [Features(tasks, split, channel) for channel in self.method.channels]
            for split in {task.split for task in tasks}
        }
        self.labels = {split: store.splits[split].labels for split in self.features}
        self.classes = len(store.classes)
        order = generator(self.seed, HELD_OUT_DRAW).permutation(len(self.labels["train"]))
        self.held_out = np.sort(order[: max(1, len(order) // HELD_OUT)])
        self.state, self.classifiers = self._load()
        truncate_log(run, self.state.epoch - 1 if self.state.phase == FINAL else 0)

    def epochs(self, stop_signal: Callable[[], int | None], save_minutes: float) -> Iterator[Event]:
        """Train to the end; yield progress within the calibration, and the record of each epoch of the final phase."""
        state, last_save = self.state, time.monotonic()
        while True:
            for _ in self._batches():
                signal = stop_signal()
                if signal or time.monotonic() - last_save > 60 * save_minutes:
                    self._save()
                    last_save = time.monotonic()
                if signal:
                    where = "calibration" if state.phase == CALIBRATION else f"epoch {state.epoch}"
                    raise Stopped(signal, f"saved within {where} of the classifiers; continue with --resume")
            if not all(np.isfinite(each.weight).all() for each in self.classifiers):
                raise ReproError("the classifiers are not finite: the features or the learning rate are wrong")
            if state.phase == FINAL:
                record = self._epoch_record()
                append_log(self.run, record)
                yield record
            else:
                yield Progress("calibrating classifiers", "epochs", state.epoch, self.method.epochs)
            if state.epoch < self.method.epochs:
                state.next_epoch()
            elif state.phase == CALIBRATION:
                scores = self.scores("train", self.held_out)
                state.temperature = fit_temperature(scores, self.labels["train"][self.held_out])
                state.phase, state.epoch = FINAL, 0
                state.next_epoch()
                self.classifiers = self._zeros()
            else:
                return
            self._save()
            last_save = time.monotonic()

    def _batches(self) -> Iterator[None]:
        """Train on the remaining batches of the epoch; yield after each."""
        state, size = self.state, self.method.batch_size
        rows = np.arange(len(self.labels["train"]))
        if state.phase == CALIBRATION and len(rows) > 1:
            rows = np.setdiff1d(rows, self.held_out)
        rows = rows[generator(self.seed, ORDER_DRAW, state.phase, state.epoch).permutation(len(rows))]
        batches = -(-len(rows) // size)
        while state.batch < batches:
            began = time.monotonic()
            batch = rows[state.batch * size : (state.batch + 1) * size]
            labels = self.labels["train"][batch]
            step = (state.epoch - 1) * batches + state.batch
            scores = np.mean(
                [
                    each.update(vectors[batch], labels, step, state.epoch > AVERAGED_FROM, self.method)
                    for each, vectors in zip(self.classifiers, self.features["train"], strict=True)
                ],
                axis=0,
            )
            state.batch += 1
            state.seen += len(batch)
            state.wrong += int((scores.argmax(1) != labels).sum())
            state.loss += hinge_loss(scores, labels) * len(batch)
            state.seconds += time.monotonic() - began
            yield

    def scores(self, split: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the averaged scores of images by row, float32 [N, classes]."""
        classifiers = [each.result() for each in self.classifiers]
        parts = [rows[start : start + SCORED] for start in range(0, len(rows), SCORED)]
        return np.concatenate(
            [mean_scores(classifiers, [each[part] for each in self.features[split]]) for part in parts]
        )

    def _epoch_record(self) -> EpochRecord:
        state, began = self.state, time.monotonic()
        errors = dict.fromkeys((1, 5), math.nan)
        if "val" in self.features:
            labels = self.labels["val"]
            scores = self.scores("val", np.arange(len(labels)))
            better = (scores > scores[np.arange(len(labels)), labels][:, None]).sum(1)
            for guesses in errors:
                errors[guesses] = 100 * float((better >= guesses).mean())
        step = state.epoch * -(-state.seen // self.method.batch_size)
        return EpochRecord(
            epoch=state.epoch,
            step=step,
            lr=learning_rate(self.method, step),
            train_loss=state.loss / state.seen,
            train_top1_error=100 * state.wrong / state.seen,
            val_top1_error=errors[1],
            val_top5_error=errors[5],
            seconds=state.seconds + time.monotonic() - began,
            images_per_second=state.seen / max(state.seconds, 1e-9),
        )

    def _zeros(self) -> list[LinearClassifiers]:
        return [LinearClassifiers.zeros(self.classes, each.dimensions) for each in self.features["train"]]

    def _save(self) -> None:
        arrays: dict[str, NDArray[Any]] = {
            f"state.{name}": np.array([value], np.float64) for name, value in vars(self.state).items()
        }
        for channel, each in zip(self.method.channels, self.classifiers, strict=True):
            arrays |= {f"{channel}.{name}": array for name, array in each.arrays().items()}
        atomic.write(self.folder / CLASSIFIERS, save(arrays))

    def _load(self) -> tuple[_State, list[LinearClassifiers]]:
        path = self.folder / CLASSIFIERS
        if not path.exists():
            return _State(), self._zeros()
        try:
            arrays = load_file(path)
            found = {each.name: arrays[f"state.{each.name}"].item() for each in fields(_State)}
            for name in ("phase", "epoch", "batch", "seen", "wrong"):
                found[name] = int(found[name])
            return _State(**found), [
                LinearClassifiers.from_arrays(channel_arrays(arrays, channel)) for channel in self.method.channels
            ]
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise ReproError(f"'{path}' is damaged ({error}): remove it and add --resume") from error

    def model(self) -> BaselineModel:
        """Return the trained model."""
        arrays = load_file(self.folder / VOCABULARY)
        encoders = tuple(
            encoder_from_arrays(channel, self.method, channel_arrays(arrays, channel))
            for channel in self.method.channels
        )
        classifiers = tuple(each.result() for each in self.classifiers)
        return BaselineModel(self.method, encoders, classifiers, self.state.temperature)
