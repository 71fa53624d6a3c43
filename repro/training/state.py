"""State of a run in progress: the net, its optimiser, and everything that a checkpoint has to hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.data.store import Split, Store, Subset
from repro.data.views import Views
from repro.errors import ReproError
from repro.models.devices import AUTOCAST, Reading, asynchronous, check_precision, find_devices
from repro.models.finite import all_finite
from repro.models.network import AlexNet, initial_net
from repro.models.towers import Towers, gather, named_shards, scatter, to_devices
from repro.paper.recipes import Plateau
from repro.paper.variants import Configuration
from repro.training.checkpoint import Checkpoint
from repro.training.distributed import SINGLE_PROCESS, GradientBuckets, ProcessGroup
from repro.training.fine_tuning import load_matching_weights, read_initial_weights
from repro.training.optim import PaperSGD, build_optimiser
from repro.training.schedule import ScheduleState
from repro.training.settings import Settings

STEP_SCALARS = 3  # loss, number of wrong predictions, and whether to save: what ranks exchange besides gradients


@dataclass
class EpochTotals:
    """Running sums over an epoch's training views, of all ranks.

    Attributes:
        loss: sum of the cross-entropies.
        wrong: number of views whose most probable class is wrong.
        images: number of views.
        seconds: duration of the updates.
    """

    loss: float = 0.0
    wrong: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Pending:
    """An update whose loss has not been read from the device yet.

    Attributes:
        step: number of updates before it.
        index: its images, as positions in the train split, int64 [N].
        counts: its loss, the mean cross-entropy of the batch, its number of wrong views, and the number of ranks that
            ask for the run to be saved; sums over all ranks.
    """

    step: int
    index: np.ndarray
    counts: Reading


@dataclass
class Training:
    """A run in progress. The fields from `epoch` on, the weights and the velocities change, and are checkpointed.

    Attributes:
        configuration: network, recipe and scale.
        store: the images.
        seed: the run's seed.
        length: maximum length of training, in passes over the training images; it can end within an epoch.
        until_train_error: training error in percent at which training ends early, or None.
        precision: one of `repro.models.devices.PRECISIONS`.
        group: the processes of the run.
        devices: devices of this process.
        model: the net, in training mode or not.
        optimiser: the update rule with its velocities.
        scaler: factor on the loss, which keeps the gradients of "fp16" from vanishing; otherwise without effect.
        views: makes training and validation views.
        gradients: sums of gradients over the processes.
        save_due: called in every step; returns whether this process asks for the run to be saved.
        epoch: number of the current epoch, from 1.
        batch: index of the next batch in the epoch.
        step: number of updates so far.
        schedule: state of the learning-rate schedule.
        totals: running sums over the current epoch.
        pending: the last update, if `totals` does not include it yet.
        save_asked: whether any rank asked for the run to be saved, in the last update that `totals` includes.
    """

    configuration: Configuration
    store: Store
    seed: int
    length: float
    until_train_error: float | None
    precision: str
    group: ProcessGroup
    devices: tuple[torch.device, ...]
    model: AlexNet | Towers
    optimiser: PaperSGD
    scaler: torch.amp.GradScaler
    views: Views
    gradients: GradientBuckets
    save_due: Callable[[], bool] = bool
    epoch: int = 1
    batch: int = 0
    step: int = 0
    schedule: ScheduleState = field(default_factory=ScheduleState)
    totals: EpochTotals = field(default_factory=EpochTotals)
    pending: Pending | None = None
    save_asked: bool = False

    @property
    def epochs(self) -> int:
        """Maximum number of epochs; the last one ends early if `length` is not a whole number."""
        return math.ceil(self.length)

    @property
    def whole_epoch(self) -> int:
        """Number of batches in a pass over the training images; the last one may be smaller."""
        return math.ceil(self.images / self.configuration.recipe.batch_size)

    @property
    def batches(self) -> int:
        """Number of batches in the current epoch: fewer than in a whole one if training ends within it."""
        return math.ceil(self.whole_epoch * min(1.0, self.length - (self.epoch - 1)))

    @property
    def passes(self) -> float:
        """Number of passes over the training images so far: 2.5 in the middle of epoch 3."""
        return self.epoch - 1 + self.batch / self.whole_epoch

    @cached_property
    def held_out(self) -> np.ndarray:
        """Rows of the train split that are held out at first, int64 [N]: the last images of each class."""
        held_out = self.configuration.recipe.held_out
        if held_out is None or not held_out.applies(self.length):
            return np.empty(0, np.int64)
        labels = self.store.splits["train"].labels
        rows = [np.flatnonzero(labels == label) for label in range(len(self.store.classes))]
        return np.sort(np.concatenate([each[len(each) - round(held_out.share * len(each)) :] for each in rows]))

    @property
    def holding_out(self) -> bool:
        """Whether part of the train split is held out in the current epoch."""
        held_out = self.configuration.recipe.held_out
        return held_out is not None and self.epoch <= held_out.epochs and len(self.held_out) > 0

    @property
    def images(self) -> int:
        """Number of images to train on in the current epoch."""
        return len(self.store.splits["train"]) - (len(self.held_out) if self.holding_out else 0)

    @property
    def val(self) -> Split | None:
        """The images to validate on after the current epoch; None if there are none."""
        if self.holding_out:
            return Subset(self.store.splits["train"], self.held_out)
        return self.store.splits.get("val")

    @property
    def lr(self) -> float:
        """Learning rate of the weights according to the schedule, which the log records."""
        return self.configuration.recipe.lr * 0.1**self.schedule.drops

    @property
    def reads_late(self) -> bool:
        """Whether the loss of an update is read during the next one, so that the device never waits for the program."""
        return asynchronous(self.devices[0])

    def settle(self) -> None:
        """Add the pending update to `totals`. Raises ReproError if its loss is not finite."""
        if self.pending is None:
            return
        update, self.pending = self.pending, None
        loss, wrong, saves = update.counts.values()
        if not math.isfinite(loss):
            indices = ", ".join(map(str, update.index))
            raise ReproError(
                f"{self.diverged(f'the loss is {loss} before update {update.step + 1}')}; if that does not help, "
                f"check the images of the batch, with these indices in the train split: {indices}"
            )
        self.totals.loss += loss * len(update.index)
        self.totals.wrong += int(wrong)
        self.totals.images += len(update.index)
        self.save_asked = saves > 0

    def shards(self) -> dict[str, list[Tensor]]:
        """Return weights and velocities as this net holds them, by their names in a net on one device.

        Each is a list of one tensor, or of two where it is split over two devices.
        """
        named: dict[str, list[Tensor]] = {}
        for name, weights in named_shards(self.model).items():
            named[name] = [*weights]
            named[f"velocity.{name}"] = [self.optimiser.state[weight]["velocity"] for weight in weights]
        return named

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and velocities by name, on the CPU; they do not depend on the number of devices."""
        return {name: gather(shards) for name, shards in self.shards().items()}

    @property
    def nbytes(self) -> int:
        """Size of the tensors that a checkpoint holds, in bytes."""
        return sum(shard.nbytes for shards in self.shards().values() for shard in shards)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name, on the CPU."""
        return {name: value for name, value in self.tensors().items() if not name.startswith("velocity.")}

    def check_finite(self) -> None:
        """Raise ReproError if the training has diverged: if the last loss, a weight or a velocity is not finite."""
        self.settle()
        for name, shards in self.shards().items():
            if not all(map(all_finite, shards)):
                raise self.diverged(f"{name} is not finite after update {self.step}")

    def diverged(self, what: str) -> ReproError:
        """Return the error for a training that has diverged, of which `what` is the sign."""
        precision = ", --precision fp32" if self.precision in AUTOCAST else ""
        return ReproError(
            f"the training diverged at learning rate {self.lr:g}: {what} (epoch {self.epoch}); nothing was saved since "
            f"the last checkpoint: start again with a lower --lr{precision} or another --seed"
        )

    def state(self) -> dict[str, Any]:
        """Return everything else that a checkpoint has to hold, as JSON values."""
        self.settle()
        scaler = {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "schedule": asdict(self.schedule),
            "tally": asdict(self.totals),
            **scaler,
        }

    def restore(self, saved: Checkpoint) -> None:
        """Load a checkpoint."""
        for name, shards in self.shards().items():
            scatter(shards, saved.tensors[name])
        self._load_state(saved.state)

    @torch.no_grad()
    def synchronize(self) -> None:
        """Copy the state of rank 0 to all ranks."""
        self.group.broadcast_tensors(shard for shards in self.shards().values() for shard in shards)
        self._load_state(self.group.broadcast(self.state()))

    def _load_state(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.schedule = ScheduleState(**state["schedule"])
        self.totals = EpochTotals(**state["tally"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def prepare_training(settings: Settings, store: Store, group: ProcessGroup = SINGLE_PROCESS) -> Training:
    """Return a new run before its first update.

    Raises ReproError for unknown names, and for a store or an initial run that does not fit the settings.
    """
    configuration = settings.configure(len(store.classes), store.dataset)
    _check_store(store, settings, configuration)
    devices = find_devices(settings.devices, group.local_rank, group.local_world_size)
    check_precision(settings.precision, devices[0])
    recipe = configuration.recipe
    model = initial_net(configuration.network, recipe.initialisation, settings.seed)
    if settings.init_from:
        classes = [each.id for each in store.classes]
        load_matching_weights(read_initial_weights(settings.init_from), model, classes, recipe.load_patterns)
    elif before := configuration.starts_from:
        raise ReproError(f"'{settings.variant}' starts from the weights of a '{before}' run: name it with --init-from")
    placed = to_devices(model, devices)
    return Training(
        configuration=configuration,
        store=store,
        seed=settings.seed,
        length=settings.epochs or configuration.length,
        until_train_error=settings.until_train_error,
        precision=settings.precision,
        group=group,
        devices=devices,
        model=placed,
        optimiser=build_optimiser(placed, recipe),
        scaler=torch.amp.GradScaler(devices[0].type, enabled=settings.precision == "fp16"),
        views=Views(store.mean, store.covariance, configuration.scale.crop_size, recipe.augmentation, devices[0]),
        gradients=GradientBuckets(group, placed.parameters(), STEP_SCALARS, devices[0]),
    )


def _check_store(store: Store, settings: Settings, configuration: Configuration) -> None:
    """Raise ReproError if the store does not fit."""
    size = configuration.scale.image_size
    if store.size != size:
        raise ReproError(
            f"the store '{store.path}' holds images of {store.size} pixels, scale '{settings.scale}' needs {size}: "
            f"prepare one with --size {size}"
        )
    store.require_labels(("train", "val"), "training")
    if "val" not in store.splits and isinstance(configuration.recipe.schedule, Plateau):
        raise ReproError(
            f"the store '{store.path}' has no val split, whose error decides when the learning rate drops: add a val "
            "folder"
        )
