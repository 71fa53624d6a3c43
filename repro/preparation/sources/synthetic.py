"""The built-in dataset: generated JPEGs of many sizes in ten classes that require learned filters to tell apart.

Six classes are gratings: horizontal, vertical or diagonal, coarse or fine, of any two colours. One is a plaid of
horizontal and vertical stripes. Three are round blobs that differ in colour alone: red and green, blue and
yellow, dark and bright. A mirror image keeps its class, because training flips images horizontally (Sec. 4.1):
diagonals of both directions are one class.

Phase, position, contrast, colours, background, lighting, noise, size and shape are independent of the class, and each
image contains a smaller patch of another class as a distractor. A ridge classifier on the pixels has 62% error on val
(chance: 90%), a network of three convolutions 4% after ten epochs. It learns oriented, frequency-selective and
coloured filters, as in Figure 3.

An image is a function of (seed, split, label, index).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repro.data.store import SPLITS, ClassInfo
from repro.errors import ReproError
from repro.preparation.sources.source import OnFile, Source, ignore_file

CLASSES = (
    "horizontal-coarse",
    "horizontal-fine",
    "vertical-coarse",
    "vertical-fine",
    "diagonal-coarse",
    "diagonal-fine",
    "plaid",
    "red-green",
    "blue-yellow",
    "dark-bright",
)
IMAGES_PER_CLASS = {"train": 300, "val": 60, "test": 60}
ANGLES = {"horizontal": 90.0, "vertical": 0.0, "diagonal": 45.0}  # of the wave's direction, degrees
WAVES = {"coarse": (4.5, 6.5), "fine": (10.0, 14.0)}  # along the shorter side
Pixels: TypeAlias = NDArray[np.float32]
Opponents = tuple[tuple[int, int, int], tuple[int, int, int]]
OPPONENTS: dict[str, Opponents] = {  # RGB of the two kinds of blobs, added to the background; zero on average
    "red-green": ((85, -55, -20), (-85, 55, 20)),
    "blue-yellow": ((-45, -40, 95), (45, 40, -95)),
    "dark-bright": ((-75, -75, -75), (75, 75, 75)),
}


@dataclass(frozen=True, slots=True)
class SyntheticReference:
    """One image, drawn on reading."""

    seed: int
    split: str
    index: int
    label: int

    @property
    def name(self) -> str:
        """For example train/plaid/00012.jpg."""
        return f"{self.split}/{CLASSES[self.label]}/{self.index:05}.jpg"

    def identity(self) -> str:
        """Return what the image is drawn from."""
        return f"synthetic {self.seed} {self.split} {self.label} {self.index}"

    def read(self) -> bytes:
        """Draw the image and encode it as JPEG."""
        random = np.random.default_rng([self.seed, SPLITS.index(self.split), self.label, self.index])
        image = Image.fromarray(draw(self.label, random))
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=int(random.integers(80, 96)))
        return encoded.getvalue()


def synthetic(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List the images to draw: 300 per class for train, 60 each for val and test."""
    if path is not None:
        raise ReproError(f"dataset 'synthetic' is generated: leave out --source {path}")
    return Source(
        tuple(ClassInfo(name, name.replace("-", " ")) for name in CLASSES),
        {
            split: [
                SyntheticReference(seed, split, index, label) for label in range(len(CLASSES)) for index in range(count)
            ]
            for split, count in IMAGES_PER_CLASS.items()
        },
    )


def draw(label: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an image of a class, uint8 [H, W, 3]; the shorter side has 64 to 128 pixels, the longer up to twice that."""
    shorter = int(random.integers(64, 129))
    longer = int(shorter * random.uniform(1, 2))
    height, width = (shorter, longer) if random.random() < 0.5 else (longer, shorter)
    # Coordinates in units of the shorter side, 0 at the centre: what is within ±0.5 survives the central crop.
    y = ((np.arange(height) - height / 2) / shorter).astype(np.float32)[:, None]
    x = ((np.arange(width) - width / 2) / shorter).astype(np.float32)[None, :]

    # A background of one colour, lit from one side.
    image = _along(random.uniform(0, 360), x, y)[..., None] * _colour(random.normal(0, 25, 3))
    image += _colour(random.uniform(70, 185, 3))

    column, row = random.uniform(-0.15, 0.15, 2)
    _add_patch(image, label, x, y, column, row, random.uniform(0.32, 0.5), random)
    distractor = (label + int(random.integers(1, len(CLASSES)))) % len(CLASSES)
    direction = random.uniform(0, 2 * np.pi)
    column, row = column + 0.42 * np.cos(direction), row + 0.42 * np.sin(direction)
    _add_patch(image, distractor, x, y, column, row, random.uniform(0.1, 0.16), random)

    image += random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(2, 16))
    pixels: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return pixels


def _add_patch(
    image: Pixels,
    label: int,
    x: Pixels,
    y: Pixels,
    column: float,
    row: float,
    radius: float,
    random: np.random.Generator,
) -> None:
    """Add a round patch of a class's texture, fading at its edge, to the image."""
    rows, columns = abs(y[:, 0] - row) < radius, abs(x[0] - column) < radius
    x, y = x[:, columns], y[rows]
    distance = np.hypot(x - np.float32(column), y - np.float32(row))
    share = np.clip((radius - distance) / (0.25 * radius), 0, 1)
    image[np.ix_(rows, columns)] += share[..., None] * _texture(CLASSES[label], x, y, random)


def _texture(name: str, x: Pixels, y: Pixels, random: np.random.Generator) -> Pixels:
    """Return a texture as differences from the background, float32 [H, W, 3]."""
    if name in OPPONENTS:
        return _blobs(OPPONENTS[name], x, y, random)
    if name == "plaid":
        frequency = random.uniform(5, 13)
        wave = (_wave(0, frequency, x, y, random) + _wave(90, frequency, x, y, random)) / np.float32(2)
    else:
        orientation, _, fineness = name.partition("-")
        angle = random.choice([-1, 1]) * ANGLES[orientation] + random.uniform(-8, 8)
        wave = _wave(angle, random.uniform(*WAVES[fineness]), x, y, random)
    # Light and dark stripes, tinted by any colour.
    return wave[..., None] * _colour(random.uniform(12, 60) + random.normal(0, 20, 3))


def _wave(angle: float, frequency: float, x: Pixels, y: Pixels, random: np.random.Generator) -> Pixels:
    phase = random.uniform(0, 2 * np.pi)
    wave: Pixels = np.sin(np.float32(2 * np.pi * frequency) * _along(angle, x, y) + np.float32(phase))
    return wave


def _blobs(colours: Opponents, x: Pixels, y: Pixels, random: np.random.Generator) -> Pixels:
    """Return sixteen round blobs at random positions, eight of each of two colours."""
    columns, rows = random.uniform(-0.5, 0.5, (2, 16, 1)).astype(np.float32)
    widths = random.uniform(0.05, 0.1, (16, 1)).astype(np.float32)
    tints = random.uniform(0.6, 1.2) * (np.tile(colours, (8, 1)) + random.normal(0, 15, (16, 3)))
    across = np.exp(-(((x - columns) / widths) ** 2))  # [16, W]
    down = np.exp(-(((y.T - rows) / widths) ** 2))  # [16, H]
    # The sum over blobs of down × across × tint, as one product of matrices.
    blobs: Pixels = down.T @ (across[..., None] * _colour(tints)[:, None]).reshape(16, -1)
    return blobs.reshape(y.size, x.size, 3)


def _along(angle: float, x: Pixels, y: Pixels) -> Pixels:
    """Return the distance from the centre in a direction given in degrees, float32 [H, W]."""
    radians = np.deg2rad(angle)
    return np.float32(np.cos(radians)) * x + np.float32(np.sin(radians)) * y


def _colour(values: NDArray[np.float64]) -> Pixels:
    return values.astype(np.float32)
