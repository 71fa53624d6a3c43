"""A run is evaluated on another store with the same classes, which no claim is compared with, and its confusions."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import run_here

from repro.data.store import Store, open_store
from repro.errors import ReproError
from repro.evaluation.confusion import check_classes, confusion_matrix, most_confused
from repro.evaluation.evaluate import evaluate
from repro.preparation.prepare import prepare
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings("alexnet", "authors", "smoke", 0, epochs=1)
    return next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path


def with_classes(store: Store, out: Path, change: str) -> Path:
    """Copy a store with its classes in reverse order, the labels too, or with one of them under another id."""
    shutil.copytree(store.path, out)
    manifest = json.loads((out / "manifest.json").read_text())
    if change == "reversed":
        manifest["classes"].reverse()
        for split in manifest["splits"].values():
            path = out / split["labels"]["file"]
            np.save(path, len(store.classes) - 1 - np.load(path))
            split["labels"]["checksum"] = "0" * 64
    else:
        manifest["classes"][0]["id"] = "another"
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_classes_in_another_order_give_the_same_errors_under_another_dataset(
    run: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    own_path, own = evaluate([run], synthetic_store.path, "test", 1)
    before = own_path.read_bytes()
    other = with_classes(synthetic_store, tmp_path / "other store", "reversed")
    path, record = evaluate([run], other, "test", 1)
    assert (record.top1_error, record.top5_error) == (own.top1_error, own.top5_error)
    assert record.data.dataset == "synthetic, trained on synthetic"
    assert record.data != own.data
    assert path.name == f"evaluation-test-1-on-other-store-{open_store(other).fingerprint[:8]}.json"
    assert own_path.read_bytes() == before
    mine, others = (np.load(each.with_name(made.predictions)) for each, made in ((own_path, own), (path, record)))
    np.testing.assert_array_equal(others["top5"], len(synthetic_store.classes) - 1 - mine["top5"])


def test_other_images_of_the_same_classes_are_evaluated_with_the_run_s_own_mean(run: Path, tmp_path: Path) -> None:
    other = prepare("synthetic", tmp_path / "others", limit_per_class=2, seed=5)
    _, record = evaluate([run], other.path, "test", 10)
    assert record.images == len(other.splits["test"])
    assert record.data.fingerprint == other.fingerprint


def test_other_classes_and_other_sizes_are_one_error(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    other = with_classes(synthetic_store, tmp_path / "other", "renamed")
    with pytest.raises(ReproError, match=r"have other classes: 10 and 10, and only the store has 'another'"):
        evaluate([run], other, "test", 1)
    larger = prepare("synthetic", tmp_path / "larger", size=80, limit_per_class=1)
    with pytest.raises(ReproError, match=r"has images of 80 pixels, the run .* takes 64: prepare it with --size 64"):
        evaluate([run], larger.path, "test", 1)


def test_the_confusion_matrix_counts_every_image(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    words = ("--data", synthetic_store.path, "--split", "test", "--views", "1", "--confusion", tmp_path / "matrix.csv")
    done = run_here("evaluate", run, *words)
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader((tmp_path / "matrix.csv").read_text().splitlines()))
    names = [info.name for info in synthetic_store.classes]
    assert rows[0] == ["class", *names]
    matrix = np.array([row[1:] for row in rows[1:]], int)
    labels = synthetic_store.splits["test"].labels
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(labels, minlength=len(names)))
    error = 100 * (1 - np.trace(matrix) / len(labels))
    assert f"top1 error {error:.2f}%" in done.stdout
    label, guess, images = most_confused(matrix, 1)[0]
    assert f"{names[label]} taken for {names[guess]}: {images} images" in done.stdout


def test_confusions_are_sorted_and_leave_out_what_is_right() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 2, 2, 2, 0]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 0, 2], [1, 0, 1]])
    assert most_confused(matrix, 5) == [(1, 2, 2), (0, 1, 1), (2, 0, 1)]
    with pytest.raises(ReproError, match="for up to 500 classes, not 1,000"):
        check_classes(1000)
