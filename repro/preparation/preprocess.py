"""Preprocess an encoded image to a square of RGB pixels (Sec. 2): resize the shorter side to S, crop the central S×S.

The paper leaves some choices open. They are made here, for every dataset:

- Resampling is bilinear with antialiasing. The pixels equal those of torchvision's `Resize(S)` and `CenterCrop(S)`
  on a PIL image to within one grey level; on photographs they differ by 0.28 grey levels on average from the same
  resampling in floating point (rounding to integers alone makes 0.25). This holds for ordinary JPEGs, which
  libjpeg-turbo and torch process (`repro.preparation.jpeg`), and for all other images, which Pillow processes.
- Pixels are used as stored, as in the usual ImageNet pipelines, unless the caller passes the EXIF orientation. (The
  orientation of TIFF, HEIC and AVIF is part of the format and always applied.) Colour profiles are ignored.
- Transparent pixels are composited on white, as in a browser; the colour beneath them is arbitrary.
- Greyscale becomes three equal channels, of 16 bits the upper 8 are kept, CMYK is converted by Pillow's formula, and
  the first frame of an animation is used.
- Images of more than about 89 million pixels (Pillow's limit against decompression bombs) are rejected, and so are
  JPEGs with so many scans that they would take minutes.
- A JPEG that lacks only its end marker is used, and so are the pixels of a PNG whose metadata is too large or damaged.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.Image import Transpose

from repro.errors import how_to_install
from repro.preparation.formats import HEAD, decodable, image_format, kind_of
from repro.preparation.jpeg import (
    add_end_marker,
    complaint_about,
    is_ordinary,
    kind_of_jpeg,
    metadata_segments,
    to_square_fast,
)

MAX_SCANNED_PIXELS = 10**10  # pixels × scans of a JPEG: about seven seconds; a small file could take many minutes
ORIENTATION = 0x0112  # EXIF tag
TRANSPOSITIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
EXIF_SIGN, XMP_SIGN = b"Exif\0\0", b"tiff:Orientation"
# Without any of these an image has no orientation: EXIF of PNG, WebP and ImageMagick's PNG, and XMP.
ORIENTATION_SIGNS = (EXIF_SIGN, b"eXIf", b"EXIF", b"Raw profile type exif", XMP_SIGN)
UPRIGHT = ("TIFF", "HEIF", "AVIF")  # formats whose orientation is applied in decoding; EXIF repeats it
JPEG_SIGNATURE = b"\xff\xd8"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")
TIFF_VALUES = {2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex"}
_stderr_lock = threading.Lock()


class UndecodableImage(Exception):
    """The image cannot be used; the message is the reason, for the list of rejected images."""


class MissingDecoder(UndecodableImage):
    """The image needs an optional library that is not installed."""


def exif_orientation(encoded: bytes) -> int:
    """Return the orientation of an encoded image, 1 to 8; 1 is upright, or unknown."""
    jpeg = encoded.startswith(JPEG_SIGNATURE)
    if not jpeg and not any(sign in encoded for sign in ORIENTATION_SIGNS):
        return 1
    if image_format(encoded[:HEAD]) in UPRIGHT:
        return 1
    with warnings.catch_warnings(), suppress(Exception):  # damaged EXIF data make Pillow raise almost any error
        warnings.simplefilter("ignore")
        orientation = (_jpeg_exif(encoded) if jpeg else _exif(encoded)).get(ORIENTATION, 1)
        return orientation if orientation in TRANSPOSITIONS else 1
    return 1


def _exif(encoded: bytes) -> Image.Exif:
    """Return the EXIF data of an image; if they hold no orientation, with that of its XMP data."""
    with Image.open(io.BytesIO(encoded), formats=decodable()) as picture:
        return picture.getexif()


def _jpeg_exif(encoded: bytes) -> Image.Exif:
    """Return the same as `_exif` for a JPEG, without opening the image unless it has XMP data: that is slower."""
    segments = metadata_segments(encoded)
    if any(XMP_SIGN in segment for segment in segments):
        return _exif(encoded)
    exif = Image.Exif()
    exif.load(b"".join(segment.removeprefix(EXIF_SIGN) for segment in segments if segment.startswith(EXIF_SIGN)))
    return exif


def rgb_pixels(picture: Image.Image) -> tuple[NDArray[np.uint8], int]:
    """Return the pixels of an opened image of any mode, uint8 RGB [H, W, 3] as stored, and its EXIF orientation.

    Raises `UndecodableImage` for an image that cannot be decoded, or whose values have no fixed range.
    """
    try:
        rgb = _load(picture)
    except UndecodableImage:
        raise
    except Exception as error:  # for damaged files the readers of Pillow raise almost any type
        raise UndecodableImage(" ".join(str(error).split()) or type(error).__name__) from error
    orientation = 1
    if picture.format not in UPRIGHT:
        with suppress(Exception):  # damaged EXIF data
            orientation = picture.getexif().get(ORIENTATION, 1)
    return np.array(rgb), orientation if orientation in TRANSPOSITIONS else 1


def to_square(
    image: bytes | NDArray[np.uint8],
    size: int,
    on_complaint: Callable[[str], None] | None = None,
    orientation: int = 1,
    squash: bool = False,
) -> NDArray[np.uint8]:
    """Resize and crop an image to uint8 [size, size, 3], RGB, 0–255.

    `image` is an encoded image, or RGB pixels as uint8 [H, W, 3]. It is turned upright as `orientation` (1 to 8, as
    in EXIF) says, the shorter side is resized to `size`, and the central square is cropped; with `squash` both sides
    are resized to `size` instead. `on_complaint` is called with what is wrong with a damaged image that is used
    nevertheless. Raises `UndecodableImage` for an image that cannot be decoded completely.
    """
    if not squash and isinstance(image, bytes) and is_ordinary(image, Image.MAX_IMAGE_PIXELS or 0):
        with suppress(ValueError):  # Pillow gives a readable reason, or decodes the image nevertheless
            return to_square_fast(image, size, orientation)
    try:
        picture = decode(image, on_complaint) if isinstance(image, bytes) else Image.fromarray(image)
    except UndecodableImage:
        completed = add_end_marker(image) if isinstance(image, bytes) else None
        if completed is None:
            raise
        if on_complaint:
            on_complaint("the end marker is missing")
        return to_square(completed, size, on_complaint, orientation, squash)
    if on_complaint and isinstance(image, bytes) and image.startswith(JPEG_SIGNATURE):
        complaint = complaint_about(image)
        if complaint:
            on_complaint(complaint)
    if orientation in TRANSPOSITIONS:
        picture = picture.transpose(TRANSPOSITIONS[orientation])
    if squash:
        return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
    # Only the square is resampled. The pixels equal those of resizing first and cropping afterwards, but an image of
    # 1×60,000 does not need an intermediate one of 256×15,360,000.
    left, right = _central_span(picture.width, picture.height, size)
    top, bottom = _central_span(picture.height, picture.width, size)
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.array(picture)


def decode(encoded: bytes, on_complaint: Callable[[str], None] | None = None) -> Image.Image:
    """Decode an image of any mode to RGB. Raises `UndecodableImage` with the reason.

    `on_complaint` is called with the complaint of libtiff about a TIFF that is decoded nevertheless.
    """
    if image_format(encoded[:HEAD]) == "TIFF":
        return _decode_tiff(encoded, on_complaint)
    try:
        return _decode(encoded)
    except UndecodableImage:
        pixels_only = _without_metadata(encoded)
        if pixels_only is None:
            raise
        with suppress(UndecodableImage):  # the first reason is the better one
            return _decode(pixels_only)
        raise


def _decode(encoded: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corrupt EXIF data and the like do not affect the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(encoded), formats=decodable()) as picture:
                if picture.format in ("JPEG", "MPO"):
                    _check_passes(picture, encoded.count(b"\xff\xda"))
                return _load(picture)
        except UndecodableImage:
            raise
        except UnidentifiedImageError:
            raise _unidentified(encoded) from None
        except Exception as error:  # for damaged files the readers of Pillow raise almost any type
            reason = kind_of_jpeg(encoded) or " ".join(str(error).split()) or type(error).__name__
            raise UndecodableImage(reason) from error


def _decode_tiff(encoded: bytes, on_complaint: Callable[[str], None] | None) -> Image.Image:
    """Decode a TIFF. What libtiff prints, without naming a file, is part of the reason or complaint instead."""
    lines: list[str] = []
    try:
        with _captured_stderr(lines):
            picture = _decode(encoded)
    except UndecodableImage as error:
        if errors := _errors_of_libtiff(lines):
            raise UndecodableImage(f"{error} ({errors[0]})") from error
        raise
    if on_complaint and (errors := _errors_of_libtiff(lines)):
        on_complaint(errors[0])
    return picture


def _errors_of_libtiff(lines: list[str]) -> list[str]:
    errors = (" ".join(line.split()).removeprefix("tempfile.tif: ") for line in lines)  # the name that Pillow gives
    return [f"libtiff: {error}" for error in errors if error and "warning" not in error.lower()]


@contextmanager
def _captured_stderr(lines: list[str]) -> Iterator[None]:
    """Append to `lines` what C libraries print to the standard error meanwhile, instead of showing it."""
    with _stderr_lock:
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115
            stderr = os.dup(2)
        except OSError:  # no standard error, or no disk for a temporary file
            yield
            return
        with file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
                file.seek(0)
                lines += file.read().decode(errors="replace").splitlines()


def _unidentified(encoded: bytes) -> UndecodableImage:
    """Return the reason why no reader accepts an image."""
    format = image_format(encoded[:HEAD])
    if not encoded:
        return UndecodableImage("empty file")
    if format == "HEIF" and format not in decodable():
        return MissingDecoder(f"a HEIC image, which needs {how_to_install('heic')}")
    if format and format not in decodable():
        return MissingDecoder(f"a {format} image, which this installation of Pillow cannot read")
    if kind := kind_of_jpeg(encoded) or _kind_of_tiff(encoded):
        return UndecodableImage(kind)
    if format:
        return UndecodableImage(f"a damaged {format} image, or of a kind that cannot be read")
    return UndecodableImage(f"not an image ({kind_of(encoded[:HEAD])})")


def _kind_of_tiff(encoded: bytes) -> str:
    """Return the kind of a TIFF whose pixel values are not of the usual types; empty for others."""
    with suppress(Exception):
        directory = TiffImagePlugin.ImageFileDirectory_v2(encoded[:8])
        stream = io.BytesIO(encoded)
        stream.seek(directory.next)
        directory.load(stream)
        bits, values = directory.get(258, (1,)), directory.get(339, (1,))
        bits, value = bits[0] if isinstance(bits, tuple) else bits, values[0] if isinstance(values, tuple) else values
        if value in TIFF_VALUES or bits > 16:
            kind = TIFF_VALUES.get(value, "integer")
            return f"a TIFF of {bits}-bit {kind} values: pixel values without a fixed range"
    return ""


def _without_metadata(encoded: bytes) -> bytes | None:
    """Return a PNG without colour profile and texts; None if it has none or is not a PNG."""
    if not encoded.startswith(PNG_SIGNATURE):
        return None
    kept, position = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while position + 12 <= len(encoded):
        end = position + 12 + int.from_bytes(encoded[position : position + 4], "big")
        if encoded[position + 4 : position + 8] not in PNG_METADATA:
            kept.append(encoded[position:end])
        position = end
    pixels_only = b"".join(kept)
    return pixels_only if len(pixels_only) < len(encoded) else None


def _check_passes(picture: Image.Image, scans: int) -> None:
    if scans * picture.width * picture.height > MAX_SCANNED_PIXELS:
        raise UndecodableImage(f"{scans} scans of {picture.width}×{picture.height} pixels: a decompression bomb")


def _load(picture: Image.Image) -> Image.Image:
    """Decode an opened image to RGB, with the orientation of formats that have one."""
    picture.load()
    rgb = _to_rgb(picture)
    if picture.format == "AVIF":  # Pillow reports a transformation of the format as an orientation
        transposition = TRANSPOSITIONS.get(picture.getexif().get(ORIENTATION, 1))
        rgb = rgb if transposition is None else rgb.transpose(transposition)
    return rgb


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        kind = "floating-point" if picture.mode == "F" else "integer"
        raise UndecodableImage(f"a {picture.format} of 32-bit {kind} values: pixel values without a fixed range")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _central_span(length: int, other: int, size: int) -> tuple[float, float]:
    """Return start and end of the central `size` pixels of a resized side, on the original side of `length` pixels."""
    resized = max(size, size * length // min(length, other))
    start = round((resized - size) / 2)
    return start * length / resized, (start + size) * length / resized
