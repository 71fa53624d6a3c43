"""Reproduces the AlexNet paper: Krizhevsky, Sutskever and Hinton, NIPS 2012."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from repro.evaluation.trained_model import TrainedModel
    from repro.models.network import AlexNet
    from repro.report.frames import RecordFrames

__version__ = "0.1.0"
__all__ = ["build_model", "load_records", "open_run"]


def build_model(variant: str = "alexnet", recipe: str = "authors", num_classes: int = 1000) -> AlexNet:
    """A net of the paper at its full size, freshly initialised; see `repro.models.network.build_model`."""
    # Not at the top: torch takes seconds to import, and `repro --help` does not need it.
    from repro.models.network import build_model

    return build_model(variant, recipe, num_classes)


def load_records(*folders: str | Path) -> RecordFrames:
    """Return the records of all runs below the `folders` as pandas DataFrames; see `repro.report.frames`."""
    from repro.report.frames import load_records

    return load_records(*folders)


def open_run(path: str | Path, devices: str | None = None) -> TrainedModel:
    """Open a finished run, ready to classify images; see `repro.evaluation.trained_model.open_run`."""
    from repro.evaluation.trained_model import open_run

    return open_run(path, devices)
