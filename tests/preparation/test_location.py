"""`--source` is understood, or the error says what it is and what is wanted."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import picture, repro, write_pictures

from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.sources.cifar import cifar10
from repro.preparation.sources.datasets import DATASETS, find_dataset, open_source
from repro.preparation.sources.folder import folder
from repro.preparation.sources.ilsvrc import ilsvrc2012
from repro.preparation.sources.imagenette import imagenette
from repro.preparation.sources.source import Source
from repro.preparation.sources.webdataset import webdataset

SOURCES = [folder, cifar10, imagenette, ilsvrc2012, webdataset]


def refused(match: str, path: Path, read: Callable[[Path, int], Source] = folder) -> None:
    with pytest.raises(ReproError, match=match) as error:
        read(path, 0)
    assert "\n" not in str(error.value)
    assert "--source" in str(error.value)


@pytest.mark.parametrize("read", SOURCES)
def test_a_url_is_to_be_downloaded(read: Callable[[Path, int], Source]) -> None:
    for url in ("https://example.org/pets.zip", "ftp://example.org/pets", "hf://datasets/imagenet-1k"):
        refused(f"'{url}' is a URL: download it", Path(url), read)


@pytest.mark.parametrize("read", SOURCES)
def test_what_does_not_exist_is_named_with_what_does(read: Callable[[Path, int], Source], tmp_path: Path) -> None:
    refused(re.escape(f"where' ('{tmp_path}' exists)"), tmp_path / "no/where", read)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("photo.jpg", picture(), "a JPEG image"),
        ("labels.csv", b"image,label\n1.jpg,cat\n", "a text file"),
        ("pets.rar", b"Rar!\x1a\x07\x00", "a rar archive: unpack it"),
        ("train.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
        ("pets.tar.zst", b"(\xb5/\xfd", "a zstd-compressed file: unpack it"),
        ("train.parquet", b"PAR1", "a Parquet file"),
        ("empty.zip", b"", "an empty file"),
    ],
)
def test_a_file_of_another_kind_is_described(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(f"{name}' is {kind}; --source is a folder, zip or tar", tmp_path / name)


def test_home_relative_paths_and_trailing_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pets", {"cat": 2, "dog": 2})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/pets", "pets", "./pets/", "pets/../pets"):
        assert len(folder(Path(path), 0).splits["train"]) == 2
    refused("give --source", Path("~nobody-of-this-name/pets"))


def test_archives_in_a_folder(tmp_path: Path) -> None:
    for name in ("train.zip", "test.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("cat/0.jpg", picture())
    refused("holds no images but 2 archives, 'test.zip', 'train.zip': unpack them, or give one", tmp_path)


def test_a_damaged_or_encrypted_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    write_pictures(tmp_path / "pets", {"cat": 2, "dog": 2})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "pets").rglob("*.jpg"):
            archive.write(file, file.relative_to(tmp_path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ReproError, match=r"cannot read the zip archive .*pets\.zip.*fetch it again"):
        folder(path, 0)

    path.write_bytes(whole)
    reference = folder(path, 0).splits["train"][0]
    damaged = bytearray(whole)
    damaged[reference.offset + 80] ^= 255  # type: ignore[attr-defined]
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"pets\.zip"):
        reference.read()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda info: setattr(info, "filename", "../escape.jpg"), "has an unsafe name"),
        (lambda info: setattr(info, "filename", "/absolute.jpg"), "has an unsafe name"),
        (lambda info: setattr(info, "external_attr", 0o120777 << 16), "is a symbolic link"),
        (lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA), "is compressed by method 14"),
    ],
    ids=["climbing", "absolute", "link", "lzma"],
)
def test_zips_that_are_not_plain_are_refused(
    tmp_path: Path, change: Callable[[zipfile.ZipInfo], None], reason: str
) -> None:
    info = zipfile.ZipInfo("cat/0.jpg")
    change(info)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, picture())
    with pytest.raises(ReproError, match=reason):
        folder(tmp_path / "x.zip", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.jpg", b"secret")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the archive's directory
    path.write_bytes(content)
    with pytest.raises(ReproError, match="is encrypted: unpack the archive"):
        folder(path, 0)


def test_zips_made_on_windows_with_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for id in ("cat", "dog"):
            for number in range(2):
                info = zipfile.ZipInfo("x")
                info.filename, info.create_system = f"pets\\{id}\\{number}.jpg", 0
                archive.writestr(info, picture(number))
    source = folder(tmp_path / "x.zip", 0)
    assert [info.id for info in source.classes] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("imagenet", "ilsvrc2012"),
        ("ImageNet-1k", "ilsvrc2012"),
        ("ilsvrc", "ilsvrc2012"),
        ("imagenet-22k", "fall2011"),
        ("cifar", "cifar10"),
        ("dogs-vs-cats", "folder"),
        ("imagenete", "imagenette"),
    ],
)
def test_a_dataset_by_another_name_leads_to_the_one_meant(name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match=f"unknown dataset '{name}': did you mean {meant}\\?"):
        find_dataset(name)
    with pytest.raises(ReproError, match=f"did you mean {meant}"):
        prepare(name, tmp_path / "store")


def test_no_splits_is_for_folders_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets", {"cat": 2, "dog": 2, "train": 2})
    assert len(open_source("folder", tmp_path / "pets", 0, split_folders=False).classes) == 3
    for dataset in DATASETS.keys() - {"folder"}:
        with pytest.raises(ReproError, match=f"--no-splits is for the dataset 'folder', not for '{dataset}'"):
            open_source(dataset, tmp_path / "pets", 0, split_folders=False)
    done = repro(
        "prepare", "folder", "--source", tmp_path / "pets", "--out", tmp_path / "s", "--size", 8, "--no-splits"
    )
    assert done.returncode == 0, done.stderr
    assert "3 classes" in done.stdout
