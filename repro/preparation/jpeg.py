"""JPEG photographs, which are nearly all there is to prepare, in two thirds of the time that Pillow takes.

simplejpeg's libjpeg-turbo decodes and torch resamples bytes with vector instructions. The decoded pixels are
Pillow's to the bit wherever both carry the same libjpeg; resampled, they lie as far from floats as Pillow's do.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

LONGEST = 4  # times the shorter side: a longer picture is resampled piecewise, by Pillow
MOST_SCANS = 100  # of a progressive JPEG: each costs a pass over all pixels, and ten are usual
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # Huffman-coded: baseline, extended, progressive
TABLES = frozenset({0xC4, 0xC8, 0xCC})  # markers among the frames' that begin none
BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


def is_quick(encoded: bytes, most_pixels: int) -> bool:
    """Is this a picture for `to_square_quickly`?

    It is if it is a grey or three-channel, 8-bit, Huffman-coded JPEG of ordinary shape and at most so many pixels.
    """
    if encoded[:2] != b"\xff\xd8":
        return False
    at, channels = 2, 0
    while True:
        marker = encoded[at : at + 2]
        if len(marker) < 2 or marker[0] != 0xFF:
            return False
        if marker[1] == 0xFF:
            at += 1  # fill
            continue
        if marker[1] in BARE:
            at += 2
            continue
        if marker[1] == 0xDA:
            break
        if marker[1] in FRAMES:
            frame = encoded[at + 4 : at + 10]  # bits, height, width, channels
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            if channels or len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3):
                return False
            if not 0 < height * width <= most_pixels or max(height, width) > LONGEST * min(height, width):
                return False
            channels = frame[5]
        elif marker[1] in (0xD8, 0xD9) or (0xC3 <= marker[1] <= 0xCF and marker[1] not in TABLES):
            return False  # an end before the first scan, or a frame of a rare kind
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    # One scan of all channels is the rule; counting more takes a while.
    one_scan = encoded[at + 4 : at + 5] == bytes([channels]) and encoded[at + 5 + 2 * channels :][:3] == b"\0\x3f\0"
    return channels > 0 and (one_scan or encoded.count(b"\xff\xda") <= MOST_SCANS)


def to_square_quickly(encoded: bytes, size: int) -> NDArray[np.uint8]:
    """The central square of a plain JPEG, its shorter side rescaled to `size`: uint8 [size, size, 3], RGB.

    The pixels are those of resizing the whole (bilinear, antialiased) and cropping then. Raises ValueError with
    libjpeg's complaint for what it cannot decode, finds incomplete or decodes only as well as it can.
    """
    import torch  # it takes seconds, and not all who ask for a square have a photograph

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, strict=True)  # [H, W, 3], RGB
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    shorter = min(height, width)
    tall, wide = size * height // shorter, size * width // shorter
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    # What lies right of the square or below it is not computed; what lies left of it must be, because places
    # are counted from the picture's edge. The scales are those of the whole picture.
    rows = min(height, -(-(top + size + 2) * height // tall))
    with torch.inference_mode():
        # Cut by torch: by NumPy the new axis has a stride that hides from torch that the channels lie last.
        seen = torch.from_numpy(pixels)[None, :rows].permute(0, 3, 1, 2)
        resized = torch.ops.aten._upsample_bilinear2d_aa(
            seen, [top + size, left + size], False, tall / height, wide / width
        )
        return np.asarray(resized[0].permute(1, 2, 0)[top:, left:])


def complaint_about(encoded: bytes) -> str:
    """What libjpeg finds wrong with a JPEG; empty for nothing. Pillow, which decodes rarer kinds, is quiet about it."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        simplejpeg.decode_jpeg(encoded, "CMYK" if colours in ("CMYK", "YCCK") else "RGB", strict=True)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""
