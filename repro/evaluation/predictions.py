"""What trained nets answer on a split, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.data.store import Split
from repro.data.views import Views
from repro.models.ten_views import shares_conv1, ten_view_logits

BATCH = 128
EVERY = slice(None)


@dataclass(frozen=True)
class Predictions:
    """The answers for N images: the five most probable classes, most probable first (all, of fewer than five).

    `labels` [N] int64; `top5` [N, 5] int64; `top5_probabilities` [N, 5] and `label_probabilities` [N] float32.
    """

    labels: np.ndarray
    top5: np.ndarray
    top5_probabilities: np.ndarray
    label_probabilities: np.ndarray

    def wrong(self, guesses: int) -> int:
        """The number of images whose label is not among the first `guesses` answers (Sec. 2)."""
        return int((self.top5[:, :guesses] != self.labels[:, None]).all(axis=1).sum())

    def error(self, guesses: int) -> float:
        """Top-1 or top-5 error in percent."""
        return 100 * self.wrong(guesses) / len(self.labels)


@torch.inference_mode()
def predict(
    models: Sequence[nn.Module],
    views: Views,
    split: Split,
    view_count: int = 1,
    bf16: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    weights: np.ndarray | None = None,
) -> Predictions:
    """Average the softmax outputs of all views (Sec. 4.1) and all models (Sec. 6) for each image of `split`.

    `weights` are the models' [models], with the sum one; None for equal ones. `on_progress` is told images done and
    images in all. The models are left in evaluation mode.
    """
    shares = None if weights is None else torch.from_numpy(weights).float()
    columns: dict[str, np.ndarray] = {}
    done = 0
    for labels, softmaxes in member_softmaxes(models, views, split, view_count, bf16):
        average = softmaxes.mean(0) if shares is None else torch.tensordot(shares, softmaxes, 1)
        answers = vars(_answers(labels, average))
        if not columns:  # for all images: small arrays kept from every batch would hold freed memory apart
            columns = {name: np.empty((len(split), *part.shape[1:]), part.dtype) for name, part in answers.items()}
        for name, part in answers.items():
            columns[name][done : done + len(part)] = part
        done += len(labels)
        if on_progress:
            on_progress(done, len(split))
    return Predictions(**columns)


@torch.inference_mode()
def count_wrong(
    model: nn.Module, views: Views, split: Split, bf16: bool = False, share: slice = EVERY
) -> Iterator[tuple[int, int]]:
    """Batch by batch, how many images of `split` are wrong by the centre view's first answer, and by the first five.

    `share` picks batches of BATCH images, so that several ranks can count a part each: an image is always in
    the same batch. The model is left in evaluation mode.
    """
    for labels, softmaxes in member_softmaxes([model], views, split, 1, bf16, share):
        answers = _answers(labels, softmaxes[0])
        yield answers.wrong(1), answers.wrong(5)


def member_softmaxes(
    models: Sequence[nn.Module],
    views: Views,
    split: Split,
    view_count: int,
    bf16: bool = False,
    share: slice = EVERY,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batch by batch the labels [B] and every model's softmax outputs, averaged over views, [models, B, classes].

    Both are on the CPU; `share` picks batches of BATCH images. The models are left in evaluation mode.
    """
    for model in models:
        model.eval()
    for start in range(0, len(split), BATCH)[share]:
        rows = np.arange(start, min(start + BATCH, len(split)))
        images = split.images(rows)
        outputs = [mean_softmax(model, views, images, view_count, bf16) for model in models]
        yield torch.from_numpy(split.labels[rows]), torch.stack(outputs).cpu()


def _answers(labels: Tensor, probabilities: Tensor) -> Predictions:
    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    columns = (labels, best.indices, best.values, probabilities.gather(1, labels[:, None])[:, 0])
    return Predictions(*(column.numpy() for column in columns))


def mean_softmax(model: nn.Module, views: Views, images: np.ndarray, view_count: int, bf16: bool) -> Tensor:
    """The softmax outputs of uint8 [B, S, S, 3], averaged over views, [B, classes]."""
    with torch.autocast(views.device.type, torch.bfloat16, enabled=bf16):
        if view_count == 10 and not bf16 and shares_conv1(model, views):  # bfloat16 would round the sums once more
            logits = ten_view_logits(model, views, images)
        else:
            logits = torch.stack([model(view) for view in views.test_views(images, view_count)])
        return logits.float().softmax(dim=2).mean(0)
