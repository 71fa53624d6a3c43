import pickle
from pathlib import Path

import numpy as np
import pytest

from repro.errors import ReproError
from repro.preparation.preprocess import to_square
from repro.preparation.sources.synthetic import CLASSES, SyntheticReference, synthetic


def test_images_are_a_function_of_seed_split_label_and_index() -> None:
    source = synthetic(None, 0)
    assert {split: len(references) for split, references in source.splits.items()} == {
        "train": 3000,
        "val": 600,
        "test": 600,
    }
    everything = [reference.name for references in source.splits.values() for reference in references]
    assert len(set(everything)) == 4200
    reference = source.splits["train"][17]
    assert pickle.loads(pickle.dumps(reference)).read() == reference.read()
    variants = {SyntheticReference(seed, split, 17, 0).read() for seed in (0, 1) for split in ("train", "val")}
    assert len(variants) == 4
    with pytest.raises(ReproError, match="leave out --source"):
        synthetic(Path("images"), 0)


def test_images_differ_in_size_and_shape() -> None:
    squares = {}
    for label in range(len(CLASSES)):
        for index in range(5):
            encoded = SyntheticReference(0, "train", index, label).read()
            assert encoded.startswith(b"\xff\xd8")
            squares[label, index] = to_square(encoded, 64)
    assert len({square.tobytes() for square in squares.values()}) == 50


def wave_direction(square: np.ndarray) -> tuple[float, float]:
    """Return angle (0–90 degrees from horizontal, mirror images alike) and frequency of the strongest wave."""
    grey = square.astype(float).sum(axis=2)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean()))
    rows, columns = np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64), indexing="ij")
    spectrum[np.hypot(rows, columns) < 3] = 0  # the slope of the background
    peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
    row, column = abs(rows[peak]), abs(columns[peak])
    return float(np.rad2deg(np.arctan2(row, column))), float(np.hypot(row, column))


def test_gratings_have_the_orientation_and_frequency_of_their_class() -> None:
    """Measured in the Fourier spectrum of the prepared pixels, mirrored too, by majority: contrast may be faint."""
    for label, name in enumerate(CLASSES[:6]):
        right = 0
        for index in range(12):
            square = to_square(SyntheticReference(0, "val", index, label).read(), 64)
            for image in (square, square[:, ::-1]):
                angle, frequency = wave_direction(image)
                orientation = "horizontal" if angle > 67 else "vertical" if angle < 23 else "diagonal"
                right += name == f"{orientation}-{'fine' if frequency > 8 else 'coarse'}"
        assert right >= 20, name
