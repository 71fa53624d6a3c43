import json
import tarfile
from pathlib import Path

import pytest
from helpers import picture
from official_archives import tar

from repro.errors import ReproError
from repro.preparation.sources.source import Source
from repro.preparation.sources.webdataset import webdataset


def counts(source: Source) -> dict[str, int]:
    return {split: len(references) for split, references in source.splits.items()}


def shard(labels: list[str], start: int = 0) -> bytes:
    members = {}
    for number, label in enumerate(labels, start):
        members |= {f"{number:06}.cls": label.encode(), f"{number:06}.jpg": picture(number)}
    return tar(members)


def write_shard(root: Path, members: dict[str, bytes]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "train-0.tar").write_bytes(tar(members))
    return root


def test_shards_keep_their_order_and_numbers_are_labels(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        (tmp_path / f"x-train-{number}.tar").write_bytes(shard(["0", "10", "2"], start=number))
    (tmp_path / "x-val-0.tar").write_bytes(shard(["2", "0"]))
    (tmp_path / "._x-val-0.tar").write_bytes(b"Mac OS X")
    source = webdataset(tmp_path, 0)
    assert [info.id for info in source.classes] == ["0", "2", "10"]
    assert [r.name for r in source.splits["train"]] == [
        f"train/x-train-{shard}/{shard + k:06}.jpg" for shard in (0, 2, 10) for k in range(3)
    ]
    assert [r.label for r in source.splits["train"]] == [0, 2, 1] * 3
    assert [r.label for r in source.splits["val"]] == [1, 0]
    assert [r.read() for r in source.splits["train"][:3]] == [picture(k) for k in range(3)]
    assert any("not numbered from 0 without gaps" in note for note in source.notes)
    assert "skipped 1 system file or folder: 1 ._*" in source.notes


def test_without_val_one_in_ten_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "shard-000000.tar").write_bytes(shard(["cat", "dog"] * 10))
    source = webdataset(tmp_path / "shard-000000.tar", 0)
    assert counts(source) == {"train": 18, "val": 2}
    assert [info.id for info in source.classes] == ["cat", "dog"]
    (tmp_path / "mixed.tar").write_bytes(shard(["1", "1", "cat", "cat"]))
    assert [info.id for info in webdataset(tmp_path / "mixed.tar", 0).classes] == ["1", "cat"]


def test_splits_by_folder_and_shards_without_one(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0000.tar").write_bytes(shard(["0", "1"] * 2))
    (tmp_path / "more.tar").write_bytes(shard(["0", "1"]))
    source = webdataset(tmp_path, 0)
    assert counts(source) == {"train": 6, "val": 4}
    assert "taken as train, because their names say no split: 'more.tar'" in source.notes


def test_labels_in_json_and_compressed_shards(tmp_path: Path) -> None:
    members = {}
    for number, label in enumerate([3, 1, 3, 1, 3, 1]):
        name = f"a/{number}"
        members |= {f"{name}.json": json.dumps({"size": 9, "label": label}).encode(), f"{name}.png": picture(number)}
        members[f"{name}.mask.png"] = picture(50)
    root = write_shard(tmp_path / "plain", members)
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(root / "train-0.tar") as plain, tarfile.open(packed / "train-0.tar.gz", "w:gz") as archive:
        for member in plain:
            archive.addfile(member, plain.extractfile(member))
    for source in (webdataset(root, 0), webdataset(packed, 0)):
        assert [info.id for info in source.classes] == ["1", "3"]
        found = {r.name: (r.label, r.read()) for split in source.splits.values() for r in split}
        assert found == {f"train/train-0/a/{k}.png": (1 - k % 2, picture(k)) for k in range(6)}


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"0.jpg": picture(), "0.txt": b"a cat"}, "sample '0' has no class: .cls, or .json with label.*'jpg', 'txt'"),
        ({"0.cls": b"1", "0.txt": b"a cat"}, "sample '0' has 0 images: its files are 'cls', 'txt'"),
        ({"0.cls": b"1", "0.jpg": picture(), "0.png": picture()}, "sample '0' has 2 images"),
        ({"0.jpg": picture(), "0.json": b"{"}, "sample '0' has a json file that cannot be read"),
        ({"0.jpg": picture(), "0.cls": b"1"}, "hold 1 classes: at least two"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path: Path, members: dict[str, bytes], match: str) -> None:
    root = write_shard(tmp_path / "root", members)
    with pytest.raises(ReproError, match=match):
        webdataset(root, 0)


def test_folders_without_shards_and_shards_without_train(tmp_path: Path) -> None:
    for path, match in ((None, "give --source"), (tmp_path, r"holds no \*\.tar")):
        with pytest.raises(ReproError, match=match):
            webdataset(path, 0)
    (tmp_path / "x.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ReproError, match=r"x\.zip' is a zip archive; --source is a folder of WebDataset shards"):
        webdataset(tmp_path / "x.zip", 0)
    (tmp_path / "val-0.tar").write_bytes(shard(["0", "1"]))
    with pytest.raises(ReproError, match="shards of 'val' but none of train"):
        webdataset(tmp_path, 0)
    (tmp_path / "train-0.tar").write_bytes(shard(["0", "2"]))
    assert webdataset(tmp_path, 0).problems == ("val has 1 classes that train lacks: '1'",)
