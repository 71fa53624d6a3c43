"""Settings of a baseline's run, and the command line that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.paper.baselines import RECIPE, Method, find_method
from repro.records.file_names import run_name


@dataclass(frozen=True)
class BaselineSettings:
    """What the user chooses about a baseline's run.

    Attributes:
        variant: name of the method (`repro list variants`).
        scale: "paper", "small" or "smoke".
        seed: seed of the vocabulary's sample and initial values, and of the order of the images.
    """

    variant: str
    scale: str = "small"
    seed: int = 0

    @property
    def method(self) -> Method:
        """The method at this scale. Raises ReproError for unknown names."""
        return find_method(self.variant, self.scale)

    @property
    def run_name(self) -> str:
        """Name of the run's folder."""
        return run_name(self.variant, RECIPE, self.scale, [self.seed])

    def to_argv(self, data: Path, out: Path, launcher: Sequence[str] = ("repro",)) -> list[str]:
        """Return the words of the command line that trains this run on the store `data`, in a folder below `out`."""
        options = {
            "--variant": self.variant, "--scale": self.scale, "--seed": self.seed, "--data": data, "--out": out,
        }  # fmt: skip
        return [*launcher, "train", *(str(word) for pair in options.items() for word in pair)]
