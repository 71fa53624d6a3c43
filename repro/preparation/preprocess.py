"""Preprocess an encoded image to a square of RGB pixels (Sec. 2): resize the shorter side to S, crop the central S×S.

The paper leaves some choices open. They are made here, for every dataset:

- Resampling is bilinear with antialiasing. The pixels equal those of torchvision's `Resize(S)` and `CenterCrop(S)`
  on a PIL image to within one grey level; on photographs they differ by 0.28 grey levels on average from the same
  resampling in floating point (rounding to integers alone makes 0.25). This holds for ordinary JPEGs, which
  libjpeg-turbo and torch process (`repro.preparation.jpeg`), and for all other images, which Pillow processes.
- EXIF orientation is ignored: pixels are used as stored, as in the usual ImageNet pipelines. So are colour profiles.
- Transparent pixels are composited on white, as in a browser; the colour beneath them is arbitrary.
- Greyscale becomes three equal channels, of 16 bits the upper 8 are kept, CMYK is converted by Pillow's formula, and
  the first frame of an animation is used.
- Images of more than about 89 million pixels (Pillow's limit against decompression bombs) are rejected, and so are
  JPEGs with so many scans that they would take minutes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from repro.preparation.formats import decodable
from repro.preparation.jpeg import complaint_about, is_ordinary, to_square_fast

MAX_SCANNED_PIXELS = 10**10  # pixels × scans of a JPEG: about seven seconds; a small file could take many minutes


class UndecodableImage(Exception):
    """The image cannot be used; the message is the reason, for the list of rejected images."""


def to_square(
    image: bytes | NDArray[np.uint8], size: int, on_complaint: Callable[[str], None] | None = None
) -> NDArray[np.uint8]:
    """Resize and crop an image to uint8 [size, size, 3], RGB, 0–255.

    `image` is an encoded image, or RGB pixels as uint8 [H, W, 3]. The shorter side is resized to `size`, and the
    central square is cropped. `on_complaint` is called with the complaint of libjpeg about a damaged JPEG that is
    decoded nevertheless. Raises `UndecodableImage` for an image that Pillow cannot decode completely.
    """
    if isinstance(image, bytes) and is_ordinary(image, Image.MAX_IMAGE_PIXELS or 0):
        with suppress(ValueError):  # Pillow gives a readable reason, or decodes the image nevertheless
            return to_square_fast(image, size)
    picture = decode(image) if isinstance(image, bytes) else Image.fromarray(image)
    if on_complaint and isinstance(image, bytes) and image.startswith(b"\xff\xd8"):
        complaint = complaint_about(image)
        if complaint:
            on_complaint(complaint)
    # Only the square is resampled. The pixels equal those of resizing first and cropping afterwards, but an image of
    # 1×60,000 does not need an intermediate one of 256×15,360,000.
    left, right = _central_span(picture.width, picture.height, size)
    top, bottom = _central_span(picture.height, picture.width, size)
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.array(picture)


def decode(encoded: bytes) -> Image.Image:
    """Decode an image of any mode to RGB. Raises `UndecodableImage` with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corrupt EXIF data and the like do not affect the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(encoded), formats=decodable()) as picture:
                if picture.format in ("JPEG", "MPO"):
                    _check_passes(picture, encoded.count(b"\xff\xda"))
                picture.load()
                return _to_rgb(picture)
        except UnidentifiedImageError:
            reason = "empty file" if not encoded else f"not an image ({', '.join(decodable())})"
            raise UndecodableImage(reason) from None
        except Exception as error:  # for damaged files the readers of Pillow raise almost any type
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UndecodableImage(reason) from error


def _check_passes(picture: Image.Image, scans: int) -> None:
    if scans * picture.width * picture.height > MAX_SCANNED_PIXELS:
        raise UndecodableImage(f"{scans} scans of {picture.width}×{picture.height} pixels: a decompression bomb")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise UndecodableImage(f"mode {picture.mode!r}: pixel values without a fixed range")
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
