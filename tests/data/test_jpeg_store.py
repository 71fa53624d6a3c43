"""Stores with JPEG shards, and stores of many shards."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import write_pictures

import repro.preparation.prepare
from repro.data.store import Store, open_store
from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.verification.store import verify_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two stores of the same 23 + 4 images in shards of 4, raw and JPEG."""
    folder = tmp_path_factory.mktemp("stores")
    source = write_pictures(folder / "images", {"train/a": 11, "train/b": 12, "val/a": 2, "val/b": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
        raw, jpeg = (
            prepare("folder", folder / encoding, source=source, size=24, encoding=encoding)
            for encoding in ("raw", "jpeg")
        )
    return raw, jpeg


def test_images_are_close_to_those_of_the_raw_store(stores: tuple[Store, Store]) -> None:
    raw, jpeg = (store.splits["train"] for store in stores)
    indices = np.array([22, 0, 4, 3, 4, 21, 7, 8])
    difference = np.abs(jpeg.images(indices).astype(int) - raw.images(indices))
    assert 0 < difference.mean() < 2
    assert jpeg.names == raw.names
    np.testing.assert_array_equal(jpeg.labels, raw.labels)
    np.testing.assert_array_equal(jpeg.shard(2), jpeg.images(np.arange(8, 12)))
    assert jpeg.shard(2).shape == (4, 24, 24, 3)
    with pytest.raises(IndexError):
        jpeg.images(np.array([23]))


def test_the_statistics_are_those_of_the_decoded_pixels(stores: tuple[Store, Store]) -> None:
    _, store = stores
    pixels = store.splits["train"].images(np.arange(23))
    np.testing.assert_array_equal(store.mean, pixels.mean(axis=0).astype(np.float32))
    assert verify_store(store.path) == []


def test_verify_names_the_shard_with_a_flipped_bit(stores: tuple[Store, Store], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(stores[1].path, tmp_path / "copy"))
    shard = copy / "train/00003.jpegs"
    whole = shard.read_bytes()
    for position in (5, len(whole) // 2, len(whole) - 4):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        shard.write_bytes(damaged)
        (problem,) = verify_store(copy)
        assert "shard train/00003.jpegs" in problem
    shard.write_bytes(b"?" * len(whole))
    with pytest.raises(ReproError, match=r"00003\.jpegs.*prepare the store again"):
        open_store(copy).splits["train"].images(np.array([12]))


def test_an_unknown_encoding_is_refused(stores: tuple[Store, Store], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(stores[0].path, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "encoding": "png"}))
    with pytest.raises(ReproError, match="encoding 'png'"):
        open_store(copy)


def test_photographs_as_jpeg(real_images: Callable[[str], Path], tmp_path: Path) -> None:
    """JPEG takes a fifth of the bytes and changes pixels by less than two grey levels on average."""
    source = real_images("imagenet5")
    raw, jpeg = (
        prepare("folder", tmp_path / encoding, source=source, encoding=encoding, limit_per_class=10)
        for encoding in ("raw", "jpeg")
    )
    sizes = [sum(path.stat().st_size for path in store.path.rglob("000*")) for store in (raw, jpeg)]
    assert sizes[1] < 0.3 * sizes[0]
    indices = np.arange(len(raw.splits["train"]))
    difference = np.abs(raw.splits["train"].images(indices).astype(int) - jpeg.splits["train"].images(indices))
    assert difference.mean() < 2


def test_a_store_of_fifteen_million_images_opens_in_a_second(tmp_path: Path) -> None:
    """Opening reads the manifest and the length of each file only, so that sparse shards will do."""
    images, size, per_shard = 15_000_000, 256, 512
    record = {"bytes": 128 + per_shard * size * size * 3, "sha256": "0" * 64}
    (tmp_path / "train").mkdir()
    shards = []
    for number in range(images // per_shard):
        file = f"train/{number:05}.npy"
        with (tmp_path / file).open("wb") as target:
            target.truncate(record["bytes"])
        shards.append({"file": file, **record, "images": per_shard})
    count = len(shards) * per_shard
    for file, length in (("train/labels.npy", 128 + 8 * count), ("train/names.jsonl", 30 * count)):
        with (tmp_path / file).open("wb") as target:
            target.truncate(length)
    np.save(tmp_path / "mean.npy", np.zeros((size, size, 3), np.float32))
    manifest = {
        "format": "repro-store", "version": 1, "dataset": "fall2011", "size": size, "encoding": "raw",
        "classes": [{"id": f"n{number:08}", "name": f"class {number}"} for number in range(21_841)],
        "splits": {
            "train": {
                "images": count,
                "labels": {"file": "train/labels.npy", "bytes": 128 + 8 * count, "sha256": ""},
                "names": {"file": "train/names.jsonl", "bytes": 30 * count, "sha256": ""},
                "shards": shards,
            }
        },
        "statistics": {
            "mean": {"file": "mean.npy", "bytes": (tmp_path / "mean.npy").stat().st_size, "sha256": ""},
            "mean_rgb": [0, 0, 0], "covariance": [[0] * 3] * 3,
        },
        "rejected": [
            {"split": "train", "name": f"train/n{number:08}/n{number:08}_{number}.JPEG", "reason": "empty file"}
            for number in range(images // 1000)
        ],
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest, indent=1))
    times = []
    for _ in range(3):
        start = time.process_time()
        store = open_store(tmp_path)
        times.append(time.process_time() - start)
    assert min(times) < 1
    train = store.splits["train"]
    assert len(train) == count > 14_999_000
    for index in (0, 511, 512, 14_000_000, count - 1):
        with (tmp_path / shards[index // per_shard]["file"]).open("r+b") as target:
            target.seek(128 + index % per_shard * size * size * 3)
            target.write(np.full(size * size * 3, 9, np.uint8).data)
        start = time.process_time()
        (image,) = train.images(np.array([index]))
        assert time.process_time() - start < 0.1
        assert (image == 9).all()
    assert train._open_shard.cache_info().currsize == 4  # of 29,296 shards, only those that were used are open
