"""What recipes ask for beyond whole epochs: changes and ends within an epoch, and images held out at first."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.data.reader import Batch
from repro.data.store import Store
from repro.paper.recipes import HeldOut, LrChange, Recipe, Steps
from repro.preparation.prepare import prepare
from repro.records.schema import EpochRecord
from repro.training import loop
from repro.training.loop import Step, train_epochs
from repro.training.settings import Settings
from repro.training.state import Training, prepare_training


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Ten training images of each of ten classes."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=10)


def training_by(store: Store, length: float, **changes: object) -> Training:
    """A run by the authors' recipe with batches of ten, ten of them in an epoch, and some other changes."""
    training = prepare_training(Settings("alexnet", "authors", "smoke"), store)
    recipe: Recipe = replace(training.configuration.recipe, batch_size=10, **changes)  # type: ignore[arg-type]
    training.configuration = replace(training.configuration, recipe=recipe)
    training.length = length
    return training


def lrs(training: Training) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in training.optimiser.param_groups}


def test_training_ends_and_the_learning_rate_changes_within_an_epoch(store: Store) -> None:
    training = training_by(
        store, 1.65, schedule=Steps(after=(1.3,), epochs=1.65), unscheduled=("*.bias", "conv1.weight"),
        lr_changes=(LrChange("fc8.weight", 10.0, after_updates=4), LrChange("conv2.*", 0.0, after=1.5)),
    )  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in ("conv1.weight", "conv2.weight", "conv3.bias", "fc8.weight")}
    epochs = []
    for event in train_epochs(training):
        if isinstance(event, Step):
            for name, values in found.items():
                values.append(lrs(training)[name])
        elif isinstance(event, EpochRecord):
            epochs.append(event)
    assert [(each.epoch, each.step, each.lr) for each in epochs] == [(1, 10, 0.01), (2, 17, pytest.approx(0.001))]
    assert found["conv1.weight"] == [0.01] * 17
    assert found["conv3.bias"] == [0.02] * 17
    assert found["conv2.weight"] == pytest.approx([0.01] * 13 + [0.001] * 2 + [0.0] * 2)
    assert found["fc8.weight"] == pytest.approx([0.01] * 4 + [0.1] * 9 + [0.01] * 4)
    assert (training.epochs, training.schedule.stopped) == (2, True)


def test_a_frozen_layer_stays_as_it_is(store: Store) -> None:
    training = training_by(store, 1.0, lr_changes=(LrChange("conv1.*", 0.0, after=0.5),))
    kept = []
    for event in train_epochs(training):
        if isinstance(event, Step) and event.batch >= 5:
            kept.append(training.tensors())
    before, after = kept[0], kept[-1]
    for name in ("conv1.weight", "conv1.bias", "velocity.conv1.weight"):
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["conv2.weight"], after["conv2.weight"])


def test_colour_augmentation_ends_within_an_epoch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    update = loop._update

    def spy(training: Training, batch: Batch, index: np.ndarray, colour: bool) -> None:
        seen.append(colour)
        update(training, batch, index, colour)

    monkeypatch.setattr(loop, "_update", spy)
    list(train_epochs(training_by(store, 1.0, colour_until=0.4)))
    assert seen == [True] * 4 + [False] * 6


def test_images_held_out_validate_first_and_are_trained_on_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[int]] = [[], [], []]
    labels = store.splits["train"].labels
    update = loop._update

    def spy(training: Training, batch: Batch, index: np.ndarray, colour: bool) -> None:
        np.testing.assert_array_equal(batch.columns["labels"], labels[index])
        trained[training.epoch - 1] += index.tolist()
        update(training, batch, index, colour)

    monkeypatch.setattr(loop, "_update", spy)
    training = training_by(store, 3, held_out=HeldOut(share=0.2, epochs=2))
    # The last fifth of the ten images of each class, in the store's order.
    held_out = np.sort(np.concatenate([np.flatnonzero(labels == label)[8:] for label in range(10)]))
    validated = []
    for event in train_epochs(training):
        if isinstance(event, EpochRecord):
            validated.append(event)
        elif isinstance(event, Step) and event.epoch < 3:
            assert training.val is not None
            np.testing.assert_array_equal(training.val.labels, labels[held_out])
            np.testing.assert_array_equal(
                training.val.images(np.array([3, 0])), store.splits["train"].images(held_out[[3, 0]])
            )
    assert [sorted(each) for each in trained[:2]] == [sorted(set(range(100)) - set(held_out.tolist()))] * 2
    assert sorted(trained[2]) == list(range(100))
    assert [each.step for each in validated] == [8, 16, 26]
    assert training.val is store.splits["val"]


def test_a_run_too_short_to_fold_them_in_holds_no_images_out(store: Store) -> None:
    training = training_by(store, 2, held_out=HeldOut(share=0.2, epochs=2))
    assert training.batches == 10
    assert training.val is store.splits["val"]
