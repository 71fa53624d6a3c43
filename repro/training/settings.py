"""Settings of a run, and the command line that they stand for; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.errors import ReproError
from repro.paper.variants import Configuration, configure, find_variant
from repro.records.file_names import run_name
from repro.remote import url_of

MAX_LR = 1e37  # float32 ends at 3.4e38, and recipes multiply the learning rate of some parameters


@dataclass(frozen=True)
class Settings:
    """What the user chooses about a run.

    Attributes:
        variant: name of the net (`repro list variants`).
        recipe: "authors" (the released program), "paper" (the text), or another one that the variant has.
        scale: "paper" (224-pixel crops), "small" (112) or "smoke" (56).
        seed: seed of the initial weights, the order of the images, the augmentation and dropout.
        epochs: maximum number of epochs; None for the scale's.
        lr: initial learning rate; None for the recipe's.
        devices: one device, or two for a tower on each, separated by a comma; several ranks share a longer list.
            None for a GPU if there is one.
        precision: "fp32"; "tf32" for shorter factors in the products of GPUs; "bf16" or "fp16" for mixed precision.
        init_from: finished run, or file of weights, that initialises this one; None for random weights.
        until_train_error: end training after the first epoch whose training error in percent is not higher; None
            to train until the schedule ends.
    """

    variant: str
    recipe: str = "authors"
    scale: str = "small"
    seed: int = 0
    epochs: int | None = None
    lr: float | None = None
    devices: str | None = None
    precision: str = "fp32"
    init_from: Path | None = None
    until_train_error: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and not 0 < self.lr < MAX_LR:
            raise ReproError(
                f"--lr is {self.lr}: the learning rate must be a finite number above 0 and below {MAX_LR:g}"
            )

    @property
    def fine_tuned(self) -> bool:
        """Whether the run is initialised with another run's weights although its variant does not require that."""
        return self.init_from is not None and self.recipe not in find_variant(self.variant).starts_from

    @property
    def run_name(self) -> str:
        """Name of the run's folder. Raises ReproError for an unknown variant."""
        return run_name(self.variant, self.recipe, self.scale, [self.seed], self.lr, self.fine_tuned)

    def configure(self, classes: int, dataset: str | None = None) -> Configuration:
        """Return the configuration for a dataset and its number of classes, with the learning rate chosen here.

        Raises ReproError for unknown names.
        """
        configuration = configure(self.variant, self.recipe, self.scale, classes, dataset)
        if self.lr:
            configuration = replace(configuration, recipe=replace(configuration.recipe, lr=self.lr))
        return configuration

    def to_argv(self, data: Path, out: Path, launcher: Sequence[str] = ("repro",)) -> list[str]:
        """Return the words of the command line that trains this run on the store `data`, in a folder below `out`.

        `launcher`: the words before "train", such as those of torchrun.
        """
        options: dict[str, object] = {
            "--variant": self.variant,
            "--recipe": self.recipe,
            "--scale": self.scale,
            "--seed": self.seed,
            "--data": url_of(data) or data,
            "--out": out,
            "--epochs": self.epochs,
            "--lr": self.lr,
            "--until-train-error": self.until_train_error,
            "--init-from": self.init_from,
            "--devices": self.devices,
            "--precision": self.precision,
        }
        words = [(name, _word(value)) for name, value in options.items() if value is not None]
        return [*launcher, "train", *(word for pair in words for word in pair)]


def _word(value: object) -> str:
    """Return a value as it is typed: 25 and not 25.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
