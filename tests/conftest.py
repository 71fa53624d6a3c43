"""Fixtures that several test files share: small pictures, folders of them, prepared stores, and real images."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.data.store import Store
from repro.prepare import prepare


def picture(seed: int = 0, width: int = 40, height: int = 30, format: str = "JPEG") -> bytes:
    """An encoded smooth RGB picture that differs with the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(encoded, format)
    return encoded.getvalue()


def write_pictures(root: Path, counts: dict[str, int], format: str = "JPEG") -> Path:
    """Write `counts[folder]` pictures into each folder below root, for example {"train/cats": 3}.

    Their names end in .jpg whatever the format; with PNG, worker processes need not import torch.
    """
    for place, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").write_bytes(picture(1000 * place + number, format=format))
    return root


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The built-in data at 64 pixels, four images a class in each split."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=4)


@pytest.fixture(scope="session")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpack a set of real images by name and return its folder; skips without REPRO_TEST_DATA."""
    data = os.environ.get("REPRO_TEST_DATA")
    unpacked: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if not data:
            pytest.skip("REPRO_TEST_DATA does not name a folder of real images")
        if name not in unpacked:
            target = tmp_path_factory.mktemp(name)
            subprocess.run([sys.executable, Path(data) / "unpack.py", name, target], check=True)
            unpacked[name] = target
        return unpacked[name]

    return unpack
