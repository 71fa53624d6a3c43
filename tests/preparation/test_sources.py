import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import picture, write_pictures

from repro.errors import ReproError
from repro.preparation.preprocess import to_square
from repro.preparation.sources.cifar10 import cifar10
from repro.preparation.sources.folder import folder
from repro.preparation.sources.source import Source
from repro.preparation.sources.synthetic import CLASSES, SyntheticReference, synthetic


def names(source: Source, split: str) -> list[str]:
    return [reference.name for reference in source.splits[split]]


def refused(match: str, path: Path | None) -> None:
    with pytest.raises(ReproError, match=match) as error:
        folder(path, 0)
    assert "\n" not in str(error.value)


def test_folder_with_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/dog": 3, "train/cat": 2, "val/cat": 1, "val/dog": 1, "test/dog": 2})
    source = folder(tmp_path, 0)
    assert [info.id for info in source.classes] == ["cat", "dog"]
    assert names(source, "train") == [
        "train/cat/0.jpg", "train/cat/1.jpg", "train/dog/0.jpg", "train/dog/1.jpg", "train/dog/2.jpg"
    ]  # fmt: skip
    assert [reference.label for reference in source.splits["train"]] == [0, 0, 1, 1, 1]
    assert names(source, "val") == ["val/cat/0.jpg", "val/dog/0.jpg"]
    assert names(source, "test") == ["test/dog/0.jpg", "test/dog/1.jpg"]
    assert source.splits["test"][1].read() == (tmp_path / "test/dog/1.jpg").read_bytes()


def test_only_images_count(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "train/a/more": 1, ".git/x": 1})
    (tmp_path / "train/README").write_text("not a class")
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    (tmp_path / "train/a/.hidden.jpg").write_bytes(picture())
    (tmp_path / "train/a/LOUD.JPEG").write_bytes(picture())
    os.mkfifo(tmp_path / "train/a/pipe.jpg")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train")
    assert names(folder(tmp_path, 0), "train") == [
        "train/a/0.jpg", "train/a/1.jpg", "train/a/LOUD.JPEG", "train/a/more/0.jpg", "train/b/0.jpg", "train/b/1.jpg"
    ]  # fmt: skip


def test_one_in_ten_is_held_out_by_seed(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 25, "b": 4})
    source = folder(tmp_path, 0)
    assert set(source.splits) == {"train", "val"}
    assert [reference.label for reference in source.splits["val"]] == [0, 0, 1]
    assert not set(names(source, "train")) & set(names(source, "val"))
    assert len(source.splits["train"]) == 26
    assert names(folder(tmp_path, 0), "val") == names(source, "val")
    assert names(folder(tmp_path, 1), "val") != names(source, "val")


def test_test_images_stay_test_where_val_is_held_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    source = folder(tmp_path, 0)
    assert {split: len(references) for split, references in source.splits.items()} == {
        "train": 18,
        "val": 2,
        "test": 4,
    }


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    refused("--source", None)
    refused("no such folder.*nowhere", tmp_path / "nowhere")
    refused("0 class folders", tmp_path)
    refused("1 class folder", write_pictures(tmp_path / "one", {"train/a": 3, "val/a": 1}))
    refused("'b' holds no image", write_pictures(tmp_path / "empty", {"train/a": 3, "train/b": 0}))
    refused("'b' has one image", write_pictures(tmp_path / "single", {"a": 3, "b": 1}))
    refused(
        "'c' is in val but not in train",
        write_pictures(tmp_path / "more", {"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1}),
    )
    refused("val but no train", write_pictures(tmp_path / "untrained", {"val/a": 1, "val/b": 1}))
    (write_pictures(tmp_path / "bare", {"train/a": 1, "train/b": 1}) / "val").mkdir()
    refused("val' holds no class folders", tmp_path / "bare")


def test_wnids_get_names(tmp_path: Path) -> None:
    source = folder(write_pictures(tmp_path, {"n01440764": 2, "n99999999": 2}), 0)
    assert [(info.id, info.name) for info in source.classes] == [
        ("n01440764", "tench"),
        ("n99999999", "n99999999"),
    ]


def write_cifar10(root: Path, rows: int = 3) -> Path:
    """Canonical batches with `rows` random images each."""
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = [f"class{number}".encode() for number in range(10)]
    (batches / "batches.meta").write_bytes(pickle.dumps({b"label_names": labels}, protocol=2))
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        batch = {
            b"data": random.integers(0, 256, (rows, 3072), dtype=np.uint8),
            b"labels": random.integers(0, 10, rows).tolist(),
            b"filenames": [f"{row}.png".encode() for row in range(rows)],
        }
        (batches / name).write_bytes(pickle.dumps(batch, protocol=2))
    return batches


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10_batches(tmp_path: Path, protocol: int) -> None:
    batches = write_cifar10(tmp_path)
    raw = pickle.loads((batches / "data_batch_2").read_bytes())
    (batches / "data_batch_2").write_bytes(pickle.dumps(raw, protocol=protocol))
    for path in (tmp_path, batches):
        source = cifar10(path, 0)
        assert {split: len(references) for split, references in source.splits.items()} == {"train": 15, "test": 3}
        assert source.problems == (
            "train has 15 images, the official set 50,000", "test has 3 images, the official set 10,000"
        )  # fmt: skip
        assert source.classes[9].name == "class9"
        assert len({reference.name for reference in source.splits["train"]}) == 15
        reference = source.splits["train"][4]
        assert reference.label == raw[b"labels"][1]
        image = pickle.loads(pickle.dumps(reference)).read()
        for channel in range(3):
            plane = raw[b"data"][1][1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
            np.testing.assert_array_equal(image[:, :, channel], plane)


def test_cifar10_batches_as_python_2_wrote_them(tmp_path: Path) -> None:
    """The official files are protocol 2 of Python 2: byte strings, and NumPy under its old name."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    batches = write_cifar10(tmp_path, rows=1)
    pixels = np.arange(3072, dtype=np.int64).astype(np.uint8)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T\x00\x0c\x00\x00" + pixels.tobytes() + b"tb"
    )  # fmt: skip
    batch = b"\x80\x02}(" + string(b"data") + array + string(b"labels") + b"]K\x07a"
    (batches / "test_batch").write_bytes(batch + string(b"filenames") + b"]" + string(b"x.png") + b"au.")
    (reference,) = cifar10(tmp_path, 0).splits["test"]
    assert reference.label == 7
    image = reference.read()
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(image.transpose(2, 0, 1).ravel(), pixels)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def test_cifar10_pickles_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batches = write_cifar10(tmp_path)
    (batches / "data_batch_3").write_bytes(pickle.dumps({b"data": Bomb()}, protocol=2))
    with pytest.raises(ReproError, match=r"data_batch_3.*it would run posix\.system"):
        cifar10(tmp_path, 0)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:500]),
        lambda file: file.write_bytes(pickle.dumps([1, 2])),
        lambda file: file.write_bytes(pickle.dumps({b"data": 3})),
        lambda file: file.write_bytes(pickle.dumps({**pickle.loads(file.read_bytes()), b"labels": [1]})),
        lambda file: file.write_bytes(pickle.dumps({**pickle.loads(file.read_bytes()), b"labels": [1, 2, 10]})),
    ],
    ids=["missing", "empty", "cut", "list", "no-array", "few-labels", "label-10"],
)
def test_cifar10_names_a_damaged_batch(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = write_cifar10(tmp_path) / "data_batch_4"
    damage(file)
    with pytest.raises(ReproError, match="data_batch_4"):
        cifar10(tmp_path, 0)


def test_cifar10_class_folders_and_none(tmp_path: Path) -> None:
    write_pictures(tmp_path / "png", {"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2})
    source = cifar10(tmp_path / "png", 0)
    assert {split: len(references) for split, references in source.splits.items()} == {"train": 40, "test": 4}
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ReproError, match=str(path)):
            cifar10(path, 0)


def test_cifar10_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(root: str, download: bool) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ReproError, match=r"cannot download CIFAR-10.*not known.*--source"):
        cifar10(None, 0)


def test_cifar10_download_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda root, download: write_cifar10(Path(root)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert len(cifar10(None, 0).splits["train"]) == 15
    assert (tmp_path / "repro" / "cifar10").is_dir()


def test_synthetic_follows_from_seed_split_and_index_alone() -> None:
    source = synthetic(None, 0)
    assert {split: len(references) for split, references in source.splits.items()} == {
        "train": 3000,
        "val": 600,
        "test": 600,
    }
    everything = [reference.name for references in source.splits.values() for reference in references]
    assert len(set(everything)) == 4200
    reference = source.splits["train"][17]
    assert pickle.loads(pickle.dumps(reference)).read() == reference.read()
    variants = {SyntheticReference(seed, split, 17, 0).read() for seed in (0, 1) for split in ("train", "val")}
    assert len(variants) == 4
    with pytest.raises(ReproError, match="leave out --source"):
        synthetic(Path("images"), 0)


def test_synthetic_images_differ_in_size_and_shape() -> None:
    squares = {}
    for label in range(len(CLASSES)):
        for index in range(5):
            encoded = SyntheticReference(0, "train", index, label).read()
            assert encoded.startswith(b"\xff\xd8")
            squares[label, index] = to_square(encoded, 64)
    assert len({square.tobytes() for square in squares.values()}) == 50


def wave_direction(square: np.ndarray) -> tuple[float, float]:
    """Angle (0–90 degrees from horizontal, mirror images alike) and frequency of the strongest wave."""
    grey = square.astype(float).sum(axis=2)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean()))
    rows, columns = np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64), indexing="ij")
    spectrum[np.hypot(rows, columns) < 3] = 0  # the ground's slope
    place = np.unravel_index(spectrum.argmax(), spectrum.shape)
    row, column = abs(rows[place]), abs(columns[place])
    return float(np.rad2deg(np.arctan2(row, column))), float(np.hypot(row, column))


def test_synthetic_gratings_are_what_their_class_says_and_mirroring_keeps_it() -> None:
    """Read off the Fourier transform of the prepared pixels, by majority: contrast may be faint in one image."""
    for label, name in enumerate(CLASSES[:6]):
        right = 0
        for index in range(12):
            square = to_square(SyntheticReference(0, "val", index, label).read(), 64)
            for image in (square, square[:, ::-1]):
                angle, frequency = wave_direction(image)
                orientation = "horizontal" if angle > 67 else "vertical" if angle < 23 else "diagonal"
                right += name == f"{orientation}-{'fine' if frequency > 8 else 'coarse'}"
        assert right >= 20, name


def test_real_cifar10(real_images: Callable[[str], Path]) -> None:
    source = cifar10(real_images("cifar10"), 0)
    assert np.bincount([reference.label for reference in source.splits["train"]]).tolist() == [5000] * 10
    assert np.bincount([reference.label for reference in source.splits["test"]]).tolist() == [1000] * 10
    assert source.classes[0].name == "airplane"
    assert (source.problems, source.notes[0]) == ((), "train: 50,000 images, as published")


def test_nothing_is_read_while_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, {"a": 3, "b": 3})
    source = folder(tmp_path, 0)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        source.splits["train"][0].read()
