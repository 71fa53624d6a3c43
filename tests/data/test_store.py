import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers import write_pictures

import repro.preparation.prepare
from repro.data.store import Store, fingerprint, open_store, write_array, write_names
from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.preprocess import to_square
from repro.verification.store import verify_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """23 training images in shards of 4, and 2 + 2 for validation."""
    folder = tmp_path_factory.mktemp("store")
    source = write_pictures(folder / "images", {"train/a": 11, "train/b": 12, "val/a": 2, "val/b": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
        return prepare("folder", folder / "store", source=source, size=16)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A store of one's own, to damage."""
    return Path(shutil.copytree(store.path, tmp_path / "copy"))


def test_images_come_from_any_shard_in_any_order(store: Store) -> None:
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


def test_images_are_fresh_and_outside_is_an_error(store: Store) -> None:
    train = store.splits["train"]
    first = train.images(np.array([0]))
    first += 1
    assert (train.images(np.array([0])) != first).all()
    for outside in (-1, 23):
        with pytest.raises(IndexError, match=str(outside)):
            train.images(np.array([3, outside]))


def test_a_split_travels_to_workers_without_its_pixels(store: Store) -> None:
    train = store.splits["train"]
    train.images(np.arange(23))
    pickled = pickle.dumps(train)
    assert len(pickled) < 4000
    np.testing.assert_array_equal(pickle.loads(pickled).images(np.arange(23)), train.images(np.arange(23)))


def test_fingerprint_follows_the_contents_not_the_place(store: Store, copy: Path) -> None:
    assert open_store(copy).fingerprint == store.fingerprint
    assert len(store.fingerprint) == 64
    manifest = json.loads((copy / "manifest.json").read_text())
    for change in (
        lambda m: m["classes"][0].update(name="other"),
        lambda m: m["splits"]["val"]["shards"][0].update(sha256="0" * 64),
        lambda m: m["splits"]["train"]["labels"].update(sha256="0" * 64),
        lambda m: m["statistics"]["mean"].update(sha256="0" * 64),
        lambda m: m["statistics"]["covariance"][0].__setitem__(0, 1.0),
    ):
        changed = json.loads(json.dumps(manifest))
        change(changed)
        (copy / "manifest.json").write_text(json.dumps(changed))
        assert open_store(copy).fingerprint != store.fingerprint


def test_what_is_not_a_whole_store_is_refused(copy: Path, tmp_path: Path) -> None:
    def refused(match: str, path: Path = copy) -> None:
        with pytest.raises(ReproError, match=match) as error:
            open_store(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    refused("no store at", tmp_path / "nowhere")
    manifest = (copy / "manifest.json").read_text()
    shard = copy / "train" / "00003.npy"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    refused(r"00003\.npy.*bytes")
    shard.unlink()
    refused(r"00003\.npy.*No such file")
    shard.write_bytes(whole)

    for damage, match in [
        (manifest.replace('"version": 1', '"version": 99'), "version 99"),
        (manifest.replace("repro-store", "something"), "of something else"),
        (manifest[:-20], "damaged"),
        (manifest.replace('"splits"', '"parts"'), "damaged"),
        ("[]", "of something else"),
    ]:
        (copy / "manifest.json").write_text(damage)
        refused(match)
    (copy / "manifest.json").unlink()
    refused("not a finished store")


def test_damaged_small_files_are_errors_of_the_user(copy: Path) -> None:
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


def test_verify_finds_nothing_in_a_sound_store(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    assert verify_store(store.path, lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] > 0


def test_verify_counts_names_one_by_one(copy: Path) -> None:
    """Those of 15 million images would fill gigabytes."""
    record = write_names(copy, "train/names.jsonl", (f"train/n00000000/{number}" for number in range(300_000)))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["names"] = asdict(record)
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
def test_verify_traces_a_flipped_bit_to_its_file(copy: Path, file: str) -> None:
    damaged = bytearray((copy / file).read_bytes())
    damaged[-10] ^= 1
    (copy / file).write_bytes(damaged)
    problems = verify_store(copy)
    assert len(problems) == 1
    assert file in problems[0]


def test_verify_as_typed(store: Store, copy: Path) -> None:
    def verify() -> tuple[int, str]:
        """Exit code and last line."""
        done = subprocess.run([sys.executable, "-m", "repro", "verify", copy], capture_output=True, text=True)
        return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).splitlines()[-1]

    assert verify() == (0, f"{copy}: nothing is damaged")
    flipped = bytearray((copy / "train/00003.npy").read_bytes())
    flipped[len(flipped) // 2] ^= 4
    (copy / "train/00003.npy").write_bytes(flipped)
    code, line = verify()
    assert code == 3
    assert line.startswith(f"repro: '{copy}' is damaged: shard train/00003.npy: its SHA-256 is ")


def test_verify_finds_a_label_that_no_class_has(copy: Path) -> None:
    """Labels that were hashed as they are: the hash is right, the number is not."""
    manifest = json.loads((copy / "manifest.json").read_text())
    labels = np.load(copy / "train/labels.npy")
    labels[3] = 2
    manifest["splits"]["train"]["labels"] = asdict(write_array(copy, "train/labels.npy", labels))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint(manifest)}))
    assert verify_store(copy) == ["train: a label is outside 0…1"]


def test_verify_recomputes_what_the_manifest_states(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["statistics"]["mean_rgb"][0] += 1e-9
    manifest["splits"]["val"]["images"] = 5
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert [problem.split(":")[0] for problem in verify_store(copy)] == ["val", "statistics"]
    manifest["classes"][0]["name"] = "renamed"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "fingerprint" in verify_store(copy)[0]
