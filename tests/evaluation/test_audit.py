"""The audit evaluates published weights on a store and judges each error by what it was published for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.data.store import ClassInfo, Store
from repro.errors import ReproError
from repro.evaluation.audit import audit, compare
from repro.paper.published import MODELS
from repro.preparation.prepare import prepare


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Generated images of the published nets' size, two of a class in each split."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", size=256, limit_per_class=2)


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's net for ten classes, as torchvision saves it."""
    import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(num_classes=10).state_dict(), path)
    return path


def test_errors_are_those_of_torchvision_whatever_the_order_of_the_classes(
    store: Store, torchvision_file: Path, tmp_path: Path
) -> None:
    import torchvision

    classes = tuple(reversed(store.classes))
    path, rows = audit([torchvision_file], store.path, tmp_path / "audit", classes)
    model = torchvision.models.alexnet(num_classes=10).eval()
    model.load_state_dict(torch.load(torchvision_file, weights_only=True))
    split = store.splits["val"]
    pixels = torch.from_numpy(split.images(np.arange(len(split)))[:, 16:240, 16:240]).permute(0, 3, 1, 2)
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        guesses = model(normalize(pixels / 255)).argsort(1, descending=True).numpy()
    labels = np.array([classes.index(store.classes[label]) for label in split.labels])
    for row, count in zip(rows, (1, 5), strict=True):
        wrong = (guesses[:, :count] != labels[:, None]).all(1)
        assert row.measured == pytest.approx(100 * wrong.mean())
        assert row.interval[0] <= row.measured <= row.interval[1]
        assert (row.verdict, row.views) == ("not comparable", 1)
    assert [row.published for row in rows] == pytest.approx([43.478, 20.934])
    record = json.loads(path.read_text())
    assert [row["measured"] for row in record["rows"]] == [row.measured for row in rows]
    assert record["data"]["fingerprint"] == store.fingerprint


def test_classes_that_differ_are_one_error(store: Store, torchvision_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match=r"the order of the classes of 'alexnet.pth' is not known: add --classes"):
        audit([torchvision_file], store.path, tmp_path)
    others = (*store.classes[:-1], ClassInfo("n99999999", "another"))
    with pytest.raises(ReproError, match=f"the net has no class '{store.classes[-1].id}'"):
        audit([torchvision_file], store.path, tmp_path, others)
    with pytest.raises(ReproError, match="has 10 classes, and 9 are named"):
        audit([torchvision_file], store.path, tmp_path, store.classes[:9])
    assert not (tmp_path / "audit.json").exists()


def test_a_store_of_small_images_and_a_folder_without_weights_are_errors(
    synthetic_store: Store, torchvision_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReproError, match="images of 64 pixels, the net needs 224: prepare it with --size 256"):
        audit([torchvision_file], synthetic_store.path, tmp_path, synthetic_store.classes)
    with pytest.raises(ReproError, match="has no files of weights"):
        audit([tmp_path], synthetic_store.path, tmp_path)


def test_a_folder_that_cannot_be_created_is_an_error_before_the_evaluations(
    store: Store, torchvision_file: Path, tmp_path: Path
) -> None:
    evaluated: list[tuple[int, int]] = []
    (tmp_path / "file").touch()
    with pytest.raises(ReproError, match=r"cannot create the folder '.*file': "):
        audit(
            [torchvision_file], store.path, tmp_path / "file", store.classes,
            on_progress=lambda *counts: evaluated.append(counts),
        )  # fmt: skip
    assert not evaluated


class AllOfValidation:
    def __len__(self) -> int:
        return 50_000


@pytest.mark.parametrize(
    ("name", "change", "measured", "verdict", "reason"),
    [
        ("torchvision-alexnet", {}, 43.7, "match", r"\+0.222 points"),
        ("torchvision-alexnet", {}, 43.1, "mismatch", r"-0.378 points"),
        ("torchvision-alexnet", {}, float("nan"), "mismatch", "nan"),
        ("torchvision-alexnet", {"dataset": "imagenette"}, 43.478, "not comparable", "images of imagenette"),
        ("torchvision-alexnet", {"splits": {"val": range(10)}}, 43.478, "not comparable", "on 10 images"),
        ("torchvision-alexnet", {"size": 300}, 43.478, "not comparable", "images of 300 pixels"),
        ("caffe-alexnet", {}, 42.9, "not comparable", "squashed to 256×256.* --size 256 --resize squash"),
        ("caffe-alexnet", {"manifest": {"resize": "squash"}}, 43.1, "match", r"\+0.200 points"),
        ("caffe-alexnet", {"manifest": {"resize": "squash"}}, 45.0, "mismatch", r"\+2.100 points"),
        ("caffe-alexnet", {"manifest": {"resize": "squash"}, "size": 227}, 42.9, "not comparable", "of 227 pixels"),
        ("torchvision-alexnet", {"manifest": {"resize": "squash"}}, 43.5, "not comparable", "has squashed images"),
    ],
)
def test_only_errors_on_all_validation_images_prepared_alike_are_judged(
    store: Store, name: str, change: dict[str, object], measured: float, verdict: str, reason: str
) -> None:
    whole = {"dataset": "ilsvrc2012", "size": 256, "splits": {"val": AllOfValidation()}}
    model = MODELS[name]
    result = model.results[0]
    found = compare(result.top1_error, measured, result, model.preprocessing, replace(store, **(whole | change)))
    assert found[0] == verdict
    assert re.search(reason, found[1])
