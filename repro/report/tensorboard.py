"""Export of the training curves to TensorBoard, from the logs; needs the package tensorboard, but not torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from repro import atomic
from repro.errors import ReproError
from repro.records.runs import Run

CURVES = {
    "loss/train": "train_loss",
    "top1_error/train": "train_top1_error",
    "top1_error/val": "val_top1_error",
    "top5_error/val": "val_top5_error",
    "lr": "lr",
    "images_per_second": "images_per_second",
}


def export(runs: Iterable[Run], out: Path) -> int:
    """Write the epochs of each run into `out`/<run>, replacing an earlier export; return the number of runs.

    It can be repeated while a run is in progress. Raises ReproError if the package is not installed, or if a folder
    cannot be created.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise ReproError("the package tensorboard is not installed: pip install tensorboard") from None
    count = 0
    for run in runs:
        folder = out / run.name
        atomic.make_folder(folder, parents=True)
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        writer = EventFileWriter(str(folder))
        clock = _started(run)
        for epoch in run.log:
            clock += epoch.seconds if math.isfinite(epoch.seconds) else 0.0
            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, name in CURVES.items()
                if math.isfinite(value := getattr(epoch, name))
            ]
            writer.add_event(Event(wall_time=clock, step=epoch.epoch, summary=Summary(value=values)))
        writer.close()
        count += 1
    return count


def _started(run: Run) -> float:
    """Return the time of the run's start in seconds since 1970; 0 if it is not recorded."""
    try:
        return datetime.fromisoformat(run.started).timestamp()
    except ValueError:
        return 0.0
