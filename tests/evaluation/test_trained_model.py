"""A finished run classifies images without its store, wherever it lies, with the probabilities of `evaluate`."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import repro
from repro.data.store import Store
from repro.errors import ReproError
from repro.evaluation.evaluate import evaluate
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the built-in data."""
    settings = Settings("alexnet", "authors", "smoke", 0, epochs=1)
    return next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path


def png(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.mark.parametrize("views", [1, 10])
def test_probabilities_are_those_of_evaluate_on_images_of_the_store(
    run: Path, synthetic_store: Store, views: int
) -> None:
    path, record = evaluate([run], synthetic_store.path, "test", views)
    predictions = np.load(path.with_name(record.predictions))
    model = repro.open_run(run)
    split = synthetic_store.splits["test"]
    for index in (0, 7, len(split) - 1):
        guesses = model.predict(png(split.images(np.array([index]))[0]), views)
        names = [synthetic_store.classes[label] for label in predictions["top5"][index]]
        assert [guess.id for guess in guesses] == [info.id for info in names]
        assert [guess.name for guess in guesses] == [info.name for info in names]
        found = [guess.probability for guess in guesses]
        np.testing.assert_allclose(found, predictions["top5_probabilities"][index], rtol=0, atol=1e-6)


def test_a_run_is_used_without_its_store_and_under_any_name(
    run: Path, synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = synthetic_store.splits["test"].images(np.array([3]))[0]
    expected = repro.open_run(run).predict(pixels)
    moved = tmp_path / "another name"
    shutil.copytree(run, moved)
    record = json.loads((moved / "run.json").read_text())
    record["data"]["path"] = "stores/gone"
    (moved / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert repro.open_run(moved).predict(pixels) == expected
    assert repro.open_run("another name/run.json").predict(pixels) == expected


def test_every_kind_of_image_gives_the_same(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    model = repro.open_run(run)
    pixels = synthetic_store.splits["test"].images(np.array([5]))[0]
    (tmp_path / "image.png").write_bytes(png(pixels))
    expected = model.predict(pixels)
    for image in (png(pixels), tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(pixels)):
        assert model.predict(image) == expected
    assert len(model.predict(pixels, top=3)) == 3
    assert sum(guess.probability for guess in model.predict(pixels, top=100)) == pytest.approx(1)


def test_a_run_of_an_older_version_takes_the_mean_from_its_store(
    run: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    pixels = synthetic_store.splits["test"].images(np.array([3]))[0]
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "mean.npy").unlink()
    record = json.loads((old / "run.json").read_text())
    del record["preprocessing"]
    (old / "run.json").write_text(json.dumps(record))
    assert repro.open_run(old).predict(pixels) == repro.open_run(run).predict(pixels)
    record["data"]["path"] = str(tmp_path / "gone")
    (old / "run.json").write_text(json.dumps(record))
    with pytest.raises(ReproError, match=r"older version and needs its store for the mean image: no store at"):
        repro.open_run(old)


def test_what_is_no_image_or_no_usable_run_is_one_error(run: Path, tmp_path: Path) -> None:
    model = repro.open_run(run)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ReproError, match=r"text\.png' cannot be used: not an image"):
        model.predict(tmp_path / "text.png")
    with pytest.raises(ReproError, match=r"cannot read .*gone"):
        model.predict(tmp_path / "gone.png")
    with pytest.raises(ReproError, match=r"pixels must be uint8 \[H, W, 3\] in RGB, not float64 \[4, 4, 3\]"):
        model.predict(np.zeros((4, 4, 3)))
    with pytest.raises(ReproError, match="no run at"):
        repro.open_run(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    np.save(damaged / "mean.npy", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(
        ReproError, match=r"mean\.npy' is damaged \(float32 \[2, 2, 3\], expected float32 \[64, 64, 3\]\)"
    ):
        repro.open_run(damaged)
    (damaged / "mean.npy").write_bytes(b"\x93NUMPY cut")
    with pytest.raises(ReproError, match=r"mean\.npy' is damaged"):
        repro.open_run(damaged)
