"""JPEG photographs, which are nearly all there is to prepare, in two thirds of the time that Pillow takes.

torchvision's libjpeg-turbo decodes and torch resamples bytes with vector instructions. The decoded pixels are
Pillow's to the bit wherever both carry the same libjpeg; resampled, they lie as far from floats as Pillow's do.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST = 4  # times the shorter side: a longer picture is resampled piecewise, by Pillow
MOST_SCANS = 100  # of a progressive JPEG: each costs a pass over all pixels, and ten are usual
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # Huffman-coded: baseline, extended, progressive
TABLES = frozenset({0xC4, 0xC8, 0xCC})  # markers among the frames' that begin none
RGB = 3  # torchvision's ImageReadMode
BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_turn = threading.Lock()


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

    The pixels are those of resizing the whole (bilinear, antialiased) and cropping then. Raises RuntimeError for
    what libjpeg cannot decode or finds incomplete.
    """
    decode, resample, torch = _torch()
    with torch.inference_mode():
        pixels = decode(encoded).permute(1, 2, 0)  # [H, W, 3] as it lies in memory
        height, width = pixels.shape[:2]
        if (height, width) == (size, size):
            return np.asarray(pixels)
        shorter = min(height, width)
        tall, wide = size * height // shorter, size * width // shorter
        top, left = round((tall - size) / 2), round((wide - size) / 2)
        # What lies right of the square or below it is not computed; what lies left of it must be, because places
        # are counted from the picture's edge. The scales are those of the whole picture.
        rows = min(height, -(-(top + size + 2) * height // tall))
        seen = pixels[None, :rows].permute(0, 3, 1, 2)
        resized = resample(seen, [top + size, left + size], False, tall / height, wide / width)
        return np.asarray(resized[0].permute(1, 2, 0)[top:, left:])


def have_checked(encoded: bytes) -> None:
    """Have libjpeg say on standard error what is wrong with a JPEG that was decoded by Pillow, which keeps it quiet."""
    decode, _, torch = _torch()
    with torch.inference_mode(), suppress(RuntimeError):  # of a kind that torchvision's decoder does not know
        decode(encoded)


@contextmanager
def complaints() -> Iterator[Callable[[], str]]:
    """Within it, libjpeg's warnings are caught; the function it gives answers with those since it was last asked.

    libjpeg decodes damaged data as well as it can and says so on the process's standard error, and only there. So
    file descriptor 2 leads to a file for so long; what nobody asked for is written to the true one at the end. There
    is one such descriptor in a process, so threads take turns.
    """
    with _turn, tempfile.TemporaryFile() as file:
        standard_error = os.dup(2)
        os.dup2(file.fileno(), 2)
        seen = 0

        def news() -> str:
            nonlocal seen
            if os.lseek(2, 0, os.SEEK_END) == seen:
                return ""
            content = os.pread(2, 1000, seen)
            seen = os.lseek(2, 0, os.SEEK_END)
            return " ".join(content.decode(errors="replace").split())

        try:
            yield news
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if unheard := os.pread(file.fileno(), 100_000, seen):
                os.write(2, unheard)


@cache
def _torch() -> tuple[Callable[[bytes], Any], Any, Any]:
    """The decoder, the resampler and torch: here, because they take seconds to import."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once: the bytes cannot be written to. They are not
        torch.frombuffer(b"\0", dtype=torch.uint8)

    def decode(encoded: bytes) -> Any:
        # The operator itself: the function around it warns at every call that TorchCodec will follow it.
        return torch.ops.image.decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), RGB, False)

    def decode_with_pillow(encoded: bytes) -> Any:  # the same pixels, and a sixth slower
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as picture:
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)

    decoder = decode if _load_decoder(torch) else decode_with_pillow
    return decoder, torch.ops.aten._upsample_bilinear2d_aa, torch


def _load_decoder(torch: Any) -> bool:
    """Is torchvision's decoder there? Its library is loaded alone, because all of torchvision takes a second more."""
    found = find_spec("torchvision")
    for folder in (found and found.submodule_search_locations) or ():
        for library in Path(folder).glob("image*.so"):
            with suppress(OSError):
                torch.ops.load_library(library)
    return hasattr(torch.ops.image, "decode_jpeg")
