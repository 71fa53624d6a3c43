import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers import write_pictures

import repro.preparation.prepare
from repro.data.store import Store, fingerprint, open_store
from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.preprocess import to_square
from repro.preparation.store_writing import NamesWriter, write_array
from repro.verification.store import verify_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 23 training images in shards of 4, and of 2 + 2 validation images."""
    folder = tmp_path_factory.mktemp("store")
    source = write_pictures(folder / "images", {"train/a": 11, "train/b": 12, "val/a": 2, "val/b": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
        return prepare("folder", folder / "store", source=source, size=16)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    return Path(shutil.copytree(store.path, tmp_path / "copy"))


def test_images_are_read_from_any_shard_in_any_order(store: Store) -> None:
    train = store.splits["train"]
    assert len(train) == 23
    assert len(train.shards) == 6
    source = store.path.parent / "images"
    for indices in ([22, 0, 4, 3, 4, 21, 7, 8], list(range(23)), [], [5]):
        images = train.images(np.array(indices, np.int64))
        assert images.shape == (len(indices), 16, 16, 3)
        for image, index in zip(images, indices, strict=True):
            name = train.names[index]
            np.testing.assert_array_equal(image, to_square((source / name).read_bytes(), 16))
            assert store.classes[train.labels[index]].id == name.split("/")[1]


def test_images_are_copies_and_indices_are_checked(store: Store) -> None:
    train = store.splits["train"]
    first = train.images(np.array([0]))
    first += 1
    assert (train.images(np.array([0])) != first).all()
    for outside in (-1, 23):
        with pytest.raises(IndexError, match=str(outside)):
            train.images(np.array([3, outside]))


def test_a_split_is_pickled_without_its_pixels(store: Store) -> None:
    train = store.splits["train"]
    train.images(np.arange(23))
    pickled = pickle.dumps(train)
    assert len(pickled) < 4000
    np.testing.assert_array_equal(pickle.loads(pickled).images(np.arange(23)), train.images(np.arange(23)))


def test_the_fingerprint_depends_on_the_contents_not_on_the_path(store: Store, copy: Path) -> None:
    assert open_store(copy).fingerprint == store.fingerprint
    assert len(store.fingerprint) == 64
    manifest = json.loads((copy / "manifest.json").read_text())
    for change in (
        lambda m: m["classes"][0].update(name="other"),
        lambda m: m["splits"]["val"]["shards"][0].update(checksum="0" * 64),
        lambda m: m["splits"]["train"]["labels"].update(checksum="0" * 64),
        lambda m: m["statistics"]["mean"].update(checksum="0" * 64),
        lambda m: m["statistics"]["covariance"][0].__setitem__(0, 1.0),
    ):
        changed = json.loads(json.dumps(manifest))
        change(changed)
        (copy / "manifest.json").write_text(json.dumps(changed))
        assert open_store(copy).fingerprint != store.fingerprint


def test_an_incomplete_store_is_refused(copy: Path, tmp_path: Path) -> None:
    def assert_refused(match: str, path: Path = copy) -> None:
        with pytest.raises(ReproError, match=match) as error:
            open_store(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    assert_refused("no store at", tmp_path / "nowhere")
    assert_refused(f"is a file, and a store is a folder: name '{copy}'", copy / "manifest.json")
    assert_refused("is a file, and a store is a folder$", copy / "train" / "labels.npy")
    manifest = (copy / "manifest.json").read_text()
    shard = copy / "train" / "00003.npy"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    assert_refused(r"00003\.npy.*bytes")
    shard.unlink()
    assert_refused(r"00003\.npy.*No such file")
    shard.write_bytes(whole)

    for damage, match in [
        (manifest.replace('"version": 2', '"version": 99'), "version 99"),
        (manifest.replace('"blake3"', '"sha3"'), "algorithm 'sha3', this program knows blake3 and sha256"),
        (manifest.replace("repro-store", "something"), "belongs to another program"),
        (manifest[:-20], "damaged"),
        (manifest.replace('"splits"', '"parts"'), "damaged"),
        ("[]", "belongs to another program"),
    ]:
        (copy / "manifest.json").write_text(damage)
        assert_refused(match)
    (copy / "manifest.json").unlink()
    assert_refused("not a complete store")


def test_damaged_small_files_are_named_in_one_line(copy: Path) -> None:
    for file, read in [
        ("train/labels.npy", lambda store: store.splits["train"].labels),
        ("train/names.jsonl", lambda store: store.splits["train"].names),
        ("mean.npy", lambda store: store.mean),
    ]:
        intact = (copy / file).read_bytes()
        (copy / file).write_bytes(b"?" * len(intact))
        with pytest.raises(ReproError, match=file.split("/")[-1]):
            read(open_store(copy))
        (copy / file).write_bytes(intact)


def test_verify_finds_no_problem_in_an_intact_store(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    assert verify_store(store.path, lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] > 0


def test_verify_counts_names_without_keeping_them(copy: Path) -> None:
    """The names of 15 million images take gigabytes."""
    with NamesWriter(copy, "train/names.jsonl") as names:
        names.write(f"train/n00000000/{number}" for number in range(300_000))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["names"] = asdict(names.record)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    tracemalloc.start()
    try:
        problems = verify_store(copy)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert any("300000 names" in problem for problem in problems)
    assert peak < 10e6


@pytest.mark.parametrize(
    "file", ["train/00003.npy", "val/00000.npy", "train/labels.npy", "val/names.jsonl", "mean.npy"]
)
def test_verify_names_the_file_with_a_flipped_bit(copy: Path, file: str) -> None:
    damaged = bytearray((copy / file).read_bytes())
    damaged[-10] ^= 1
    (copy / file).write_bytes(damaged)
    problems = verify_store(copy)
    assert len(problems) == 1
    assert file in problems[0]


def test_a_store_of_version_1_is_read_and_verified_by_sha256(store: Store, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["checksums"]
    files = [manifest["statistics"]["mean"]]
    for split in manifest["splits"].values():
        files += [split["labels"], split["names"], *split["shards"]]
    for file in files:
        del file["checksum"]
        file["sha256"] = hashlib.sha256((copy / file["file"]).read_bytes()).hexdigest()
    manifest["version"] = 1
    train, val = manifest["splits"]["train"], manifest["splits"]["val"]
    contents = {
        "dataset": "folder", "size": store.size, "classes": manifest["classes"],
        "splits": {
            name: {
                "labels": split["labels"]["sha256"],
                "shards": [[shard["images"], shard["sha256"]] for shard in split["shards"]],
            }
            for name, split in (("train", train), ("val", val))
        },
        "mean": manifest["statistics"]["mean"]["sha256"], "covariance": manifest["statistics"]["covariance"],
    }  # fmt: skip
    fingerprint = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint}))
    older = open_store(copy)
    assert older.fingerprint == fingerprint
    assert verify_store(copy) == []
    indices = np.arange(len(store.splits["train"]))
    np.testing.assert_array_equal(older.splits["train"].images(indices), store.splits["train"].images(indices))
    damaged = bytearray((copy / "train/00003.npy").read_bytes())
    damaged[-10] ^= 1
    (copy / "train/00003.npy").write_bytes(damaged)
    (problem,) = verify_store(copy)
    assert problem.startswith("shard train/00003.npy: its SHA-256 is ")


def test_verify_on_the_command_line(store: Store, copy: Path) -> None:
    def verify() -> tuple[int, str]:
        """Return the exit code and the last line."""
        done = subprocess.run([sys.executable, "-m", "repro", "verify", copy], capture_output=True, text=True)
        return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).splitlines()[-1]

    assert verify() == (0, f"{copy}: nothing is damaged")
    flipped = bytearray((copy / "train/00003.npy").read_bytes())
    flipped[len(flipped) // 2] ^= 4
    (copy / "train/00003.npy").write_bytes(flipped)
    code, line = verify()
    assert code == 3
    assert line.startswith(f"repro: '{copy}' is damaged: shard train/00003.npy: its BLAKE3 is ")


def test_verify_finds_a_label_outside_the_classes(copy: Path) -> None:
    """The checksum of the labels is right, but one of them is out of range."""
    manifest = json.loads((copy / "manifest.json").read_text())
    labels = np.load(copy / "train/labels.npy")
    labels[3] = 2
    manifest["splits"]["train"]["labels"] = asdict(write_array(copy, "train/labels.npy", labels))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint(manifest)}))
    assert verify_store(copy) == ["train: a label is outside 0…1"]


def relabel(store: Path, split: str, change: Callable[[np.ndarray], None]) -> None:
    """Change the labels of a split, with checksum and fingerprint."""
    manifest = json.loads((store / "manifest.json").read_text())
    labels = np.load(store / f"{split}/labels.npy")
    change(labels)
    manifest["splits"][split]["labels"] = asdict(write_array(store, f"{split}/labels.npy", labels))
    (store / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint(manifest)}))


def test_a_split_has_labels_or_none(store: Store, copy: Path) -> None:
    assert all(split.labelled for split in store.splits.values())
    relabel(copy, "val", lambda labels: labels.fill(-1))
    assert not open_store(copy).splits["val"].labelled
    assert verify_store(copy) == []
    relabel(copy, "val", lambda labels: labels.__setitem__(2, 0))
    assert verify_store(copy) == ["val: 3 of 4 images have no label"]
    with pytest.raises(ReproError, match=r"val/labels.npy' is damaged \(3 of 4 labels are missing\)"):
        _ = open_store(copy).splits["val"].labelled


def test_verify_refuses_training_images_without_labels(copy: Path) -> None:
    relabel(copy, "train", lambda labels: labels.fill(-1))
    assert verify_store(copy) == ["train: 23 of 23 images have no label"]


def test_verify_recomputes_what_the_manifest_states(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["statistics"]["mean_rgb"][0] += 1e-9
    manifest["splits"]["val"]["images"] = 5
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert [problem.split(":")[0] for problem in verify_store(copy)] == ["val", "statistics"]
    manifest["classes"][0]["name"] = "renamed"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "fingerprint" in verify_store(copy)[0]
