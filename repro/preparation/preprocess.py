"""From any image to a square of RGB pixels (Sec. 2): shorter side to S, central S×S cut out.

What the paper leaves open is decided here, once, for every data set:

- Resampling is bilinear with antialiasing. The pixels are those of torchvision's `Resize(S)` and
  `CenterCrop(S)` on a PIL image, to within one grey level; on photographs they lie 0.28 grey levels on average
  from the same resampling in floats (the rounding to whole levels itself makes 0.25). That holds for plain JPEGs,
  which libjpeg-turbo and torch take care of (`repro.preparation.jpeg`), and for all else, which Pillow does.
- EXIF orientation is ignored: pixels are taken as stored, as the usual ImageNet pipelines do. So are colour
  profiles.
- Transparent pixels are laid on white, as a browser shows them; the colour hidden beneath is arbitrary.
- Greyscale becomes three equal channels, 16 bits keep their upper 8, CMYK is converted by Pillow's formula,
  and of an animation the first frame counts.
- More than about 89 million pixels (Pillow's limit against decompression bombs) are refused, and JPEGs of so many
  scans that they would take minutes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from repro.preparation.jpeg import complaint_about, is_quick, to_square_quickly

# The content decides, not the file's extension. A closed list: some of Pillow's other readers run programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MOST_PASSES = 10**10  # pixels × scans of a JPEG: some seven seconds; a small file could ask for many minutes


class UndecodableImage(Exception):
    """The bytes are not an image that can be used; the message is the reason, for the list of rejects."""


def to_square(
    image: bytes | NDArray[np.uint8], size: int, on_complaint: Callable[[str], None] | None = None
) -> NDArray[np.uint8]:
    """Bring an image to uint8 [size, size, 3] (RGB, 0–255).

    `image` is an encoded image, or RGB pixels as uint8 [H, W, 3]. The shorter side is rescaled to `size` and
    the central square cut out. Raises `UndecodableImage` for anything that Pillow cannot decode in full.
    `on_complaint` is told what libjpeg finds wrong with a JPEG that is decoded all the same.
    """
    if isinstance(image, bytes) and is_quick(image, Image.MAX_IMAGE_PIXELS or 0):
        with suppress(ValueError):  # Pillow finds the same, with a reason for people, or decodes what there is
            return to_square_quickly(image, size)
    picture = decode(image) if isinstance(image, bytes) else Image.fromarray(image)
    if on_complaint and isinstance(image, bytes) and image.startswith(b"\xff\xd8"):
        complaint = complaint_about(image)
        if complaint:
            on_complaint(complaint)
    # Only the square is resampled: the same pixels as resizing first and cropping then, but a picture of
    # 1×60,000 needs no 256×15,360,000 in between.
    left, right = _central_span(picture.width, picture.height, size)
    top, bottom = _central_span(picture.height, picture.width, size)
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.array(picture)


def decode(encoded: bytes) -> Image.Image:
    """Decode an image of any mode to RGB. Raises `UndecodableImage`, with Pillow's reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corrupt EXIF and the like: the pixels are what counts
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
                if picture.format in ("JPEG", "MPO"):
                    _check_passes(picture, encoded.count(b"\xff\xda"))
                picture.load()
                return _to_rgb(picture)
        except UnidentifiedImageError:
            reason = "empty file" if not encoded else f"not an image ({', '.join(FORMATS)})"
            raise UndecodableImage(reason) from None
        except Exception as error:  # damaged files make Pillow's readers raise almost any type
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UndecodableImage(reason) from error


def _check_passes(picture: Image.Image, scans: int) -> None:
    if scans * picture.width * picture.height > MOST_PASSES:
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
    """Where the central `size` pixels of a resized side lie on the original side of `length` pixels."""
    resized = max(size, size * length // min(length, other))
    start = round((resized - size) / 2)
    return start * length / resized, (start + size) * length / resized
