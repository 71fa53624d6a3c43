"""The fast path for ordinary JPEGs: the same pixels and the same rejections as Pillow, and no damage unreported."""

import io
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import picture
from PIL import Image
from torchvision.transforms import v2

from repro.preparation.jpeg import is_ordinary, to_square_fast
from repro.preparation.preprocess import UndecodableImage, decode, to_square

LIMIT = 89_000_000
MUTATED = 2000  # images: five seconds


def jpeg(image: Image.Image, **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", **options)
    return encoded.getvalue()


def to_square_by_pillow(encoded: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr("repro.preparation.preprocess.is_ordinary", lambda encoded, limit: False)
        return to_square(encoded, size)


def in_floating_point(encoded: bytes, size: int) -> np.ndarray:
    """Return the reference: full decoding, antialiased resampling in floating point, then the crop."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))).permute(2, 0, 1).float()
    resized = v2.functional.resize(pixels, [size], antialias=True)
    return v2.functional.center_crop(resized, [size]).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (300, 100), (77, 301), (40, 40), (24, 24), (9, 30)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_pixels_equal_those_of_pillow_to_within_one_grey_level(
    width: int, height: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = jpeg(Image.open(io.BytesIO(picture(width, width, height, "PNG"))), **options)
    assert is_ordinary(encoded, LIMIT)
    difference = np.abs(to_square_fast(encoded, 40).astype(int) - to_square_by_pillow(encoded, 40, monkeypatch))
    assert difference.max() <= 1


def test_photographs_are_within_a_quarter_grey_level_of_floating_point(
    real_images: Callable[[str], Path],
) -> None:
    difference = []
    for path in sorted(real_images("imagenet5").rglob("*.jpg"))[::5]:
        encoded = path.read_bytes()
        assert is_ordinary(encoded, LIMIT), path
        difference.append(np.abs(to_square_fast(encoded, 256) - in_floating_point(encoded, 256)).mean())
    assert len(difference) == 75
    assert np.mean(difference) < 0.3
    assert np.max(difference) < 0.5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"grey": True}])
def test_decoded_pixels_are_identical_to_those_of_pillow(options: dict[str, Any]) -> None:
    """Images of the right size are not resampled, and both libraries use the same libjpeg."""
    image = Image.open(io.BytesIO(picture(5, 40, 40, "PNG"))).convert("L" if options.pop("grey", False) else "RGB")
    encoded = jpeg(image, **options)
    np.testing.assert_array_equal(to_square_fast(encoded, 40), np.asarray(decode(encoded)))


def with_size(encoded: bytes, height: int, width: int) -> bytes:
    """Return a JPEG whose header states another size."""
    position = encoded.index(b"\xff\xc0") + 5
    return encoded[:position] + struct.pack(">HH", height, width) + encoded[position + 4 :]


def test_other_images_are_left_to_pillow() -> None:
    plain = picture(1)
    assert is_ordinary(plain, LIMIT)
    assert is_ordinary(jpeg(Image.new("L", (20, 20), 9)), LIMIT)
    for other in (
        b"", b"\xff\xd8", plain[:100], picture(1, format="PNG"), picture(1, format="WEBP"), b"<html>",
        jpeg(Image.new("CMYK", (20, 20))), picture(1, 500, 100), with_size(plain, 0, 40),
        with_size(plain, 20_000, 20_000),
        plain.replace(b"\xff\xc0", b"\xff\xc9"),  # arithmetic coding
    ):  # fmt: skip
        assert not is_ordinary(other, LIMIT)
    scans = jpeg(Image.new("RGB", (20, 20)), progressive=True)
    last = scans.rindex(b"\xff\xda")
    assert not is_ordinary(scans[:last] + 100 * scans[last:-2] + b"\xff\xd9", LIMIT)


def test_a_jpeg_with_many_scans_is_rejected_quickly() -> None:
    """Each scan takes a few bytes and a pass over all pixels."""
    scans = jpeg(Image.new("RGB", (3000, 3000)), progressive=True)
    last = scans.rindex(b"\xff\xda")
    start = time.process_time()
    with pytest.raises(UndecodableImage, match=r"1\d\d\d scans of 3000×3000 pixels: a decompression bomb"):
        to_square(scans[:last] + 1200 * scans[last:-2] + b"\xff\xd9", 32)
    assert time.process_time() - start < 2
    few = jpeg(Image.new("RGB", (30, 30), (9, 9, 9)), progressive=True)
    last = few.rindex(b"\xff\xda")
    assert (to_square(few[:last] + 300 * few[last:-2] + b"\xff\xd9", 32) == 9).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_cmyk_and_ycck(mode: str) -> None:
    """Four inks, inverted as Photoshop writes them, against the arithmetic of inks.

    A YCCK image is marked as such in its Adobe marker; it holds luminance and chrominance of the inks, and the inverted
    black.
    """
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    inks = np.stack([3 * across, 3 * down, 200 - across - down, across + down], axis=-1).astype(np.uint8)
    written = inks.copy()
    if mode == "YCCK":  # Pillow writes the complement of each channel
        written[..., :3] = 255 - np.asarray(Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    encoded = jpeg(Image.frombytes("CMYK", (64, 64), written.tobytes()), quality=100, subsampling=0)
    marker = encoded.index(b"Adobe")
    assert encoded[marker + 11] == 0
    if mode == "YCCK":
        encoded = encoded[: marker + 11] + b"\x02" + encoded[marker + 12 :]
    light = 255 - inks.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    assert expected.std() > 30
    difference = np.abs(to_square(encoded, 64) - expected)
    assert difference.mean() < 1
    assert difference.max() < 6


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 30_000)])
def test_very_long_images_need_no_large_intermediate_image(size: tuple[int, int]) -> None:
    assert (to_square(jpeg(Image.new("RGB", size, (9, 9, 9))), 64) == 9).all()


def test_complaints_of_libjpeg_are_reported_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    whole = picture(3, 200, 200)
    short = whole[: len(whole) * 2 // 3] + b"\xff\xd9"
    complaints: list[str] = []
    to_square(whole, 32, complaints.append)
    assert not complaints
    assert to_square(short, 32, complaints.append).shape == (32, 32, 3)
    assert len(complaints) == 1
    assert "premature end" in complaints[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["CMYK", "long"])
def test_damage_is_reported_where_pillow_decodes(kind: str) -> None:
    """Pillow does not report complaints of libjpeg: without them a missing third would be grey, unnoticed."""
    image = Image.open(io.BytesIO(picture(5, 300, 200, "PNG")))
    whole = jpeg(image.convert("CMYK") if kind == "CMYK" else image.resize((1000, 100)))
    assert not is_ordinary(whole, LIMIT)
    complaints: list[str] = []
    to_square(whole, 32, complaints.append)
    assert not complaints
    to_square(whole[: len(whole) * 2 // 3] + b"\xff\xd9", 32, complaints.append)
    assert len(complaints) == 1
    assert "premature end" in complaints[0]


def mutated(random: np.random.Generator, whole: bytes) -> bytes:
    """Return the bytes with some flipped, removed, repeated, replaced or cut off, more often in the headers."""
    content = bytearray(whole)
    for _ in range(int(random.integers(1, 6))):
        reach = min(len(content), 700) if random.random() < 0.6 else len(content)
        position, length = int(random.integers(0, reach)), int(random.integers(1, 30))
        action = random.integers(0, 6)
        if action <= 1:
            content[position] = int(random.choice([0, 0xFF, int(random.integers(0, 256))]))
        elif action == 2:
            content[position] ^= 1 << int(random.integers(0, 8))
        elif action == 3:
            del content[position : position + length]
        elif action == 4:
            content[position:position] = content[position : position + length]
        else:
            content[position : position + 2] = bytes([0xFF, int(random.integers(0xC0, 0x100))])
        if len(content) < 2:
            break
    return bytes(content[: int(random.integers(1, len(content) + 1))] if random.random() < 0.1 else content)


def test_mutated_jpegs_are_rejected_or_decoded_as_by_pillow() -> None:
    """No crash, no hang, no pixels that differ from those of another decoder, no incomplete image without a report.

    A JPEG has no checksum, so damaged pixels cannot always be detected. The mutations are seeded.
    """
    wholes = [picture(seed, 150, 110) for seed in range(6)]
    images = [Image.open(io.BytesIO(encoded)) for encoded in wholes]
    wholes += [jpeg(image, progressive=True) for image in images[:4]]
    wholes += [jpeg(images[0].convert("CMYK")), jpeg(images[1].resize((400, 50))), jpeg(images[2].convert("L"))]
    reasons: set[str] = set()
    outcomes = {"rejected": 0, "reported": 0, "as Pillow": 0}
    slowest = 0.0
    for seed in range(MUTATED):
        random = np.random.default_rng(seed)
        content = mutated(random, wholes[int(random.integers(0, len(wholes)))])
        complaints: list[str] = []
        start = time.process_time()
        try:
            square = to_square(content, 32, complaints.append)
        except UndecodableImage as error:
            reasons.add(str(error))
            outcomes["rejected"] += 1
            continue
        finally:
            slowest = max(slowest, time.process_time() - start)
        assert square.shape == (32, 32, 3)
        outcomes["reported" if complaints else "as Pillow"] += 1
        by_pillow = decode(content)
        if max(by_pillow.size) <= 4 * min(by_pillow.size) and is_ordinary(content, LIMIT):
            difference = np.abs(square - in_floating_point(content, 32))
            assert difference.mean() < 1, seed
    assert min(outcomes.values()) > MUTATED / 20, outcomes
    assert slowest < 5  # seconds
    assert all(reasons)
    assert not any("\n" in reason for reason in reasons)


def test_a_jpeg_cut_short_anywhere_is_rejected() -> None:
    whole = picture(8, 300, 200)
    for length in np.linspace(0, len(whole) - 3, 300, dtype=int).tolist():
        with pytest.raises(UndecodableImage):
            to_square(whole[:length], 32)


def baseline_scans() -> bytes:
    """Return a baseline JPEG with a scan for each channel, of one block and one value each."""
    tables = (
        b"\xff\xdb\0\x43\0"
        + bytes([1]) * 64
        + b"".join(b"\xff\xc4\0\x14" + bytes([table]) + bytes([1]) + bytes(15) + b"\0" for table in (0x00, 0x10))
    )
    frame = b"\xff\xc0\0\x11\x08\0\x08\0\x08\x03" + b"".join(bytes([channel, 0x11, 0]) for channel in (1, 2, 3))
    scans = b"".join(b"\xff\xda\0\x08\x01" + bytes([channel, 0]) + b"\0\x3f\0" + b"\x3f" for channel in (1, 2, 3))
    return b"\xff\xd8" + tables + frame + scans + b"\xff\xd9"


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "CMYK", "elongated", "separate scans"])
def test_a_jpeg_without_its_end_marker_is_used_and_reported(kind: str) -> None:
    image = Image.open(io.BytesIO(picture(5, 300, 200, "PNG")))
    whole = {
        "baseline": jpeg(image),
        "progressive": jpeg(image, progressive=True),
        "grey": jpeg(image.convert("L")),
        "CMYK": jpeg(image.convert("CMYK")),
        "elongated": jpeg(image.resize((1000, 100))),
        "separate scans": baseline_scans(),
    }[kind]
    for missing in (1, 2):
        complaints: list[str] = []
        result = to_square(whole[:-missing], 32, complaints.append)
        np.testing.assert_allclose(result, to_square(whole, 32).astype(int), atol=1)
        # Pillow accepts some of them, and libjpeg has the complaint.
        assert complaints in (["the end marker is missing"], ["Premature end of JPEG file"])


@pytest.mark.parametrize("kind", ["progressive", "separate scans"])
def test_a_jpeg_that_lacks_whole_scans_is_rejected(kind: str) -> None:
    """It ends where a scan ends, so that only the end marker seems to be missing."""
    image = Image.open(io.BytesIO(picture(5, 300, 200, "PNG")))
    whole = jpeg(image, progressive=True) if kind == "progressive" else baseline_scans()
    starts = [match.start() for match in re.finditer(rb"\xff\xda", whole)]
    assert len(starts) >= 3
    for start in starts:
        with pytest.raises(UndecodableImage):
            to_square(whole[:start], 32)


def test_a_rejected_jpeg_with_its_end_marker_stays_rejected() -> None:
    with pytest.raises(UndecodableImage, match="decompression bomb"):
        to_square(with_size(picture(1), 20_000, 20_000), 32)
