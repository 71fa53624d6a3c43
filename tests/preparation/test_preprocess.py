import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from repro.preparation.preprocess import UndecodableImage, exif_orientation, to_square


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format, **options)
    return encoded.getvalue()


def resize_then_crop(encoded: bytes, size: int) -> np.ndarray:
    """Return the reference: torchvision resizes the whole image and crops it afterwards."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return np.asarray(v2.Compose([v2.Resize(size), v2.CenterCrop(size)])(image))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 96))
def test_equals_resizing_and_then_cropping(width: int, height: int, size: int) -> None:
    encoded = encode(Image.open(io.BytesIO(picture(width, width, height, "PNG"))))
    square = to_square(encoded, size)
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert difference(square, resize_then_crop(encoded, size)).max() <= 1


def test_equals_resizing_and_then_cropping_on_photographs(real_images: Callable[[str], Path]) -> None:
    for path in sorted((real_images("imagenet5") / "test").rglob("*.jpg"))[::3]:
        encoded = path.read_bytes()
        errors = difference(to_square(encoded, 256), resize_then_crop(encoded, 256))
        assert errors.mean() < 0.3, path.name
        assert errors.max() <= 1, path.name


def test_is_close_to_resampling_in_floating_point(real_images: Callable[[str], Path]) -> None:
    for path in sorted((real_images("imagenet5") / "test").rglob("*.jpg"))[::10]:
        image = v2.functional.pil_to_tensor(Image.open(path).convert("RGB")).float()
        exact = v2.functional.center_crop(v2.functional.resize(image, [256], antialias=True), [256])
        errors = np.abs(to_square(path.read_bytes(), 256) - exact.permute(1, 2, 0).numpy())
        assert errors.mean() < 0.31, path.name


def test_a_square_of_the_right_size_is_not_changed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_square(pixels, 32), pixels)
    np.testing.assert_array_equal(to_square(encode(Image.fromarray(pixels)), 32), pixels)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (9, 9), 77), (77, 77, 77)),
        (Image.new("1", (9, 9), 1), (255, 255, 255)),
        (Image.new("LA", (9, 9), (10, 0)), (255, 255, 255)),
        (Image.new("RGBA", (9, 9), (250, 10, 0, 255)), (250, 10, 0)),
        (Image.new("RGBA", (9, 9), (250, 10, 0, 0)), (255, 255, 255)),
        (Image.new("RGB", (9, 9), (1, 2, 3)).quantize(2), (1, 2, 3)),
        (Image.fromarray(np.full((9, 9), 0x4CFF, np.uint16)), (0x4C, 0x4C, 0x4C)),
    ],
    ids=["grey", "bilevel", "grey-transparent", "opaque", "transparent", "palette", "16-bit"],
)
def test_modes_of_png(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert to_square(encode(image), 9)[4, 4].tolist() == list(expected)


def test_transparent_colour_of_a_palette_is_white() -> None:
    gif = encode(Image.new("P", (9, 9), 0), "GIF", transparency=0)
    assert (to_square(gif, 9) == 255).all()


def test_cmyk_jpeg_and_the_first_frame_of_a_webp() -> None:
    cyan = to_square(encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"), 16)[8, 8]
    assert cyan[0] < 10
    assert cyan[1:].min() > 245
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    animation = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert to_square(animation, 9)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "elongated"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_by_pillow(orientation: int, format: str) -> None:
    """Before resizing and cropping, whose result depends on the direction for odd differences."""
    image = Image.open(io.BytesIO(picture(3, *((500, 100) if format == "elongated" else (61, 40)), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95, "progressive": format == "elongated"}
    encoded = encode(image, format.replace("elongated", "JPEG"), exif=exif, **options)
    assert exif_orientation(encoded) == orientation
    with Image.open(io.BytesIO(encoded)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    result = to_square(encoded, 33, orientation=orientation)
    assert difference(result, to_square(np.asarray(upright), 33)).max() <= 1
    if orientation != 1:
        assert difference(result, to_square(encoded, 33)).max() > 20


def test_the_orientation_of_a_tiff_is_applied_once() -> None:
    """Pillow applies it when it loads a TIFF."""
    image = Image.open(io.BytesIO(picture(3, 50, 30, "PNG")))
    encoded = encode(image, "TIFF", tiffinfo={0x0112: 6})
    expected = to_square(np.asarray(image.transpose(Image.Transpose.ROTATE_270)), 20)
    np.testing.assert_array_equal(to_square(encoded, 20, orientation=exif_orientation(encoded)), expected)


EXIF_OF_6 = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
XMP_OF_8 = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="8"/>'


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ([], 1),
        ([EXIF_OF_6], 6),
        ([XMP_OF_8], 8),
        ([XMP_OF_8, EXIF_OF_6], 6),  # EXIF counts before XMP
        ([EXIF_OF_6[:30], EXIF_OF_6[:6] + EXIF_OF_6[30:]], 6),  # divided between two segments
        ([EXIF_OF_6[:20]], 1),
        ([b"Exif\0\0", XMP_OF_8], 8),
    ],
)
def test_the_orientation_of_a_jpeg_is_read_as_by_pillow(segments: list[bytes], orientation: int) -> None:
    jpeg = picture(3, 61, 40)
    inserted = b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
    encoded = jpeg[:2] + inserted + jpeg[2:]
    assert exif_orientation(encoded) == orientation
    after_pixels = jpeg[:-2] + inserted + jpeg[-2:]
    assert exif_orientation(after_pixels) == 1
    for content, expected in ((encoded, orientation), (after_pixels, 1)):
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as opened:
            assert opened.getexif().get(0x0112, 1) == expected


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert exif_orientation(encode(Image.open(io.BytesIO(picture(3))), "JPEG", exif=exif)) == 1
    assert exif_orientation(b"Exif\0\0 is not an image") == 1


def png_chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_500_000)),
        png_chunk(b"tEXt", b"Comment\0" + b"x" * 70_000_000),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2_500_000)),
        png_chunk(b"zTXt", b"Comment\0\0" + b"not compressed"),
        png_chunk(b"tEXt", b"Comment\0text", crc=1),
    ],
    ids=["profile", "compressed", "text", "international", "damaged", "checksum"],
)
def test_metadata_of_a_png_do_not_matter(chunk: bytes) -> None:
    plain = picture(3, format="PNG")
    header = 8 + 12 + 13
    np.testing.assert_array_equal(to_square(plain[:header] + chunk + plain[header:], 20), to_square(plain, 20))
    end = len(plain) - 12
    np.testing.assert_array_equal(to_square(plain[:end] + chunk + plain[end:], 20), to_square(plain, 20))
    with pytest.raises(UndecodableImage):  # pixels that are missing still matter
        to_square(plain[:header] + chunk + plain[header:-60], 20)


def test_kinds_of_images_that_are_not_supported_are_named() -> None:
    jpeg = picture(1)
    assert jpeg[jpeg.index(b"\xff\xc0") + 4] == 8
    start = jpeg.index(b"\xff\xc0")
    twelve = jpeg[:start] + b"\xff\xc1" + jpeg[start + 2 : start + 4] + b"\x0c" + jpeg[start + 5 :]
    doubles = encode(Image.new("F", (9, 9), 0.5), "TIFF")
    bits = doubles.index(struct.pack("<HHI", 258, 3, 1)) + 8
    for content, reason in (
        (twelve, "a JPEG with 12 bits per channel: only 8 are supported"),
        (jpeg.replace(b"\xff\xc0", b"\xff\xc3"), "a lossless JPEG, which is not supported"),
        (doubles, "a TIFF of 32-bit floating-point values: pixel values without a fixed range"),
        (doubles[:bits] + b"\x40" + doubles[bits + 1 :], "a TIFF of 64-bit floating-point values: pixel values"),
        (encode(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF"), "a TIFF of 32-bit"),
        (b"<!DOCTYPE html>", "not an image (a text file)"),
        (b"PK\x03\x04" + bytes(30), "not an image (a zip archive)"),
    ):
        with pytest.raises(UndecodableImage, match=re.escape(reason)):
            to_square(content, 20)


def test_lines_of_libtiff_are_reported_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.open(io.BytesIO(picture(3, 200, 200, "PNG")))
    whole = encode(image, "TIFF", compression="tiff_lzw")
    complaints: list[str] = []
    to_square(whole, 32, complaints.append)
    assert not complaints
    damaged = bytearray(whole)
    damaged[100:2000] = np.random.default_rng(0).bytes(1900)
    lines = complaints
    try:
        to_square(bytes(damaged), 32, complaints.append)
    except UndecodableImage as error:
        lines = [str(error)]
    assert "libtiff: Using code not yet in table" in lines[0]
    assert "\n" not in lines[0]
    os.write(2, b"still connected")
    assert capfd.readouterr().err == "still connected"


def test_exif_orientation_is_ignored_by_default() -> None:
    upright = Image.open(io.BytesIO(picture(3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(upright, "JPEG", exif=exif, quality=95)
    np.testing.assert_array_equal(to_square(turned, 20), to_square(encode(upright, "JPEG", quality=95), 20))


def test_corrupt_exif_data_is_ignored_without_a_warning() -> None:
    encoded = encode(Image.open(io.BytesIO(picture(3))), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    assert to_square(encoded, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_one_pixel_wide(size: tuple[int, int]) -> None:
    assert (to_square(encode(Image.new("L", size, 9)), 256) == 9).all()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header states a size and that holds no pixels."""
    encoded = bytearray(encode(Image.new("L", (1, 1))))
    encoded[16:24] = struct.pack(">II", width, height)
    encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
    return bytes(encoded)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (picture(1)[:-200], "truncated"),
        (png_header(10_000, 10_000), "decompression bomb"),
        (png_header(20_000, 20_000), "decompression bomb"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encode(Image.new("F", (9, 9), 0.5), "TIFF"), "without a fixed range"),
    ],
    ids=["empty", "html", "truncated", "bomb", "huge-bomb", "postscript", "float"],
)
def test_unusable_images_are_rejected_with_a_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=reason):
        to_square(encoded, 32)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([picture(5, format=format) for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP")]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.2, 1),
)
def test_damaged_bytes_give_an_image_or_a_reason(encoded: bytes, changes: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(encoded[: int(kept * len(encoded))])
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    try:
        assert to_square(bytes(damaged), 16).shape == (16, 16, 3)
        reason = "none"
    except UndecodableImage as error:
        reason = str(error)
    assert reason
    assert "\n" not in reason
