"""CIFAR-10: 50,000 training and 10,000 test images of 32×32 in ten classes.

No validation images are held out: the paper's claims on CIFAR-10 are the training error on all 50,000 (Fig. 1)
and the test error (Sec. 3.3).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.preparation.sources.folder import list_images
from repro.preparation.sources.source import ImageReference, OnFile, Source, check_counts, file_identity, ignore_file

IMAGES = DATASET_SIZES["cifar10"].images
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


@dataclass(frozen=True, slots=True)
class CifarReference:
    """One row of a batch file."""

    batch: str
    row: int
    name: str
    label: int

    def identity(self) -> str:
        """Return path, size and modification time of the batch, and the row."""
        return f"{file_identity(self.batch)} {self.row}"

    def read(self) -> NDArray[np.uint8]:
        """RGB pixels, uint8 [32, 32, 3]."""
        planes: NDArray[np.uint8] = _read_batch(self.batch)["data"][self.row].reshape(3, 32, 32)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


def cifar10(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List CIFAR-10 in its canonical batches or as `train/` and `test/` folders of classes.

    Without a path it is downloaded through torchvision into the user's cache, once. Raises ReproError; if there are
    more or fewer images than there should be, that is among the problems.
    """
    path = download() if path is None else path
    if not path.is_dir():
        raise ReproError(f"no such folder: '{path}'")
    batches = path / FOLDER if (path / FOLDER).is_dir() else path
    if not (batches / "batches.meta").exists() and (path / "train").is_dir():
        return check_counts(list_images(path, on_file=on_file), IMAGES)

    classes = tuple(ClassInfo(name, name) for name in _class_names(batches / "batches.meta"))
    splits: dict[str, list[ImageReference]] = {split: [] for split in BATCHES}
    for split, files in BATCHES.items():
        for file in files:
            batch = _read_batch(str(batches / file))
            if max(batch["labels"]) >= len(classes):
                raise ReproError(f"'{batches / file}' has label {max(batch['labels'])} of {len(classes)} classes")
            splits[split] += [
                CifarReference(str(batches / file), row, f"{file}/{row:05}-{name}", label)
                for row, (label, name) in enumerate(zip(batch["labels"], batch["filenames"], strict=True))
            ]
    return check_counts(Source(classes, {**splits}), IMAGES)


def download() -> Path:
    """Download CIFAR-10 with torchvision, which checks the sums; return the folder that holds the batches."""
    # Here, because torch takes a second to import and nothing else of `prepare` needs it.
    from torchvision.datasets import CIFAR10

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "repro" / "cifar10"
    try:
        CIFAR10(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise ReproError(
            f"cannot download CIFAR-10 to '{cache}' ({error}): fetch and unpack cifar-10-python.tar.gz and "
            "name its folder with --source"
        ) from error
    return cache


def _class_names(path: Path) -> list[str]:
    names = _unpickle(path).get("label_names")
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, bytes) for name in names):
        raise ReproError(f"'{path}' is not CIFAR-10's batches.meta: it has no label_names")
    return [name.decode(errors="replace") for name in names]


@lru_cache(maxsize=2)
def _read_batch(path: str) -> dict[str, Any]:
    """`data` uint8 [n, 3072] (red, green, blue planes), `labels` and `filenames` lists of n."""
    batch = _unpickle(Path(path))
    data, labels, names = (batch.get(key) for key in ("data", "labels", "filenames"))
    rows = len(data) if isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3072,) else 0
    if not (
        rows
        and isinstance(labels, list)
        and isinstance(names, list)
        and len(labels) == len(names) == rows
        and all(isinstance(label, int) and label >= 0 for label in labels)
        and all(isinstance(name, bytes) for name in names)
    ):
        raise ReproError(f"'{path}' is not a batch of CIFAR-10: it needs data uint8 [n, 3072], n labels, n filenames")
    return {"data": data, "labels": labels, "filenames": [name.decode(errors="replace") for name in names]}


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except OSError as error:
        raise ReproError(f"cannot read '{path}' ({error.strerror}): {FOLDER} has seven files") from error
    except Exception as error:  # a damaged pickle makes the reader raise almost any type
        raise ReproError(f"'{path}' is not a file of CIFAR-10 ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise ReproError(f"'{path}' is not a file of CIFAR-10 (no dict inside): fetch it again")
    return {key.decode(errors="replace"): value for key, value in content.items() if isinstance(key, bytes)}


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays, bytes, numbers, lists and dicts; a pickle that wants to call anything else is refused."""

    _reconstruct = np.empty(0).__reduce__()[0]  # what an array's pickle calls, under the name of any NumPy

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,  # Python 3 writes bytes this way in protocol 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return allowed[module, name]  # type: ignore[return-value]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
