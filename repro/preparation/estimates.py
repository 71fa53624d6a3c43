"""Estimates of the disk space and the time that `prepare` takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from repro.errors import ReproError
from repro.formatting import file_size
from repro.preparation.preprocess import UndecodableImage, decode
from repro.preparation.sources.source import ImageReference

SAMPLE = 16  # images that are decoded to estimate the time
# Other costs of an image in a worker, measured by benchmarks/prepare.py. Resampling is proportional to decoding;
# checksums, statistics and writing are proportional to the pixels that are kept; the rest is constant.
RESAMPLING = 0.3  # of the time of decoding
SECONDS_PER_PIXEL = {"raw": 6e-9, "jpeg": 25e-9}
SECONDS_PER_IMAGE = 50e-6
STARTUP_SECONDS = 4.0  # until worker processes have started
JPEG_RATIO = 0.25  # of the bytes of the raw pixels; photographs take 0.18


def shard_bytes(images: int, size: int, encoding: str) -> int:
    """Return the disk space of a shard of `images` images of `size`×`size` pixels and its notes, in bytes."""
    values = 3 * size**2
    ratio = JPEG_RATIO if encoding == "jpeg" else 1
    return int(images * values * ratio) + 4 * values  # the notes hold a 32-bit sum for each value


def check_disk_space(folder: Path, needed: int) -> str:
    """Return a line about the free space of the disk of `folder`. Raises ReproError if there is less than `needed`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ReproError(
            f"the store needs {file_size(needed)}, and the disk of '{folder.parent}' has {file_size(free)} free: "
            "free some space, choose another disk with --out, or reduce the store with --encoding jpeg or --size"
        )
    return f"disk space: {file_size(needed)} needed, {file_size(free)} free"


def seconds_per_image(references: Sequence[ImageReference], size: int, encoding: str) -> float:
    """Return the time that a worker takes for an image, from the time of reading and decoding a sample here."""
    seconds = 0.0
    for index in np.linspace(0, len(references) - 1, SAMPLE, dtype=int).tolist():
        with suppress(OSError, UndecodableImage):
            _read_and_decode(references[index])  # the first read may load a batch of many images
            start = time.perf_counter()
            _read_and_decode(references[index])
            seconds += time.perf_counter() - start
    return seconds / SAMPLE * (1 + RESAMPLING) + size**2 * SECONDS_PER_PIXEL[encoding] + SECONDS_PER_IMAGE


def _read_and_decode(reference: ImageReference) -> None:
    image = reference.read()
    if isinstance(image, bytes):
        decode(image)
