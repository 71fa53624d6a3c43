import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import write_pictures

from repro.errors import ReproError
from repro.preparation.sources.cifar import cifar10, cifar100


def write_cifar(root: Path, rows: int = 3, classes: int = 10) -> Path:
    """Write the batches of the Python version of CIFAR-10 or CIFAR-100 with `rows` random images each."""
    batches = root / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    batches.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"class{number}".encode() for number in range(classes)]
    meta = {b"label_names": names} if classes == 10 else {b"fine_label_names": names, b"coarse_label_names": [b"a"]}
    (batches / ("batches.meta" if classes == 10 else "meta")).write_bytes(pickle.dumps(meta, protocol=2))
    files = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name in files if classes == 10 else ["train", "test"]:
        labels = random.integers(0, classes, rows).tolist()
        batch = {
            b"data": random.integers(0, 256, (rows, 3072), dtype=np.uint8),
            b"filenames": [f"{row}.png".encode() for row in range(rows)],
            **({b"labels": labels} if classes == 10 else {b"fine_labels": labels, b"coarse_labels": [0] * rows}),
        }
        (batches / name).write_bytes(pickle.dumps(batch, protocol=2))
    return batches


def write_cifar_binary(root: Path, classes: int = 10) -> Path:
    """Write the binary version of what `write_cifar` writes."""
    python = write_cifar(root / "python", classes=classes)
    binary = root / ("cifar-10-batches-bin" if classes == 10 else "cifar-100-binary")
    binary.mkdir(parents=True)
    names = "".join(f"class{number}\n" for number in range(classes))
    meta = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
    (binary / meta).write_text(names + "\n", encoding="utf-8")
    for file in python.iterdir():
        batch = pickle.loads(file.read_bytes())
        if b"data" not in batch:
            continue
        labels = [batch[b"labels"]] if classes == 10 else [batch[b"coarse_labels"], batch[b"fine_labels"]]
        rows = np.hstack([np.array(labels, np.uint8).T, batch[b"data"]])
        (binary / f"{file.name}.bin").write_bytes(rows.tobytes())
    return binary


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches(tmp_path: Path, protocol: int) -> None:
    batches = write_cifar(tmp_path)
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


def test_batches_as_python_2_wrote_them(tmp_path: Path) -> None:
    """The official files are in protocol 2 of Python 2: byte strings, and NumPy under its old name."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    batches = write_cifar(tmp_path, rows=1)
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


@pytest.mark.parametrize("classes", [10, 100])
def test_archives_and_the_binary_version_hold_the_same(tmp_path: Path, classes: int) -> None:
    read = cifar10 if classes == 10 else cifar100
    python, binary = write_cifar(tmp_path / "py", classes=classes), write_cifar_binary(tmp_path / "bin", classes)
    expected = read(python, 0)
    assert len(expected.classes) == classes
    official = {10: "cifar-10-{}.tar.gz", 100: "cifar-100-{}.tar.gz"}[classes]
    paths = [binary, binary.parent]
    for kind, folder in (("python", python), ("binary", binary)):
        (tmp_path / kind).mkdir()
        path = tmp_path / kind / official.format(kind)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
        paths += [path, path.parent]
    for path in paths:
        source = read(path, 0)
        assert source.classes == expected.classes
        for split in ("train", "test"):
            assert [reference.label for reference in source.splits[split]] == [r.label for r in expected.splits[split]]
            for reference, other in zip(source.splits[split], expected.splits[split], strict=True):
                np.testing.assert_array_equal(pickle.loads(pickle.dumps(reference)).read(), other.read())
                assert reference.identity() != other.identity()


def test_source_is_one_of_the_batches_or_something_else(tmp_path: Path) -> None:
    batches = write_cifar(tmp_path)
    assert len(cifar10(batches / "data_batch_1", 0).splits["train"]) == 15
    binary = write_cifar_binary(tmp_path / "cut")
    (binary / "data_batch_2.bin").write_bytes(bytes(3000))
    with pytest.raises(ReproError, match=r"data_batch_2\.bin' has 3,000 bytes, not a multiple of 3,073"):
        cifar10(binary, 0)
    (tmp_path / "7z").mkdir()
    (tmp_path / "7z/train.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(ReproError, match=r"7z' is not CIFAR-10 but holds 'train\.7z': give --source cifar-10-python"):
        cifar10(tmp_path / "7z", 0)
    with pytest.raises(ReproError, match=r"train\.7z' is a 7z archive: unpack it"):
        cifar10(tmp_path / "7z/train.7z", 0)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def test_pickles_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batches = write_cifar(tmp_path)
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
def test_names_a_damaged_batch(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = write_cifar(tmp_path) / "data_batch_4"
    damage(file)
    with pytest.raises(ReproError, match="data_batch_4"):
        cifar10(tmp_path, 0)


def test_class_folders_and_none(tmp_path: Path) -> None:
    write_pictures(tmp_path / "png", {"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2})
    source = cifar10(tmp_path / "png", 0)
    assert {split: len(references) for split, references in source.splits.items()} == {"train": 40, "test": 4}
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ReproError, match=str(path)):
            cifar10(path, 0)


def test_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(root: str, download: bool) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ReproError, match=r"cannot download CIFAR10.*not known.*--source"):
        cifar10(None, 0)


def test_download_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda root, download: write_cifar(Path(root)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert len(cifar10(None, 0).splits["train"]) == 15
    assert (tmp_path / "repro" / "cifar10").is_dir()


def test_real_cifar10(real_images: Callable[[str], Path]) -> None:
    source = cifar10(real_images("cifar10"), 0)
    assert np.bincount([reference.label for reference in source.splits["train"]]).tolist() == [5000] * 10
    assert np.bincount([reference.label for reference in source.splits["test"]]).tolist() == [1000] * 10
    assert source.classes[0].name == "airplane"
    assert (source.problems, source.notes[0]) == ((), "train: 50,000 images, as published")
