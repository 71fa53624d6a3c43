"""Predictions of trained nets on a split, and their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.data.store import UNLABELLED, Split
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.replicas import MemberViews, Model, Replica, consecutive, map_batches, replicate
from repro.models.devices import AUTOCAST, autocast
from repro.models.finite import all_finite
from repro.models.ten_views import shares_conv1, ten_view_logits

BATCH = 128
VIEWS_AT_ONCE = 512  # on a GPU; their maps of conv1 take 0.6 GB in float32
ALL = slice(None)
NOT_FINITE = "the outputs of the net are not finite: its training has diverged; train it again with a lower --lr"


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images.

    Attributes:
        labels: the correct classes, int64 [N].
        top5: the five most probable classes, most probable first, int64 [N, 5]; fewer columns for fewer classes.
        top5_probabilities: their probabilities, float32 [N, 5].
        label_probabilities: the probability of each label, float32 [N]; NaN for images without a label.
    """

    labels: np.ndarray
    top5: np.ndarray
    top5_probabilities: np.ndarray
    label_probabilities: np.ndarray

    def wrong(self, guesses: int) -> int:
        """Return the number of images whose label is not among the `guesses` most probable classes (Sec. 2)."""
        return int((self.top5[:, :guesses] != self.labels[:, None]).all(axis=1).sum())

    def error(self, guesses: int) -> float:
        """Return the top-1 or top-5 error in percent."""
        return 100 * self.wrong(guesses) / len(self.labels)


@torch.inference_mode()
def predict(
    models: Sequence[Model],
    views: MemberViews,
    split: Split,
    view_count: int = 1,
    precision: str = "fp32",
    on_progress: Callable[[int, int], None] | None = None,
    weights: np.ndarray | None = None,
    batch_size: int = BATCH,
    devices: Sequence[torch.device] = (),
) -> Predictions:
    """Average the softmax outputs of all views (Sec. 4.1) and all models (Sec. 6) for each image of `split`.

    `views` are those of the nets, or of each model: nets that were trained on other images subtract another mean. They
    are None if there is no net among the models. `weights` [models] are the models' weights in the average, with sum
    one; None for equal ones. `on_progress` is called with images done and images in all. `batch_size` changes the
    results by rounding only. The models are left in evaluation mode; with `devices` the nets are on the first, and
    copies of them on the others share the work.
    """
    factors = None if weights is None else torch.from_numpy(weights).float()
    columns: dict[str, np.ndarray] = {}
    done = 0
    parts = member_softmaxes(models, views, split, view_count, precision, batch_size=batch_size, devices=devices)
    for labels, softmaxes in parts:
        average = softmaxes.mean(0) if factors is None else torch.tensordot(factors, softmaxes, 1)
        batch = vars(_predictions(labels, average))
        if not columns:  # allocated once: small arrays kept from every batch would fragment the memory
            columns = {name: np.empty((len(split), *part.shape[1:]), part.dtype) for name, part in batch.items()}
        for name, part in batch.items():
            columns[name][done : done + len(part)] = part
        done += len(labels)
        if on_progress:
            on_progress(done, len(split))
    return Predictions(**columns)


@torch.inference_mode()
def count_wrong(
    model: nn.Module, views: Views, split: Split, precision: str = "fp32", shard: slice = ALL
) -> Iterator[tuple[int, int]]:
    """Yield for each batch of `split` how many images are wrong by the top-1 and by the top-5 error, centre view.

    `shard` selects batches of BATCH images, so that each of several ranks can count a part: an image is in the same
    batch whatever the number of ranks. The model is left in evaluation mode.
    """
    for labels, softmaxes in member_softmaxes([model], views, split, 1, precision, shard, BATCH):
        predictions = _predictions(labels, softmaxes[0])
        yield predictions.wrong(1), predictions.wrong(5)


def member_softmaxes(
    models: Sequence[Model],
    views: MemberViews,
    split: Split,
    view_count: int,
    precision: str = "fp32",
    shard: slice = ALL,
    batch_size: int = BATCH,
    devices: Sequence[torch.device] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each batch the labels [B] and every model's softmax outputs, averaged over views, [models, B, classes].

    Both are on the CPU; `shard` selects batches of `batch_size` images. The models are left in evaluation mode; with
    `devices` they are on the first, and copies of them on the others compute every n-th batch. Raises ReproError for
    outputs that are not finite.
    """

    def compute(replica: Replica, images: Tensor) -> tuple[Tensor, ...]:
        members = zip(replica.models, replica.views, strict=True)
        return tuple(_probabilities(model, own, images, view_count, precision) for model, own in members)

    batches = consecutive(len(split), batch_size)[shard]
    for indices, outputs in map_batches(replicate(models, views, devices), split, batches, compute):
        softmaxes = torch.stack(outputs)
        if not all_finite(softmaxes):
            raise ReproError(NOT_FINITE)
        yield torch.from_numpy(split.labels[indices]), softmaxes


def _probabilities(model: Model, views: Views | None, images: Tensor, view_count: int, precision: str) -> Tensor:
    if not isinstance(model, nn.Module):
        return torch.from_numpy(model.probabilities(images.cpu().numpy()))
    assert views is not None
    return mean_softmax(model, views, images, view_count, precision)


def _predictions(labels: Tensor, probabilities: Tensor) -> Predictions:
    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    of_labels = probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0].masked_fill(labels == UNLABELLED, math.nan)
    columns = (labels, best.indices, best.values, of_labels)
    return Predictions(*(column.numpy() for column in columns))


def mean_softmax(
    model: nn.Module, views: Views, images: np.ndarray | Tensor, view_count: int, precision: str
) -> Tensor:
    """Return the softmax outputs of uint8 [B, S, S, 3], averaged over views, [B, classes]."""
    with autocast(views.device, precision):
        if views.device.type != "cpu":  # large batches keep a GPU busy
            batch = torch.cat([*views.test_views(images, view_count)])
            parts = [model(part) for part in batch.split(VIEWS_AT_ONCE)]  # type: ignore[no-untyped-call]
            logits = torch.cat(parts).view(view_count, len(images), -1)
        elif view_count == 10 and precision not in AUTOCAST and shares_conv1(model, views):
            logits = ten_view_logits(model, views, images)  # not in AUTOCAST: shared maps would be rounded once more
        else:
            logits = torch.stack([model(view) for view in views.test_views(images, view_count)])
        return logits.float().softmax(dim=2).mean(0)
