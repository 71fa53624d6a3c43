"""Write the records of runs, evaluations and retrievals with invented but plausible contents.

In each function `changes` are JSON values that replace those of the record, of which some may be invalid.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from repro.paper.experiments import GRIDS
from repro.records.file_names import (
    LOG,
    RUN,
    WEIGHTS,
    evaluation_name,
    predictions_name,
    retrieval_arrays_name,
    retrieval_name,
    run_name,
)
from repro.records.schema import (
    ClassRecord,
    DataRecord,
    EndRecord,
    EpochRecord,
    Estimate,
    EvaluationRecord,
    MachineRecord,
    Record,
    RetrievalRecord,
    RunRecord,
)
from repro.records.writing import to_json

TEN = ["tench", "springer", "cassette player", "chain saw", "church", "horn", "truck", "gas pump", "golf ball", "chute"]


def data_record(
    dataset: str = "folder", name: str = "ten classes", classes: list[str] = TEN, **images: int
) -> DataRecord:
    return DataRecord(
        dataset=dataset,
        name=name,
        path="stores/ten",
        fingerprint=f"{dataset}-{name}",
        size=128,
        classes=tuple(ClassRecord(f"n{index:08}", name) for index, name in enumerate(classes)),
        images=images or {"train": 9000, "val": 2000},
    )


def write_json(path: Path, record: Record, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(to_json(record) | changes), encoding="utf-8")


def epoch_record(number: int = 1, **changes: object) -> EpochRecord:
    """Return a line of a log, as of a training without validation images, with `changes`."""
    values = {"lr": 0.1, "train_loss": 1.0, "train_top1_error": 5.0, "seconds": 1.0, "images_per_second": 9.0}
    return EpochRecord(epoch=number, **values | changes)  # type: ignore[arg-type]


def write_log(path: Path, epochs: list[EpochRecord]) -> None:
    path.write_text("".join(json.dumps(to_json(epoch)) + "\n" for epoch in epochs), encoding="utf-8")


def write_run(
    folder: Path,
    variant: str = "alexnet",
    recipe: str = "authors",
    scale: str = "small",
    seed: int = 0,
    *,
    epochs: int = 30,
    done: int | None = None,
    data: DataRecord | None = None,
    stall: int = 0,
    level: float = 25.0,
    overfit: float = 0.0,
    weights: bool = True,
    **changes: Any,
) -> Path:
    """A run that stays at chance for `stall` epochs and then falls towards `level` percent of validation error."""
    data = data or data_record()
    path = folder / run_name(variant, recipe, scale, [seed])
    path.mkdir(parents=True)
    record = RunRecord(
        variant=variant,
        recipe=recipe,
        scale=scale,
        seed=seed,
        epochs=epochs,
        precision="fp32",
        devices=("cpu",),
        input_size=112,
        data=data,
        versions={"repro": "0.1.0", "torch": "2.9"},
        machine=MachineRecord("Linux", "x86_64", "AVX2", 2),
        git_revision="0123456789abcdef",
        command=f"repro train --variant {variant} --recipe {recipe} --seed {seed} --data stores/ten",
        started="2025-01-01T00:00:00+00:00",
        ended=EndRecord("epochs", epochs) if weights else None,
    )
    write_json(path / RUN, record, changes)
    rng = np.random.default_rng([seed, len(variant), len(recipe)])
    chance = 100 * (1 - 1 / max(len(data.classes), 2))
    lines = []
    for epoch in range(1, (epochs if done is None else done) + 1):
        learned = 1 - math.exp(-max(0, epoch - stall) / 6)
        val = chance - (chance - level) * learned + (rng.normal(0, 0.6) if learned else 0)
        lines.append(
            EpochRecord(
                epoch=epoch,
                step=70 * epoch,
                lr=0.01,
                train_loss=math.log(10) * (1 - 0.8 * learned),
                train_top1_error=val + 4 * (1 - learned) - overfit * learned,
                val_top1_error=val,
                val_top5_error=val / 4,
                seconds=14.0 + rng.normal(0, 0.2),
                images_per_second=640.0,
                note="the loss is still that of guessing" if epoch == stall else None,
            )
        )
    write_log(path / LOG, lines)
    if weights:
        save_file({"conv1.weight": made_kernels(48, seed + 10 * len(recipe))}, path / WEIGHTS)
    return path


def write_evaluation(
    folder: Path,
    variant: str = "alexnet",
    recipe: str = "authors",
    scale: str = "small",
    seeds: tuple[int, ...] = (0,),
    *,
    error: float = 25.0,
    split: str = "val",
    views: int = 10,
    images: int = 2000,
    data: DataRecord | None = None,
    predictions: bool = True,
    searched: bool = False,
    **changes: Any,
) -> Path:
    """An evaluation with `error` percent wrong; the harder images are the same for all models."""
    data = data or data_record()
    path = folder / run_name(variant, recipe, scale, seeds)
    path.mkdir(parents=True, exist_ok=True)
    classes = max(len(data.classes), 2)
    wrong = round(images * error / 100)
    record = EvaluationRecord(
        runs=tuple(run_name(variant, recipe, scale, [seed]) for seed in seeds),
        variant=variant,
        recipe=recipe,
        scale=scale,
        seeds=seeds,
        data=data,
        split=split,
        views=views,
        images=images,
        classes=classes,
        top1_error=100 * wrong / images,
        top5_error=100 * (wrong // 4) / images,
        top1_interval=(0, 100),
        top5_interval=(0, 100),
        predictions=predictions_name(split, views, searched),
        command=f"repro evaluate {path.name} --data stores/ten --split {split} --views {views}",
    )
    write_json(path / evaluation_name(split, views, searched), record, changes)
    if predictions:
        write_predictions(path / record.predictions, wrong, images, classes, seeds[0])
    return path


def write_predictions(path: Path, wrong: int, images: int, classes: int, seed: int) -> None:
    """The `wrong` hardest images get another class first; of these the hardest quarter misses the label altogether."""
    labels = np.arange(images) % classes
    difficulty = np.random.default_rng(0).random(images) + 0.1 * np.random.default_rng([seed, wrong]).random(images)
    rank = np.argsort(np.argsort(-difficulty))
    offsets = np.tile(np.arange(5), (images, 1))  # the label itself comes first
    offsets[rank < wrong] = [1, 2, 3, 4, 0]
    offsets[rank < wrong // 4] = [1, 2, 3, 4, 5]
    top5 = (labels[:, None] + offsets[:, : min(5, classes)]) % classes
    np.savez(
        path, labels=labels, top5=top5, top5_probabilities=np.zeros(top5.shape, np.float32),
        label_probabilities=np.zeros(images, np.float32),
    )  # fmt: skip


def made_kernels(count: int, seed: int = 0, size: int = 11, coloured: float = 1.0) -> np.ndarray:
    """Gabor-like kernels, grey in the first half, `coloured` in the second; [count, 3, size, size] float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    kernels = np.empty((count, 3, size, size), np.float32)
    for index in range(count):
        angle, frequency, phase = rng.uniform(0, math.pi), rng.uniform(0.5, 1.4), rng.uniform(0, 2 * math.pi)
        wave = np.cos(frequency * (x * math.cos(angle) + y * math.sin(angle)) + phase)
        blob = wave * np.exp(-(x**2 + y**2) / 14)
        tint = rng.normal(0, coloured, 3) if index >= count // 2 else np.ones(3) + rng.normal(0, 0.05, 3)
        kernels[index] = tint[:, None, None] * blob + rng.normal(0, 0.02, (3, size, size))
    return kernels


def write_retrieval(
    folder: Path, variant: str = "alexnet", recipe: str = "authors", scale: str = "small", seed: int = 0, *,
    data: DataRecord | None = None, split: str = "test", overlap: float = 3.0, **changes: Any,
) -> Path:  # fmt: skip
    """A retrieval in a run's folder, its pictures plain noise."""
    data = data or data_record()
    path = folder / run_name(variant, recipe, scale, [seed])
    path.mkdir(parents=True, exist_ok=True)
    spaces = {"fc7": 70.0, "pixels": 20.0, "codes": 65.0}
    record = RetrievalRecord(
        run=path.name,
        variant=variant,
        recipe=recipe,
        scale=scale,
        seed=seed,
        data=data,
        split=split,
        images=2000,
        searched=9000,
        neighbours=6,
        activations=2048,
        bits=64,
        precision={name: Estimate(value, (value - 1, value + 1)) for name, value in spaces.items()},
        precision_at_random=10.0,
        overlap=Estimate(overlap, (overlap - 0.5, overlap + 0.5)),
        seconds_per_query={"fc7": 2e-3, "pixels": 3e-2, "codes": 1e-4},
        arrays=retrieval_arrays_name(split),
        command=f"repro retrieve {path.name} --data stores/ten --split {split}",
    )
    write_json(path / retrieval_name(split), record, changes)
    rng = np.random.default_rng(seed)
    pictures = {"labelled": (8,), "query": (5,), "query_fc7": (5, 6), "query_pixels": (5, 6)}
    arrays = {
        f"{name}_images": rng.integers(0, 256, (*shape, 16, 16, 3), dtype=np.uint8) for name, shape in pictures.items()
    } | {f"{name}_labels": rng.integers(0, 10, shape) for name, shape in pictures.items()}
    top5 = np.array([rng.permutation(10)[:5] for _ in range(8)])
    np.savez(
        path / record.arrays, labelled_top5=top5, **arrays,
        labelled_probabilities=np.sort(rng.dirichlet(np.ones(5), 8))[:, ::-1],
    )  # fmt: skip
    return path


CIFAR = data_record("cifar10", "", [f"class {index}" for index in range(10)], train=50_000, test=10_000)


def write_course(
    folder: Path,
    net: str,
    rate: float,
    seed: int,
    errors: list[float],
    finished: bool = True,
    epochs: int | None = None,
    recipe: str = "authors",
) -> None:
    """A run of a CIFAR-10 net, which has no validation, with these training errors."""
    length = epochs or len(errors)
    where = folder / f"{rate:g}-{seed}"
    path = write_run(
        where, net, recipe, "paper", seed, epochs=length, done=0, data=CIFAR, settings={"lr": rate}, weights=finished
    )
    epochs_ = [
        EpochRecord(
            epoch=epoch, lr=rate, train_loss=1.0, train_top1_error=error, seconds=1.0, images_per_second=50_000.0
        )
        for epoch, error in enumerate(errors, 1)
    ]
    write_log(path / LOG, epochs_)


def write_grid(folder: Path, net: str, best: float, errors: list[float]) -> None:
    """Every declared rate from seed 0: `errors` at the rate `best`, worse ones at the others."""
    for rate in GRIDS["authors"]:
        write_course(folder, net, rate, 0, errors if rate == best else [error + 12 for error in errors])
