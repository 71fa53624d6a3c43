"""The training loop: a generator that knows no files, logs or displays (Sec. 4 and 5)."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from repro.data import sampling
from repro.data.reader import Batch, Request, read_ahead
from repro.data.sampling import DROPOUT, Draws
from repro.errors import ReproError
from repro.evaluation.predictions import BATCH, count_wrong
from repro.models.devices import Reading, autocast
from repro.models.layers import DropoutMasks, use_dropout_masks
from repro.paper.recipes import Recipe
from repro.records.schema import EpochRecord
from repro.training.schedule import Chance, advance, divide
from repro.training.state import EpochTotals, Pending, Training


@dataclass(frozen=True)
class Step:
    """An update.

    Attributes:
        epoch: number of the epoch, from 1.
        batch: number of batches of the epoch so far.
        loss: mean cross-entropy of the epoch so far, on a GPU without the last batch.
        top1_error: running top-1 training error of the epoch so far, in percent, on a GPU without the last batch.
        images_per_second: training speed in the epoch so far.
        save_due: whether any rank asked for the run to be saved, in this step or on a GPU in the one before.
    """

    epoch: int
    batch: int
    loss: float
    top1_error: float
    images_per_second: float
    save_due: bool


@dataclass(frozen=True)
class Validating:
    """A batch of the validation of `epoch`. A run that is resumed from here repeats the epoch's validation."""

    epoch: int


def train_epochs(training: Training) -> Iterator[Step | Validating | EpochRecord]:
    """Train until the schedule ends; yield after every update, every batch of validation and every epoch.

    Whenever it yields, `training` can be checkpointed, and a run resumed from there has bit-identical results.
    """
    recipe, size = training.configuration.recipe, training.configuration.recipe.batch_size
    masks = DropoutMasks(training.devices[0])
    use_dropout_masks(training.model, masks)
    while not training.schedule.stopped:
        chance = _chance(training)
        draws = _draws(training)
        training.model.train()
        train = training.store.splits["train"]
        with closing(read_ahead(train, _requests(training, draws), training.devices[:1])) as batches:
            while training.batch < training.batches:
                started = time.perf_counter()
                batch = next(batches)
                passes = training.passes
                training.schedule = divide(recipe.schedule, training.schedule, passes)
                for group in training.optimiser.param_groups:
                    group["lr"] = recipe.lr_of(group["name"], training.schedule.drops, passes, training.step)
                colour = recipe.colour_until is None or passes < recipe.colour_until
                index = draws.index[training.batch * size : (training.batch + 1) * size]
                rows = training.group.shard(len(index))
                masks.begin(sampling.torch_seed(training.seed, DROPOUT, training.step), len(index), rows)
                _update(training, batch, index, colour)
                training.totals.seconds += time.perf_counter() - started
                training.batch += 1
                training.step += 1
                yield _step(training)
        yield from _end_epoch(training, chance)


def _draws(training: Training) -> Draws:
    """Return the draws of the current epoch, with indices into the train split."""
    augmentation = training.configuration.recipe.augmentation
    draws = sampling.draw_epoch(training.seed, training.epoch, training.images, training.views.margin, augmentation)
    if not training.holding_out:
        return draws
    rows = np.delete(np.arange(len(training.store.splits["train"])), training.held_out)
    return replace(draws, index=rows[draws.index])


def _requests(training: Training, draws: Draws) -> Iterator[Request]:
    """Yield this rank's part of each remaining batch of the epoch, with labels and crops."""
    train, size = training.store.splits["train"], training.configuration.recipe.batch_size
    for batch in range(training.batch, training.batches):
        whole = draws[batch * size : (batch + 1) * size]
        part = whole[training.group.shard(len(whole))]
        yield Request(part.index, {"labels": train.labels[part.index], **training.views.crops(part)})


def _chance(training: Training) -> Chance:
    """Return the error of the best constant prediction on the validation images, or else on the training images."""
    labels = (training.val or training.store.splits["train"]).labels
    return Chance(100 * (1 - float(np.bincount(labels).max()) / len(labels)), len(labels))


def _update(training: Training, batch: Batch, index: np.ndarray, colour: bool) -> None:
    """Take one step of gradient descent on the images at `index`, of which `batch` is this rank's part."""
    labels = batch.columns["labels"]
    images = training.views.cut(batch.images, batch.columns, colour)
    with autocast(training.devices[0], training.precision):
        logits = training.model(images)
    # This rank's part of the batch's mean loss; the parts, and so their gradients, sum to it.
    loss = F.cross_entropy(logits.float(), labels, reduction="sum") / len(index)
    wrong = (logits.argmax(1) != labels).sum()
    due = torch.full_like(loss, training.save_due())
    training.optimiser.zero_grad()
    counts = torch.stack((loss.detach(), wrong.to(loss.dtype), due))
    sums = training.gradients.backward(training.scaler.scale(loss), counts)
    training.settle()  # of the update before, while the device computes this one
    training.pending = Pending(training.step, index, Reading(sums))
    if not training.reads_late:
        training.settle()
    training.scaler.step(training.optimiser)  # type: ignore[arg-type]  # it uses param_groups and step
    training.scaler.update()


def _step(training: Training) -> Step:
    totals = training.totals
    if not totals.images:  # of the epoch's first update there is nothing else to report
        training.settle()
    return Step(
        epoch=training.epoch,
        batch=training.batch,
        loss=totals.loss / totals.images,
        top1_error=100 * totals.wrong / totals.images,
        images_per_second=totals.images / totals.seconds,
        save_due=training.save_asked,
    )


def _end_epoch(training: Training, chance: Chance) -> Iterator[Validating | EpochRecord]:
    """Validate, advance the schedule and start the next epoch; `training` only changes before the last event.

    Raises ReproError if the weights or the outputs of the net are not finite.
    """
    started = time.perf_counter()
    training.settle()
    training.totals.seconds += time.perf_counter() - started
    started = time.perf_counter()
    training.check_finite()
    val_top1, val_top5 = yield from _validate(training)
    recipe, totals = training.configuration.recipe, training.totals
    record = EpochRecord(
        epoch=training.epoch,
        step=training.step,
        lr=training.lr,
        train_loss=totals.loss / totals.images,
        train_top1_error=100 * totals.wrong / totals.images,
        val_top1_error=val_top1,
        val_top5_error=val_top5,
        seconds=totals.seconds + time.perf_counter() - started,
        images_per_second=totals.images / totals.seconds,
    )
    error = record.train_top1_error if math.isnan(val_top1) else val_top1
    if not chance.left(error):
        record = replace(record, note=_stall_note(record.train_loss, len(training.store.classes), recipe))
    training.schedule = advance(recipe.schedule, training.schedule, training.epoch, training.epochs, error, chance)
    if training.until_train_error is not None and record.train_top1_error <= training.until_train_error:
        training.schedule = replace(training.schedule, stopped=True)
    training.epoch, training.batch, training.totals = training.epoch + 1, 0, EpochTotals()
    yield record


def _validate(training: Training) -> Generator[Validating, None, tuple[float, float]]:
    """Return top-1 and top-5 error on the validation images in percent, NaN without any; each rank evaluates a part.

    Yields between batches, equally often on every rank, so that a signal is handled before a long validation ends.
    Raises ReproError on all ranks if outputs of the net are not finite; without a val split, a batch of the train
    split is tested for that.
    """
    val, group = training.val, training.group
    shard = slice(group.rank, None, group.world_size) if val is not None else slice(1)
    images = training.store.splits["train"] if val is None else val
    batches = count_wrong(training.model, training.views, images, training.precision, shard)

    def count() -> tuple[int, int]:
        try:
            return next(batches, (0, 0))
        except ReproError as error:
            raise training.diverged(f"the outputs of the net are not finite after update {training.step}") from error

    if val is None:
        group.run_checked(count)
        return math.nan, math.nan
    top1 = top5 = 0
    for remaining in reversed(range(math.ceil(len(val) / (BATCH * group.world_size)))):
        wrong1, wrong5 = group.run_checked(count)
        top1, top5 = top1 + wrong1, top5 + wrong5
        if remaining:
            yield Validating(training.epoch)
    errors = group.sum(top1, top5)
    return 100 * errors[0] / len(val), 100 * errors[1] / len(val)


def _stall_note(loss: float, classes: int, recipe: Recipe) -> str | None:
    """Return the note for an epoch whose mean loss is no better than that of equal probabilities, ln(classes)."""
    if loss < 0.99 * math.log(classes):
        return None
    if recipe.initialisation.std_of:
        cause = "usual in the first few hundred updates; later, check that the labels belong to the images"
    else:
        cause = (
            "with std 0.01 in every layer the activations shrink from layer to layer, and at half the paper's width "
            "the net leaves chance only after some hundred updates; the learning rate does not drop until then; recipe "
            "'authors' has std 0.03 in conv3-5"
        )
    return f"no better than chance, loss {loss:.3f} against ln({classes}) = {math.log(classes):.3f}: {cause}"
