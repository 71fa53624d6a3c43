"""The records that runs leave behind, read leniently: what is damaged is left out and named, never fatal.

Reads `run.json`, `log.jsonl`, `weights.safetensors`, `evaluation-*.json`, `predictions-*.npz` and `retrieval-*`,
also while the run that writes them is still going on.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file

FORMAT = 1

# With fewer training images than this a store holds only a part of the data set, whatever its name says.
WHOLE = {"ilsvrc2010": 1_100_000, "ilsvrc2012": 1_100_000, "fall2009": 4_000_000, "cifar10": 40_000}


@dataclass(frozen=True)
class Data:
    """The images that a run was trained on, or an evaluation is about; the same if the fingerprint is."""

    dataset: str
    fingerprint: str
    name: str = field(compare=False)
    size: int = field(compare=False)
    classes: tuple[str, ...] = field(compare=False)
    images: Mapping[str, int] = field(compare=False)

    @property
    def scope(self) -> str:
        """The data set's name, marked if only a part of it is in the store."""
        train = self.images.get("train")
        partial = train is not None and train < WHOLE.get(self.dataset, 0)
        return f"a part of {self.dataset}" if partial else self.dataset

    @property
    def label(self) -> str:
        """What readers know the data by."""
        if self.dataset == "folder":
            return self.name or "a folder of images"
        return "the built-in synthetic images" if self.dataset == "synthetic" else self.scope

    @property
    def description(self) -> str:
        """The label with the number of classes, where it is known."""
        return f"{self.label} ({len(self.classes):,} classes)" if self.classes else self.label


@dataclass(frozen=True)
class Epoch:
    """One line of a log; errors in percent, NaN where the line has no finite number."""

    epoch: int
    lr: float
    train_loss: float
    train_top1_error: float
    val_top1_error: float
    val_top5_error: float
    seconds: float
    images_per_second: float
    note: str


@dataclass(frozen=True)
class Run:
    """One training run: its `run.json` and its log so far.

    `lr`: the rate that it began with, NaN if not recorded. `init_from`: it began with another run's weights.
    """

    folder: Path
    name: str
    variant: str
    recipe: str
    scale: str
    seed: int
    epochs: int
    data: Data
    devices: tuple[str, ...]
    precision: str
    lr: float
    init_from: bool
    versions: Mapping[str, str] = field(hash=False)
    machine: Mapping[str, Any] = field(hash=False)
    git_revision: str
    command: str
    started: str
    log: tuple[Epoch, ...]

    @property
    def finished(self) -> bool:
        """True once the trained weights are there."""
        return self.weights_path.is_file()

    @property
    def weights_path(self) -> Path:
        """Where the weights are, or will be."""
        return self.folder / "weights.safetensors"

    def conv1(self) -> np.ndarray | None:
        """conv1's kernels, [kernels ≥ 2, 3, height, width] float32; None if there are no readable, finite ones."""
        try:
            weights = load_file(self.weights_path).get("conv1.weight")
        except (OSError, ValueError, safetensors.SafetensorError):
            return None
        if weights is None or weights.ndim != 4 or len(weights) < 2 or weights.shape[1] != 3:
            return None
        return weights if np.isfinite(weights).all() else None


@dataclass(frozen=True)
class Evaluation:
    """The errors of a run, or of the average of several, on one split with one or ten views.

    `weights`: those of an average whose weights were searched, and `weights_selected_on` the split that they were
    searched on; both empty for equal weights.
    """

    folder: Path
    runs: tuple[str, ...]
    variant: str
    recipe: str
    scale: str
    seeds: tuple[int, ...]
    data: Data
    split: str
    views: int
    images: int
    top1_error: float
    top5_error: float
    predictions_file: str
    command: str
    weights: tuple[float, ...] = ()
    weights_selected_on: str = ""

    def error(self, metric: str) -> float:
        """`top1_error` or `top5_error`, in percent; NaN if the record has no finite one."""
        return self.top1_error if metric == "top1_error" else self.top5_error

    def wrong(self, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """For each image its label and whether the answer is wrong; None if the predictions cannot be read."""
        try:
            with (self.folder / self.predictions_file).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                labels, guesses = arrays["labels"], arrays["top5"]
            guesses = guesses[:, :1] if metric == "top1_error" else guesses[:, :5]
            return labels, (guesses != labels[:, None]).all(axis=1)
        except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
            return None


@dataclass(frozen=True)
class Retrieval:
    """The nearest training images of each image of a split, as one run sees them (Sec. 6.1).

    `precision` by space (fc7, pixels, codes) and `overlap` of fc7 with pixels: percent, with their intervals.
    """

    folder: Path
    run: str
    variant: str
    recipe: str
    scale: str
    seed: int
    data: Data
    split: str
    images: int
    searched: int
    bits: int
    precision: Mapping[str, tuple[float, tuple[float, float]]] = field(hash=False)
    precision_at_random: float
    overlap: tuple[float, tuple[float, float]]
    seconds: Mapping[str, float] = field(hash=False)
    arrays_file: str
    command: str

    def arrays(self) -> dict[str, np.ndarray] | None:
        """Figure 4's examples, by the names of `retrieval-<split>.npz`; None if they cannot be read."""
        try:
            with (self.folder / self.arrays_file).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in EXAMPLES}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None


EXAMPLES = (
    "labelled_labels", "labelled_top5", "labelled_probabilities", "labelled_images", "query_labels", "query_images",
    "query_fc7_images", "query_fc7_labels", "query_pixels_images", "query_pixels_labels",
)  # fmt: skip


@dataclass(frozen=True)
class Records:
    """All that was found in a folder of runs; `problems` names what was left out and why, a line each."""

    runs: tuple[Run, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    problems: tuple[str, ...] = ()

    def members(self, evaluation: Evaluation) -> list[Run]:
        """The runs that an evaluation is of, as far as their records are there."""
        folders = (evaluation.folder.parent / name for name in evaluation.runs)
        return [self._by_folder[folder] for folder in folders if folder in self._by_folder]

    @cached_property
    def _by_folder(self) -> dict[Path, Run]:
        return {run.folder: run for run in self.runs}


def read_records(runs_dir: Path) -> Records:
    """Every run and evaluation below `runs_dir`; a folder that does not exist holds none."""
    runs: list[Run] = []
    evaluations: list[Evaluation] = []
    retrievals: list[Retrieval] = []
    problems: list[str] = []
    if not runs_dir.is_dir():
        return Records(problems=(f"there is no folder {runs_dir}",))
    for path in sorted(runs_dir.rglob("*.json")):
        kind = "run" if path.name == "run.json" else path.name.partition("-")[0]
        kind = kind if kind in ("run", "evaluation", "retrieval") else ""
        if not kind or "checkpoints" in path.parts:
            continue
        where = path.relative_to(runs_dir).as_posix()
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}")
            if kind == "run":
                runs.append(_run(path.parent, path.parent.relative_to(runs_dir).as_posix(), content))
            elif kind == "retrieval":
                retrievals.append(_retrieval(path.parent, content))
            else:
                evaluations.append(_evaluation(path.parent, content))
        except KeyError as error:
            problems.append(f"{where} was left out: it has no {error}")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            problems.append(f"{where} was left out: {error}")
    for run in runs:
        if run.log and not math.isfinite(run.log[-1].train_loss):
            problems.append(f"{run.name}: the loss is no finite number any more after epoch {_last_finite(run)}")
    return Records(tuple(runs), tuple(evaluations), tuple(retrievals), tuple(problems))


def _last_finite(run: Run) -> int:
    return max((epoch.epoch for epoch in run.log if math.isfinite(epoch.train_loss)), default=0)


def _run(folder: Path, name: str, content: dict[str, Any]) -> Run:
    return Run(
        folder=folder,
        name=name,
        variant=str(content["variant"]),
        recipe=str(content["recipe"]),
        scale=str(content["scale"]),
        seed=int(content["seed"]),
        epochs=int(content["epochs"]),
        data=_data(content["data"]),
        devices=tuple(map(str, content.get("devices") or ())),
        precision=str(content.get("precision", "")),
        lr=_number((content.get("settings") or {}).get("lr")),
        init_from=bool(content.get("init_from")),
        versions=dict(content.get("versions") or {}),
        machine=dict(content.get("machine") or {}),
        git_revision=str(content.get("git_revision") or ""),
        command=str(content.get("command", "")),
        started=str(content.get("started", "")),
        log=tuple(_log(folder / "log.jsonl")),
    )


def _evaluation(folder: Path, content: dict[str, Any]) -> Evaluation:
    return Evaluation(
        folder=folder,
        runs=tuple(map(str, content["runs"])),
        variant=str(content["variant"]),
        recipe=str(content["recipe"]),
        scale=str(content["scale"]),
        seeds=tuple(int(seed) for seed in content["seeds"]),
        data=_data(content["data"]),
        split=str(content["split"]),
        views=int(content["views"]),
        images=int(content["images"]),
        top1_error=_number(content["top1_error"]),
        top5_error=_number(content["top5_error"]),
        predictions_file=Path(str(content.get("predictions", "missing"))).name,
        command=str(content.get("command", "")),
        weights=tuple(map(float, content.get("weights") or ())),
        weights_selected_on=str(content["weights_selected_on"]) if content.get("weights") else "",
    )


def _retrieval(folder: Path, content: dict[str, Any]) -> Retrieval:
    return Retrieval(
        folder=folder,
        run=str(content["run"]),
        variant=str(content["variant"]),
        recipe=str(content["recipe"]),
        scale=str(content["scale"]),
        seed=int(content["seed"]),
        data=_data(content["data"]),
        split=str(content["split"]),
        images=int(content["images"]),
        searched=int(content["searched"]),
        bits=int(content["bits"]),
        precision={name: _percent(content["precision"][name]) for name in ("fc7", "pixels", "codes")},
        precision_at_random=_number(content.get("precision_at_random")),
        overlap=_percent(content["overlap"]),
        seconds={name: _number(content["seconds_per_query"][name]) for name in ("fc7", "pixels", "codes")},
        arrays_file=Path(str(content.get("arrays", "missing"))).name,
        command=str(content.get("command", "")),
    )


def _percent(content: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    low, high = content["interval"]
    return _number(content["value"]), (_number(low), _number(high))


def _data(content: dict[str, Any]) -> Data:
    classes = content.get("classes") or ()
    return Data(
        dataset=str(content["dataset"]),
        fingerprint=str(content.get("fingerprint") or ""),
        name=str(content.get("name") or ""),
        size=int(content.get("size") or 0),
        classes=tuple(str(each.get("name") or each.get("id") or "") for each in classes),
        images={str(split): int(images) for split, images in (content.get("images") or {}).items()},
    )


def _log(path: Path) -> Iterator[Epoch]:
    """The epochs of a log in order, each once: of an epoch that was done again, the last line counts."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    epochs: dict[int, Epoch] = {}
    for line in lines:
        try:
            content = json.loads(line)
            number = int(content["epoch"])
        except (ValueError, KeyError, TypeError):
            continue  # half-written, by a run that goes on or was killed
        numbers = {
            name: _number(content.get(name)) for name in Epoch.__dataclass_fields__ if name not in ("epoch", "note")
        }
        epochs[number] = Epoch(epoch=number, **numbers, note=str(content.get("note") or ""))
    yield from (epochs[number] for number in sorted(epochs))


def _number(value: object) -> float:
    """A finite float, or NaN for all else: null, a word, an infinite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return math.nan
