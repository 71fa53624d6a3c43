"""When a network leaves chance, by its width: whether the text's recipe stalls as well where layers have more inputs.

    python benchmarks/width.py --data stores/imagenette128 --recipe paper --width 1 --seeds 0,1,2 --epochs 3

Scale `small` at another width than half of the paper's. Each seed's line has the spread of the logits over the
validation images before training (their standard deviation, averaged over the classes) and the validation error after
each epoch. Not a benchmark of speed; the runs are thrown away.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from repro.evaluation.activations import measure_activations
from repro.paper.scales import SCALES
from repro.records import read_run
from repro.training.settings import Settings
from repro.training.train import train


def measure(settings: Settings, data: Path) -> tuple[float, list[float]]:
    """Train a run; return the spread of its logits before the first update, and the errors after each epoch in %."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in train(settings, data, Path(folder)):
            pass
        (path,) = Path(folder).iterdir()
        _, before = measure_activations(path, data, untrained=True)
        return before.layers[-1].spread, [epoch.val_top1_error for epoch in read_run(path).log]


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield a line per seed."""
    SCALES["small"] = replace(SCALES["small"], width=options.width)  # in this process only
    for seed in map(int, options.seeds.split(",")):
        settings = Settings(
            "alexnet", options.recipe, "small", seed=seed, epochs=options.epochs, precision=options.precision
        )
        spread, errors = measure(settings, options.data)
        course = ", ".join(f"{error:.1f}" for error in errors)
        yield f"{options.recipe}, width {options.width:g}, seed {seed}: logits' spread {spread:.2g}; error, %: {course}"


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="store of 128-pixel images")
    parser.add_argument("--recipe", choices=("authors", "paper"), default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    for line in lines(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
