"""The records as pandas DataFrames, for notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro.formatting import valid_text
from repro.records.reading import read_records
from repro.records.runs import Records
from repro.records.schema import EpochRecord
from repro.report.measurements.context import evaluation_scale, run_scale, scale_of
from repro.report.measurements.evaluations import net_name

RUN_COLUMNS = ("run", "variant", "recipe", "scale", "changes", "seed", "dataset", "data", "epochs", "epochs_done",
               "lr", "fine_tuned", "finished", "precision", "seconds", "command")  # fmt: skip
EPOCH_COLUMNS = ("run", *(field.name for field in dataclasses.fields(EpochRecord)))
EVALUATION_COLUMNS = ("net", "runs", "variant", "recipe", "scale", "changes", "seeds", "dataset", "data", "split",
                      "views", "images", "top1_error", "top5_error", "command")  # fmt: skip
RETRIEVAL_COLUMNS = ("run", "variant", "recipe", "scale", "changes", "seed", "dataset", "data", "split", "images",
                     "bits", "precision_fc7", "precision_pixels", "precision_codes", "precision_at_random",
                     "overlap")  # fmt: skip


@dataclass(frozen=True)
class RecordFrames:
    """All records below one or several folders as DataFrames. Errors and precisions are in percent.

    Attributes:
        runs: a row per run, indexed by its name: the path of its folder below the folder of runs. `changes` are the
            differences from the recipe and scale in words, empty if there are none.
        epochs: a row per run and epoch, indexed by both: the fields of `log.jsonl`.
        evaluations: a row per evaluation of a run or an ensemble.
        retrievals: a row per retrieval of nearest training images.
        problems: records that could not be read, and why, a line each.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    evaluations: pd.DataFrame
    retrievals: pd.DataFrame
    problems: tuple[str, ...]


def load_records(*folders: str | Path) -> RecordFrames:
    """Return the records of all runs below the `folders` as DataFrames; empty ones if there are none.

    Records that cannot be read are left out and named in `problems`. With several folders a run's name starts with that
    of its folder.

    >>> frames = repro.load_records("outputs/runs")
    >>> frames.epochs["val_top1_error"].unstack("run").plot()
    """
    records = read_records([Path(folder) for folder in folders])
    return RecordFrames(
        runs=_frame(_runs(records), RUN_COLUMNS).set_index("run"),
        epochs=epochs_frame(records).set_index(["run", "epoch"]),
        evaluations=_frame(_evaluations(records), EVALUATION_COLUMNS),
        retrievals=_frame(_retrievals(records), RETRIEVAL_COLUMNS),
        problems=records.problems,
    )


def epochs_frame(records: Records) -> pd.DataFrame:
    """Return the learning curves: a row per run and epoch."""
    return _frame(({"run": run.name, **vars(epoch)} for run in records.runs for epoch in run.log), EPOCH_COLUMNS)


def _frame(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    # pandas holds text as UTF-8, which names of folders need not be.
    valid = [
        {name: valid_text(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    ]
    return pd.DataFrame.from_records(valid, columns=list(names))


def _runs(records: Records) -> Iterable[dict[str, Any]]:
    for run in records.runs:
        scale = run_scale(run)
        yield {
            "run": run.name, "variant": run.variant, "recipe": run.recipe, "scale": scale.name,
            "changes": ", ".join(scale.changes), "seed": run.seed, "dataset": run.data.dataset,
            "data": run.data.description, "epochs": run.epochs, "epochs_done": len(run.log), "lr": run.lr,
            "fine_tuned": scale.fine_tuned, "finished": run.finished, "precision": run.precision,
            "seconds": sum(epoch.seconds for epoch in run.log), "command": run.command,
        }  # fmt: skip


def _evaluations(records: Records) -> Iterable[dict[str, Any]]:
    for each in records.evaluations:
        scale = evaluation_scale(records, each)
        yield {
            "net": net_name(records, each), "runs": "+".join(each.runs), "variant": each.variant,
            "recipe": each.recipe, "scale": scale.name, "changes": ", ".join(scale.changes),
            "seeds": "+".join(map(str, each.seeds)), "dataset": each.data.dataset, "data": each.data.description,
            "split": each.split, "views": each.views, "images": each.images, "top1_error": each.top1_error,
            "top5_error": each.top5_error, "command": each.command,
        }  # fmt: skip


def _retrievals(records: Records) -> Iterable[dict[str, Any]]:
    for each in records.retrievals:
        scale = scale_of(records, each)
        yield {
            "run": each.run, "variant": each.variant, "recipe": each.recipe, "scale": scale.name,
            "changes": ", ".join(scale.changes), "seed": each.seed, "dataset": each.data.dataset,
            "data": each.data.description, "split": each.split, "images": each.images, "bits": each.bits,
            **{f"precision_{space}": estimate.value for space, estimate in each.precision.items()},
            "precision_at_random": each.precision_at_random, "overlap": each.overlap.value,
        }  # fmt: skip
