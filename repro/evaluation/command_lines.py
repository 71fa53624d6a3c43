"""Command lines of evaluations, retrievals and activations: those that records hold and that workflows run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro import formatting


def evaluate_argv(
    runs: Sequence[Path], data: Path, split: str, views: int, search_weights: bool = False
) -> tuple[str, ...]:
    """Return the words after `repro` that evaluate a run, or the average of several, on a split of the store `data`."""
    words = ("evaluate", *map(str, runs), "--data", str(data), "--split", split, "--views", str(views))
    return (*words, "--search-weights") if search_weights else words


def retrieve_argv(run: Path, data: Path, split: str) -> tuple[str, ...]:
    """Return the words after `repro` that retrieve the nearest training images of a split of the store `data`."""
    return ("retrieve", str(run), "--data", str(data), "--split", split)


def activations_argv(run: Path, data: Path, split: str, untrained: bool = False) -> tuple[str, ...]:
    """Return the words after `repro` that measure a net's activations on a split of the store `data`."""
    words = ("activations", str(run), "--data", str(data), "--split", split)
    return (*words, "--untrained") if untrained else words


def command_line(argv: Sequence[str]) -> str:
    """Return the command line of the words after `repro`, as it is typed in the system's shell."""
    return formatting.command_line(("repro", *argv))
