"""The training loop: a generator that knows nothing of files, logs or displays (Sec. 4 and 5)."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from repro.data import sampling
from repro.data.sampling import DROPOUT, WEIGHTS, Draws
from repro.data.store import Store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.predictions import BATCH, count_wrong
from repro.models.devices import find_devices
from repro.models.layers import DropoutMasks, use_dropout_masks
from repro.models.network import AlexNet
from repro.models.towers import Towers, gather, named_shards, scatter, to_devices
from repro.paper.recipes import Plateau, Recipe
from repro.paper.variants import Configuration, configure
from repro.records import EpochRecord, read_run
from repro.training import checkpoint
from repro.training.distributed import SINGLE_PROCESS, ProcessGroup
from repro.training.fine_tuning import load_matching_weights
from repro.training.optim import PaperSGD, learning_rate, optimiser
from repro.training.schedule import Chance, ScheduleState, advance


@dataclass(frozen=True)
class Settings:
    """What the user chooses about a run.

    `epochs` and `lr` None mean the scale's and the recipe's own, `devices` None a GPU if there is one. `init_from`
    is the folder of a finished run whose weights this one begins with. `until_train_error`: training ends early,
    after the first epoch whose training error is no higher, in percent.
    """

    variant: str
    recipe: str = "authors"
    scale: str = "small"
    seed: int = 0
    epochs: int | None = None
    lr: float | None = None
    devices: str | None = None
    precision: str = "fp32"
    init_from: Path | None = None
    until_train_error: float | None = None


@dataclass
class EpochTotals:
    """The running sums of an epoch, over its training views as they were seen."""

    loss: float = 0.0
    wrong: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass
class Training:
    """A run in progress: what does not change, and the state that a checkpoint holds.

    `epoch` counts from 1; `batch` is the next batch of it; `step` the updates so far.
    """

    configuration: Configuration
    store: Store
    seed: int
    epochs: int
    until_train_error: float | None
    bf16: bool
    ranks: ProcessGroup
    devices: tuple[torch.device, ...]
    model: AlexNet | Towers
    optimiser: PaperSGD
    views: Views
    epoch: int = 1
    batch: int = 0
    step: int = 0
    schedule: ScheduleState = field(default_factory=ScheduleState)
    tally: EpochTotals = field(default_factory=EpochTotals)

    @property
    def batches(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(len(self.store.splits["train"]) / self.configuration.recipe.batch_size)

    def pieces(self) -> dict[str, list[Tensor]]:
        """Weights and velocities by the one-device net's names, as this net holds them: in one piece, or halves."""
        named: dict[str, list[Tensor]] = {}
        for name, weights in named_shards(self.model).items():
            named[name] = [*weights]
            named[f"velocity.{name}"] = [self.optimiser.state[weight]["velocity"] for weight in weights]
        return named

    def tensors(self) -> dict[str, Tensor]:
        """Weights and velocities by name, on the CPU, the same for any number of devices."""
        return {name: gather(pieces) for name, pieces in self.pieces().items()}

    def state(self) -> dict[str, Any]:
        """All else that a resumed run must know, as JSON values."""
        place = {"epoch": self.epoch, "batch": self.batch, "step": self.step}
        return place | {"schedule": asdict(self.schedule), "tally": asdict(self.tally)}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint."""
        for name, pieces in self.pieces().items():
            scatter(pieces, saved.tensors[name])
        self._go_to(saved.state)

    @torch.no_grad()
    def follow_first_rank(self) -> None:
        """Have on every rank what the first one has."""
        self.ranks.copy(piece for pieces in self.pieces().values() for piece in pieces)
        self._go_to(self.ranks.tell(self.state()))

    def _go_to(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch, self.step = (state[key] for key in ("epoch", "batch", "step"))
        self.schedule = ScheduleState(**state["schedule"])
        self.tally = EpochTotals(**state["tally"])


@dataclass(frozen=True)
class Step:
    """One update: its place in the epoch and the epoch's figures so far, errors in percent."""

    epoch: int
    batch: int
    loss: float
    top1_error: float
    images_per_second: float


@dataclass(frozen=True)
class Validating:
    """A part of the val split has been answered; gone on with later, the epoch's validation begins anew."""

    epoch: int


def prepare_training(settings: Settings, store: Store, ranks: ProcessGroup = SINGLE_PROCESS) -> Training:
    """A fresh run: net, optimiser and views. Raises ReproError for unknown names and a store that does not fit."""
    configuration = configure(settings.variant, settings.recipe, settings.scale, len(store.classes))
    if store.size != configuration.scale.image_size:
        raise ReproError(
            f"the store '{store.path}' holds images of {store.size} pixels, scale '{settings.scale}' needs "
            f"{configuration.scale.image_size}: prepare one with --size {configuration.scale.image_size}"
        )
    if settings.lr:
        configuration = replace(configuration, recipe=replace(configuration.recipe, lr=settings.lr))
    if "val" not in store.splits and isinstance(configuration.recipe.schedule, Plateau):
        raise ReproError(f"the store '{store.path}' has no val split, by which the rate is lowered: add a val folder")
    devices = find_devices(settings.devices, ranks.local_rank, ranks.local_count)
    recipe = configuration.recipe
    weights = torch.Generator().manual_seed(sampling.torch_seed(settings.seed, WEIGHTS))
    model = AlexNet(configuration.network).initialise(recipe.initialisation, weights)
    if settings.init_from:
        classes = [each.id for each in store.classes]
        load_matching_weights(read_run(settings.init_from), model, classes, recipe.load_patterns)
    elif before := configuration.variant.begins_from:
        raise ReproError(f"'{settings.variant}' begins with the weights of a '{before}' run: name it with --init-from")
    placed = to_devices(model, devices)
    crop = configuration.scale.crop_size
    return Training(
        configuration=configuration,
        store=store,
        seed=settings.seed,
        epochs=settings.epochs or configuration.epochs,
        until_train_error=settings.until_train_error,
        bf16=settings.precision == "bf16",
        ranks=ranks,
        devices=devices,
        model=placed,
        optimiser=optimiser(placed, recipe),
        views=Views(store.mean, store.covariance, crop, recipe.augmentation, devices[0]),
    )


def train_epochs(training: Training) -> Iterator[Step | Validating | EpochRecord]:
    """Train to the end of the schedule, yielding after every update, every batch of validation and every epoch.

    Whenever it yields, `training` is whole: it can be saved then, and goes on from there to the same bits.
    """
    train = training.store.splits["train"]
    recipe, size = training.configuration.recipe, training.configuration.recipe.batch_size
    labels = training.store.splits.get("val", train).labels
    chance = Chance(100 * (1 - float(np.bincount(labels).max()) / len(labels)), len(labels))
    masks = DropoutMasks(training.devices[0])
    use_dropout_masks(training.model, masks)
    while not training.schedule.stopped:
        draws = sampling.draw_epoch(
            training.seed, training.epoch, len(train), training.views.margin, recipe.augmentation
        )
        for group in training.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, group["name"], training.schedule.drops, training.epoch)
        colour = training.epoch <= (recipe.colour_until or training.epoch)
        training.model.train()
        while training.batch < training.batches:
            started = time.perf_counter()
            batch = draws[training.batch * size : (training.batch + 1) * size]
            rows = training.ranks.share(len(batch))
            masks.begin(sampling.torch_seed(training.seed, DROPOUT, training.step), len(batch), rows)
            _update(training, batch, rows, colour)
            training.tally.seconds += time.perf_counter() - started
            training.batch += 1
            training.step += 1
            yield _step(training)
        yield from _end_epoch(training, chance)


def _update(training: Training, batch: Draws, rows: slice, colour: bool) -> None:
    """One step of gradient descent on the images of `batch`, of which this rank computes `rows`."""
    train, draws, device = training.store.splits["train"], batch[rows], training.devices[0]
    labels = torch.from_numpy(train.labels[draws.index]).to(device)
    images = training.views.augment(train.images(draws.index), draws, colour)
    with torch.autocast(device.type, torch.bfloat16, enabled=training.bf16):
        logits = training.model(images)
    # A rank's part of the mean over the batch: the parts, and so their gradients, add up to it.
    loss = F.cross_entropy(logits.float(), labels, reduction="sum") / len(batch)
    value, wrong = training.ranks.total(loss.item(), int((logits.argmax(1) != labels).sum()))
    if not math.isfinite(value):
        raise ReproError(
            f"the loss is {value} at step {training.step} (epoch {training.epoch}, rate {_rate(training):g}); nothing "
            "was updated: try --precision fp32, a lower --lr or another --seed, or look at the images of the batch, by "
            f"their places in the training split: {', '.join(map(str, batch.index))}"
        )
    training.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    training.ranks.add_up(weight.grad for weight in training.model.parameters() if weight.grad is not None)
    training.optimiser.step()
    training.tally.loss += value * len(batch)
    training.tally.wrong += int(wrong)
    training.tally.images += len(batch)


def _rate(training: Training) -> float:
    """The rate of the weights by the schedule, as the log has it."""
    return training.configuration.recipe.lr * 0.1**training.schedule.drops


def _step(training: Training) -> Step:
    tally = training.tally
    return Step(
        epoch=training.epoch,
        batch=training.batch,
        loss=tally.loss / tally.images,
        top1_error=100 * tally.wrong / tally.images,
        images_per_second=tally.images / tally.seconds,
    )


def _end_epoch(training: Training, chance: Chance) -> Iterator[Validating | EpochRecord]:
    """Validate, move the schedule on, and begin the next epoch; until the record comes, nothing is changed."""
    started = time.perf_counter()
    val_top1, val_top5 = yield from _validate(training)
    recipe, tally = training.configuration.recipe, training.tally
    record = EpochRecord(
        epoch=training.epoch,
        step=training.step,
        lr=_rate(training),
        train_loss=tally.loss / tally.images,
        train_top1_error=100 * tally.wrong / tally.images,
        val_top1_error=val_top1,
        val_top5_error=val_top5,
        seconds=tally.seconds + time.perf_counter() - started,
        images_per_second=tally.images / tally.seconds,
    )
    error = record.train_top1_error if math.isnan(val_top1) else val_top1
    if not chance.left(error):
        record = replace(record, note=_stall(record.train_loss, len(training.store.classes), recipe))
    training.schedule = advance(recipe.schedule, training.schedule, training.epoch, training.epochs, error, chance)
    if training.until_train_error is not None and record.train_top1_error <= training.until_train_error:
        training.schedule = replace(training.schedule, stopped=True)
    training.epoch, training.batch, training.tally = training.epoch + 1, 0, EpochTotals()
    yield record


def _validate(training: Training) -> Generator[Validating, None, tuple[float, float]]:
    """Top-1 and top-5 error on the val split in percent, each rank answering for a part; NaN without the split.

    It yields between batches, equally often on every rank, because a whole validation can take longer than somebody
    who has asked the run to stop will wait.
    """
    val, ranks = training.store.splits.get("val"), training.ranks
    if val is None:
        return math.nan, math.nan
    share = slice(ranks.rank, None, ranks.count)
    batches = count_wrong(training.model, training.views, val, training.bf16, share)
    top1 = top5 = 0
    for left in reversed(range(math.ceil(len(val) / (BATCH * ranks.count)))):
        wrong1, wrong5 = next(batches, (0, 0))
        top1, top5 = top1 + wrong1, top5 + wrong5
        if left:
            yield Validating(training.epoch)
    errors = ranks.total(top1, top5)
    return 100 * errors[0] / len(val), 100 * errors[1] / len(val)


def _stall(loss: float, classes: int, recipe: Recipe) -> str | None:
    """What to tell the user when an epoch's mean loss is no better than that of equal guesses, ln(classes)."""
    if loss < 0.99 * math.log(classes):
        return None
    if recipe.initialisation.std_of:
        cause = "usual in the first few hundred updates; later, the labels may not belong to the images"
    else:
        cause = (
            "with std 0.01 in every layer the signal fades on its way up, and the net leaves chance only after "
            "some hundred updates; the rate is not lowered until then; recipe 'authors' has std 0.03 in conv3-5"
        )
    return f"no better than chance, loss {loss:.3f} against ln({classes}) = {math.log(classes):.3f}: {cause}"
