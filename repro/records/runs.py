"""The records of a run, its evaluations, retrievals and activations, with the folders that hold them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from repro.errors import ReproError
from repro.records.file_names import (
    CHECKPOINT,
    CHECKPOINTS,
    CLASSIFIERS,
    CONV1,
    FEATURES,
    LOG,
    MEAN,
    WEIGHTS,
    WEIGHTS_CHECKSUM,
    WEIGHTS_OF_CONV1,
)
from repro.records.schema import NET, ActivationsRecord, EpochRecord, EvaluationRecord, RetrievalRecord, RunRecord


@dataclass(frozen=True, kw_only=True)
class Run(RunRecord):
    """A run: the contents of its `run.json`, its folder and its log so far.

    Runs of older versions did not record how they ended: `ended` is then derived from the log and the weights.

    Attributes:
        folder: the run's folder.
        name: path of the folder relative to the folder of runs.
        log: the epochs in order.
    """

    folder: Path
    name: str
    log: tuple[EpochRecord, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether training ended as planned; the weights of a run that was published may be missing."""
        return self.ended is not None

    @property
    def has_weights(self) -> bool:
        """Whether the trained weights are there."""
        return self.weights_path.is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Whether training can be resumed from a checkpoint, of a baseline from its classifiers in training."""
        return bool(self.checkpoints) or (self.folder / FEATURES / CLASSIFIERS).is_file()

    def require_net(self) -> None:
        """Raise ReproError if the run is not that of a net."""
        if self.kind != NET:
            raise ReproError(f"'{self.folder}' is a run of {self.variant}, which is no net: name the run of a net")

    def require_weights(self) -> None:
        """Raise ReproError if the run has no trained weights."""
        if self.has_weights:
            return
        if not self.finished:
            raise ReproError(f"the run '{self.folder}' is not finished: continue it with {self.command} --resume")
        missing = f"the run '{self.folder}' is finished, but its {WEIGHTS} is missing"
        if self.has_checkpoint:  # it was killed, or the disk was full, before the weights were written
            raise ReproError(f"{missing}, and a checkpoint is left: continue it with {self.command} --resume")
        raise ReproError(f"{missing}: copy it there, or train the run again with another --out: {self.command}")

    @property
    def log_path(self) -> Path:
        """Path of the log."""
        return self.folder / LOG

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def checkpoints(self) -> list[Path]:
        """JSON files of the checkpoints, the oldest first; other files in their folder are the user's."""
        return sorted(self.checkpoints_path.glob(CHECKPOINT))

    @property
    def weights_path(self) -> Path:
        """Path of the trained weights, which are written when training ends."""
        return self.folder / WEIGHTS

    @property
    def mean_path(self) -> Path:
        """Path of the mean image; runs of older versions have none."""
        return self.folder / MEAN

    @property
    def checksum_path(self) -> Path:
        """Path of the weights' checksum; runs of older versions have none."""
        return self.folder / WEIGHTS_CHECKSUM

    def conv1(self) -> np.ndarray | None:
        """Return conv1's kernels, [kernels ≥ 2, 3, height, width] float32; None if there are no finite ones."""
        path = self.weights_path if self.has_weights else self.folder / CONV1
        try:
            weights = load_file(path).get(WEIGHTS_OF_CONV1)
        except (OSError, ValueError, safetensors.SafetensorError):
            return None
        if weights is None or weights.ndim != 4 or len(weights) < 2 or weights.shape[1] != 3:
            return None
        return weights if np.isfinite(weights).all() else None


@dataclass(frozen=True, kw_only=True)
class Evaluation(EvaluationRecord):
    """An evaluation and its folder: the run's, or that of an ensemble."""

    folder: Path

    @property
    def predictions_path(self) -> Path:
        """Path of the predictions per image."""
        return self.folder / Path(self.predictions).name

    @property
    def run_folders(self) -> tuple[Path, ...]:
        """Absolute folders of the runs: the evaluation's own for a single run, folders beside it for an ensemble."""
        folder = Path(os.path.abspath(self.folder))  # absolute, because the parent of "." is "." again
        return (folder,) if len(self.runs) == 1 else tuple(folder.parent / name for name in self.runs)

    def retrained(self, runs: Mapping[Path, Run]) -> list[Run]:
        """Return those of `runs`, by absolute folder, that no longer have the weights that were evaluated.

        An older version's evaluation, or run, without checksums of the weights is not compared.
        """
        evaluated = zip(self.run_folders, self.checksums, strict=False)
        found = [(runs[folder], checksum) for folder, checksum in evaluated if folder in runs]
        return [run for run, checksum in found if run.ended is None or run.ended.weights not in ("", checksum)]

    def wrong(self, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the labels and whether each prediction is wrong, both [N]; None if they cannot be read."""
        arrays = _read_arrays(self.predictions_path, ("labels", "top5"))
        try:
            labels, guesses = arrays["labels"], arrays["top5"][:, : 1 if metric == "top1_error" else 5]
            return labels, (guesses != labels[:, None]).all(axis=1)
        except (KeyError, ValueError, IndexError):
            return None


EXAMPLES = (
    "labelled_labels", "labelled_top5", "labelled_probabilities", "labelled_images", "query_labels", "query_images",
    "query_fc7_images", "query_fc7_labels", "query_pixels_images", "query_pixels_labels",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Retrieval(RetrievalRecord):
    """A retrieval and the folder of its run."""

    folder: Path

    @property
    def arrays_path(self) -> Path:
        """Path of the neighbours and example images."""
        return self.folder / Path(self.arrays).name

    def examples(self) -> dict[str, np.ndarray] | None:
        """Return Figure 4's example images, labels and probabilities by name; None if they cannot be read."""
        return _read_arrays(self.arrays_path, EXAMPLES) or None


@dataclass(frozen=True, kw_only=True)
class Activations(ActivationsRecord):
    """The activations of a net and the folder of its run."""

    folder: Path


def by_folder(runs: Iterable[Run]) -> dict[Path, Run]:
    """Return runs by the absolute path of their folder."""
    return {Path(os.path.abspath(run.folder)): run for run in runs}


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of an `.npz` file; an empty dictionary if any of them cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
        return {}


@dataclass(frozen=True, eq=False)
class Records:
    """All records below a folder of runs; `problems` are lines that name what was left out, and why.

    Two are equal if they are the same object: what is derived from the records can be cached by them.
    """

    runs: tuple[Run, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    activations: tuple[Activations, ...] = ()
    problems: tuple[str, ...] = ()

    def members(self, evaluation: Evaluation) -> list[Run]:
        """Return the runs of an evaluation, as far as their records exist."""
        return [self._by_folder[folder] for folder in evaluation.run_folders if folder in self._by_folder]

    def origin(self, run: Run) -> Run | None:
        """Return the run whose weights another one was initialised with, if its record exists."""
        return self._by_weights.get(run.init_from.weights) if run.init_from else None

    @cached_property
    def _by_folder(self) -> dict[Path, Run]:
        return by_folder(self.runs)

    @cached_property
    def _by_weights(self) -> dict[str, Run]:
        return {run.ended.weights: run for run in self.runs if run.ended and run.ended.weights}
