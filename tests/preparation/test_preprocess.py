import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from repro.preparation.preprocess import UndecodableImage, to_square


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


def test_exif_orientation_is_ignored() -> None:
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
