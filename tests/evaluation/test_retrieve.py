"""Retrieval against a search worked out image by image, in blocks of any size, and the codes of an auto-encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.data.store import Store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation import nearest_neighbours as nearest
from repro.evaluation import retrieve as stage
from repro.evaluation.trained_model import load_net
from repro.paper.recipes import AUTHORS
from repro.records import read_records, read_run, to_json
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings("alexnet", "authors", "smoke", epochs=2)
    return next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path


def activations_by_hand(run: Path, store: Store, split: str) -> np.ndarray:
    """What the classifier is given, caught on its way, image by image in float64."""
    model = load_net(read_run(run)).eval()
    caught: list[torch.Tensor] = []
    model.get_classifier().register_forward_hook(lambda _, inputs, __: caught.append(inputs[0].double()))
    views = Views(store.mean, store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    images = store.splits[split].images(np.arange(len(store.splits[split])))
    with torch.no_grad():
        for image in images:
            model(next(views.test_views(image[None], 1)))
    return torch.cat(caught).numpy()


def nearest_by_hand(queries: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Distances of each query to its six nearest, ascending, by plain subtraction."""
    distances = np.sqrt(((queries[:, None] - images[None]) ** 2).sum(-1))
    return np.sort(distances, axis=1)[:, :6]


def test_nearest_in_a_file_that_cannot_be_written_to(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    stored, queries = draw.standard_normal((500, 16)).astype(np.float16), draw.standard_normal((40, 16))
    np.save(tmp_path / "stored.npy", stored)
    on_disk = np.load(tmp_path / "stored.npy", mmap_mode="r")
    found = nearest.nearest(torch.from_numpy(queries).float(), on_disk, 6, torch.device("cpu"))
    np.testing.assert_allclose(found.distances.sqrt(), nearest_by_hand(queries, stored.astype(float)), rtol=1e-4)


@pytest.mark.parametrize("block_bytes", [2**28, 4 * 3 * 56**2 * 7])
def test_neighbours_and_measures(
    run: Path, synthetic_store: Store, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_BYTES", block_bytes)
    told: list[tuple[int, int]] = []
    path, record = stage.retrieve(run, synthetic_store.path, on_progress=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1]
    trained, asked = synthetic_store.splits["train"], synthetic_store.splits["test"]
    with np.load(run / "retrieval-test.npz", allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}

    spaces = {"fc7": [activations_by_hand(run, synthetic_store, split) for split in ("test", "train")]}
    spaces["pixels"] = [
        split.images(np.arange(len(split)))[:, 4:60, 4:60].reshape(len(split), -1).astype(float)
        for split in (asked, trained)
    ]
    for space, (queries, images) in spaces.items():
        places = kept[f"{space}_neighbours"]
        assert places.shape == (len(asked), 6)
        assert all(len(set(row)) == 6 for row in places.tolist())
        distances = np.sqrt(((queries[:, None] - images[places]) ** 2).sum(-1))
        np.testing.assert_allclose(distances, nearest_by_hand(queries, images), rtol=1e-3)
    for space in ("fc7", "pixels", "codes"):
        same = trained.labels[kept[f"{space}_neighbours"]] == asked.labels[:, None]
        assert record.precision[space].value == pytest.approx(100 * same.mean())
    shared = [len(set(a) & set(b)) for a, b in zip(kept["fc7_neighbours"], kept["pixels_neighbours"], strict=True)]
    assert record.overlap.value == pytest.approx(100 * np.mean(shared) / 6)
    assert json.loads(path.read_text()) == json.loads(json.dumps(to_json(record)))
    (found,) = read_records(run.parent).retrievals
    assert found.overlap == record.overlap
    assert found.examples() is not None
    assert kept["labelled_images"].shape == (8, 96, 96, 3)
    assert kept["query_fc7_images"].shape == (5, 6, 96, 96, 3)
    assert len({*kept["labelled"], *kept["queries"]}) == 13


def test_codes_keep_what_is_near() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 40, generator=generator)
    labels = torch.arange(400) % 8
    points = centres[labels] + 0.3 * torch.randn(400, 40, generator=generator)
    coder = stage.fit_coder(points)
    codes = coder.codes(points)
    assert codes.dtype == np.uint64
    distances = stage.hamming(codes, codes).float()
    distances.fill_diagonal_(99)
    nearest = distances.topk(6, largest=False).indices
    assert (labels[nearest] == labels[:, None]).float().mean() > 0.9
    ones = np.unpackbits(codes.view(np.uint8)).reshape(400, 64).mean(axis=0)
    assert 0.4 < ones.min() <= ones.max() < 0.6  # each bit divides the images in halves
    np.testing.assert_array_equal(stage.fit_coder(points).codes(points), codes)


def test_hamming_by_hand() -> None:
    first, second = np.array([0, 2**64 - 1], np.uint64), np.array([0, 1, 6], np.uint64)
    assert stage.hamming(first, second).tolist() == [[0, 1, 2], [64, 63, 62]]


def test_examples_go_round_the_classes() -> None:
    labels = np.array([0] * 50 + [1, 2])
    assert set(labels[stage._different_classes(labels, 3)]) == {0, 1, 2}
    assert len(stage._different_classes(labels, 99)) == 52


def test_what_does_not_fit_is_refused(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    from repro.preparation.prepare import prepare

    with pytest.raises(ReproError, match="no split 'holdout'"):
        stage.retrieve(run, synthetic_store.path, "holdout")
    other = prepare("synthetic", tmp_path / "other", limit_per_class=2, seed=9)
    with pytest.raises(ReproError, match="was trained on other data"):
        stage.retrieve(run, other.path)
