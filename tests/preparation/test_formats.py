"""What is an image: the first bytes decide, and every file that is left out is counted."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import picture, write_pictures
from PIL import Image

import repro.preparation.formats
from repro.errors import ReproError
from repro.preparation.formats import decodable, image_format, is_image, kind_of
from repro.preparation.prepare import prepare
from repro.preparation.sources.folder import folder


def encoded(format: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, (24, 16), 1).save(content, format)
    return content.getvalue()


def test_formats_are_those_that_pillow_finds() -> None:
    formats = {"JPEG": "RGB", "PNG": "RGB", "WEBP": "RGB", "GIF": "P", "BMP": "RGB", "TIFF": "RGB", "AVIF": "RGB"}
    for format, mode in formats.items():
        if format in decodable() or format != "AVIF":
            assert image_format(encoded(format, mode)) == format
    for mode in ("1", "L", "RGB"):
        assert image_format(encoded("PPM", mode)) == "PPM"
    assert image_format(encoded("MPO")) == "JPEG"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"BM is how this text begins, and not a bitmap", b"P5 is a size of paper", b"GIF is a format",
        b"RIFF1234WAVE",
        b"\0\0\0\x18ftypisom\0\0\2\0", b"<svg>", b"PK\3\4", bytes(600), b"II*", b"\xff\xd8",
    ],
)  # fmt: skip
def test_other_content_is_no_image(content: bytes) -> None:
    assert image_format(content) == ""


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.txt", "photo.dat", "a.b/photo"])
def test_the_content_decides(name: str) -> None:
    assert is_image(name, lambda: picture())
    assert not is_image(name, lambda: b"no image")


def test_a_known_ending_needs_no_look_and_raw_files_of_cameras_are_no_tiff() -> None:
    def look() -> bytes:
        raise AssertionError

    assert is_image("photo.JPG", look)
    assert image_format(b"II*\0") == "TIFF"
    assert not is_image("photo.NEF", lambda: b"II*\0" + bytes(500))


def test_kinds_are_described() -> None:
    kinds = {
        picture(): "a JPEG image",
        b"": "an empty file",
        b"PK\3\4": "a zip archive",
        b"\x1f\x8b\x08": "a gzip-compressed file",
        b"%PDF-1.5": "a PDF",
        b"a,b\n1,2\n": "a text file",
        b"\x00\x01": "a binary file",
    }
    assert {content: kind_of(content) for content in kinds} == kinds


def test_files_that_are_not_read_are_counted_by_ending(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"cat": 2, "dog": 2})
    for name in ("a.jfif", "b.jpe", "c.jpg_large", "noext"):
        (root / "cat" / name).write_bytes(picture(5))
    (root / "cat/d.pnm").write_bytes(encoded("PPM"))
    for name in ("e.jp2", "f.tga", "g.txt", "h.txt", "README"):
        (root / "dog" / name).write_bytes(b"\0\0\0\x0cjP  other")
    source = folder(root, 0)
    assert sum(map(len, source.splits.values())) == 9
    assert source.notes == ("skipped 5 files that are not images: 2 .txt, 1 .jp2, 1 .tga, 1 without ending",) or (
        set(source.notes[0].split(": ")[1].split(", ")) == {"2 .txt", "1 .jp2", "1 .tga", "1 without ending"}
    )


def heic_head() -> bytes:
    return struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(500)


def test_heic_without_its_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repro.preparation.formats, "decodable", lambda: ("JPEG", "PNG"))
    root = write_pictures(tmp_path / "root", {"cat": 2, "dog": 2, "cow": 0})
    (root / "cat/IMG_1.HEIC").write_bytes(heic_head())
    (root / "cow/IMG_2.HEIC").write_bytes(heic_head())
    source = folder(root, 0)
    assert (
        'skipped 2 files that are not images: 2 .heic (to read HEIC: pip install ".[heic]" in the clone of repro)'
        in source.notes
    )
    (problem,) = source.problems
    assert "class 'cow' holds no image files, but 'IMG_2.HEIC'" in problem
    for id in ("cat", "dog"):
        (root / id / "IMG_3.HEIC").write_bytes(heic_head())
        for path in (root / id).glob("*.jpg"):
            path.unlink()
    with pytest.raises(ReproError, match=r'0 class folders.*\[heic\]" in the clone'):
        folder(root, 0)


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_heic_and_avif_become_pixels(tmp_path: Path, format: str) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
    if format not in decodable():
        pytest.skip(f"this Pillow does not decode {format}")
    root = write_pictures(tmp_path / "root", {"train/cat": 2, "train/dog": 2, "val/cat": 1})
    content = io.BytesIO()
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    image.save(content, format, quality=95)
    (root / f"train/dog/photo.{'heic' if format == 'HEIF' else 'avif'}").write_bytes(content.getvalue())
    (root / "train/dog/exported.jpg").write_bytes(content.getvalue())  # as phones export them
    store = prepare("folder", tmp_path / "store", source=root, size=16)
    train = store.splits["train"]
    for index in (2, 3, 4, 5):
        if "photo" in train.names[index] or "exported" in train.names[index]:
            (square,) = train.images(np.array([index]))
            assert abs(square.astype(int) - (200, 30, 30)).max() < 12
    assert len(train) == 6
