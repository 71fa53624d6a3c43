"""Which commands lead to a result, in order; each can be typed by hand, and one that is done is skipped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One command, as words after `repro`, and the file that exists once it is done."""

    words: tuple[str, ...]
    result: Path | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.result is not None and self.result.exists()

    def __str__(self) -> str:
        return shlex.join(("repro", *self.words))


def demo(out: Path) -> Sequence[Stage]:
    """Everything on the built-in data: both recipes, one view and ten, and the report."""
    store, runs = out / "store", out / "runs"
    stages = [Stage(("prepare", "synthetic", "--out", str(store)), store / "manifest.json")]
    for recipe in ("authors", "paper"):
        run = runs / f"alexnet-{recipe}-smoke-seed0"
        choice = ("--variant", "alexnet", "--recipe", recipe, "--scale", "smoke", "--epochs", "20")
        place = ("--data", str(store), "--out", str(runs), "--resume")
        stages.append(Stage(("train", *choice, *place), run / "weights.safetensors"))
        for views in (1, 10):
            words = ("evaluate", str(run), "--data", str(store), "--split", "test", "--views", str(views))
            stages.append(Stage(words, run / f"evaluation-test-{views}.json"))
    return [*stages, Stage(("report", "--runs", str(runs), "--out", str(out / "report"), "--compare"))]
