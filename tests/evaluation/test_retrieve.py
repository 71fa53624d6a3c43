"""Retrieval against a search image by image, for any block size, and the auto-encoder's codes."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_disk, write_pictures

from repro.data.store import Split, Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation import auto_encoder
from repro.evaluation import nearest_neighbours as nearest
from repro.evaluation import retrieve as stage
from repro.evaluation.trained_model import open_run
from repro.paper.recipes import AUTHORS
from repro.records.reading import read_records
from repro.records.writing import to_json
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings("alexnet", "authors", "smoke", epochs=2)
    return next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path


def activations_by_hand(run: Path, store: Store, split: str) -> np.ndarray:
    """Return the inputs of the classifier, caught by a hook, image by image in float64."""
    model = open_run(run, "cpu").net
    caught: list[torch.Tensor] = []
    model.get_classifier().register_forward_hook(lambda _, inputs, __: caught.append(inputs[0].double()))
    views = Views(store.mean, store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    images = store.splits[split].images(np.arange(len(store.splits[split])))
    with torch.no_grad():
        for image in images:
            model(next(views.test_views(image[None], 1)))
    return torch.cat(caught).numpy()


def nearest_by_hand(queries: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the distances of each query to its six nearest, ascending, by subtraction."""
    distances = np.sqrt(((queries[:, None] - images[None]) ** 2).sum(-1))
    return np.sort(distances, axis=1)[:, :6]


def test_nearest_in_a_read_only_file(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    stored, queries = draw.standard_normal((500, 16)).astype(np.float16), draw.standard_normal((40, 16))
    np.save(tmp_path / "stored.npy", stored)
    on_disk = np.load(tmp_path / "stored.npy", mmap_mode="r")
    found = nearest.nearest(torch.from_numpy(queries).float(), on_disk, 6, [torch.device("cpu")] * 3)
    np.testing.assert_allclose(found.distances.sqrt(), nearest_by_hand(queries, stored.astype(float)), rtol=1e-4)


@pytest.mark.parametrize(
    ("block_bytes", "pixel_images", "batch_size", "devices"),
    [(2**28, 40, 128, "cpu"), (4 * 3 * 56**2 * 7, 15, 3, "cpu,cpu")],
)
def test_neighbours_and_measures(
    run: Path,
    synthetic_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    block_bytes: int,
    pixel_images: int,
    batch_size: int,
    devices: str,
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(nearest, "PIXEL_BYTES", 3 * 56**2 * pixel_images)
    calls: list[tuple[int, int]] = []
    path, record = stage.retrieve(
        run, synthetic_store.path, "test", devices, lambda *counts: calls.append(counts), batch_size
    )
    assert calls[-1][0] == calls[-1][1]
    trained, asked = synthetic_store.splits["train"], synthetic_store.splits["test"]
    with np.load(run / "retrieval-test.npz", allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}

    spaces = {"fc7": [activations_by_hand(run, synthetic_store, split) for split in ("test", "train")]}
    spaces["pixels"] = [
        split.images(np.arange(len(split)))[:, 4:60, 4:60].reshape(len(split), -1).astype(float)
        for split in (asked, trained)
    ]
    for space, (queries, images) in spaces.items():
        indices = kept[f"{space}_neighbours"]
        assert indices.shape == (len(asked), 6)
        assert all(len(set(row)) == 6 for row in indices.tolist())
        distances = np.sqrt(((queries[:, None] - images[indices]) ** 2).sum(-1))
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


def test_small_splits_have_fewer_neighbours_and_examples(tmp_path: Path) -> None:
    """Four training images in two classes, and one image to search for."""
    from repro.preparation.prepare import prepare

    folder = write_pictures(
        tmp_path / "images", {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1, "test/cat": 1}
    )
    store = prepare("folder", tmp_path / "store", source=folder, size=64)
    settings = Settings("alexnet", "authors", "smoke", epochs=1)
    run = next(iter(list(train(settings, store.path, tmp_path / "runs")))).path
    _, record = stage.retrieve(run, store.path)
    assert (record.neighbours, record.searched, record.images) == (4, 4, 1)
    with np.load(run / "retrieval-test.npz", allow_pickle=False) as arrays:
        assert all(sorted(arrays[f"{space}_neighbours"][0]) == [0, 1, 2, 3] for space in ("fc7", "pixels", "codes"))
        assert arrays["labelled_images"].shape == (1, 96, 96, 3)
        assert arrays["query_fc7_images"].shape == (1, 4, 96, 96, 3)
    assert record.precision["fc7"].value == 50
    (found,) = read_records(tmp_path / "runs").retrievals
    assert found.examples() is not None


def test_no_space_for_temporary_files(
    run: Path, synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in one line before the work begins, wherever the run is."""
    with small_disk(tmp_path / "disk", 64) as full:
        monkeypatch.setattr(tempfile, "tempdir", str(full))
        with pytest.raises(ReproError, match=r"no space for 0 MB of activations .* set TMPDIR") as error:
            stage.retrieve(run, synthetic_store.path)
        assert "\n" not in str(error.value)
        assert not list(full.iterdir())


@pytest.mark.parametrize("reserves", [True, False])
def test_a_full_disk_is_an_error_where_space_cannot_be_reserved(
    monkeypatch: pytest.MonkeyPatch, reserves: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC if reserves else errno.EINVAL, "no space")

    class FullFile:
        def write(self, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "no space")

        def fileno(self) -> int:
            return 0

        def close(self) -> None: ...

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", FullFile)
    with (
        pytest.raises(ReproError, match=r"no space for 1 MB of activations .* \(no space\)"),
        stage.StoredActivations(1000, 500) as stored,
    ):
        stored.append(torch.zeros(10, 500))


def test_a_run_on_a_full_or_read_only_disk(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    kilobytes = sum(file.stat().st_size for file in run.rglob("*")) // 1024 + 200
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        copy = shutil.copytree(run, disk / "run", ignore=shutil.ignore_patterns("retrieval-*"))
        before = sorted(copy.iterdir())
        with pytest.raises(
            ReproError, match=r"cannot write up to \d+ MB of neighbours and images to '.*run': No space"
        ):
            stage.retrieve(copy, synthetic_store.path)
        assert sorted(copy.iterdir()) == before


def test_codes_preserve_neighbourhoods() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 40, generator=generator)
    labels = torch.arange(400) % 8
    points = centres[labels] + 0.3 * torch.randn(400, 40, generator=generator)
    coder = auto_encoder.fit_coder(points)
    codes = coder.codes(points)
    assert codes.dtype == np.uint64
    distances = stage.hamming(codes, codes).float()
    distances.fill_diagonal_(99)
    nearest = distances.topk(6, largest=False).indices
    assert (labels[nearest] == labels[:, None]).float().mean() > 0.9
    ones = np.unpackbits(codes.view(np.uint8)).reshape(400, 64).mean(axis=0)
    assert 0.4 < ones.min() <= ones.max() < 0.6  # each bit is set for half of the images
    np.testing.assert_array_equal(auto_encoder.fit_coder(points).codes(points), codes)


def test_hamming_by_hand() -> None:
    first, second = np.array([0, 2**64 - 1], np.uint64), np.array([0, 1, 6], np.uint64)
    assert stage.hamming(first, second).tolist() == [[0, 1, 2], [64, 63, 62]]


def test_examples_cycle_through_the_classes() -> None:
    labels = np.array([0] * 50 + [1, 2])
    assert set(labels[stage._different_classes(labels, 3)]) == {0, 1, 2}
    assert len(stage._different_classes(labels, 99)) == 52


def test_unsuitable_stores_and_splits_are_errors(run: Path, synthetic_store: Store, tmp_path: Path) -> None:
    from repro.preparation.prepare import prepare

    with pytest.raises(ReproError, match="no split 'holdout'"):
        stage.retrieve(run, synthetic_store.path, "holdout")
    other = prepare("synthetic", tmp_path / "other", limit_per_class=2, seed=9)
    with pytest.raises(ReproError, match="was trained on other data"):
        stage.retrieve(run, other.path)


def test_queries_are_read_once_for_each_block_of_pixels(
    run: Path, synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours do not depend on the blocks; training images are read once, beside the auto-encoder's sample."""

    def counting(split: Split) -> list[int]:
        """Return a list to which the number of images of each read is added."""
        counts: list[int] = []
        read = split.read

        def counted(indices: np.ndarray, out: np.ndarray) -> None:
            counts.append(len(indices))
            read(indices, out)

        monkeypatch.setattr(split, "read", counted)
        monkeypatch.setattr(split, "read_cached", lambda indices, out: [slice(0, len(indices))])
        return counts

    found, reads = [], []
    for images in (40, 25, 10):
        monkeypatch.setattr(nearest, "PIXEL_BYTES", 3 * 56**2 * images)
        model, store = open_run(run, "cpu"), open_store(synthetic_store.path)
        counts = [counting(store.splits[name]) for name in ("train", "test")]
        found.append(stage.Search(model, store, "test", lambda images: None).run().neighbours["pixels"])
        reads.append([sum(each) for each in counts])
    # Queries are read once for their activations, and once for each block.
    assert reads == [[80, 40 * (1 + blocks)] for blocks in (1, 2, 4)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
