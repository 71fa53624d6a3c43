"""When a network leaves chance, by its width: whether the text's recipe stalls as well where layers have more inputs.

    python benchmarks/width.py --data stores/imagenette128 --recipe paper --width 1 --epochs 4

The recipe at scale `small` or `paper`, with `--width` times the paper's kernels and units. A line per seed: the spread
of the logits over the validation images before training (their standard deviation, averaged over the classes), and the
validation error after each epoch; with `--epochs 0` the spread alone. The runs are thrown away.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from repro.data.store import open_store
from repro.data.views import Views
from repro.evaluation.activations import layer_activities
from repro.models.network import initial_net
from repro.paper.scales import SCALES
from repro.records.reading import read_run
from repro.training.settings import Settings
from repro.training.train import train


def logits_spread(settings: Settings, data: Path) -> float:
    """Return the spread of the logits before training, over the centre views of the validation images."""
    store = open_store(data)
    configuration = settings.configure(len(store.classes), store.dataset)
    net = initial_net(configuration.network, configuration.recipe.initialisation, settings.seed).eval()
    augmentation, crop_size = configuration.recipe.augmentation, configuration.scale.crop_size
    views = Views(store.mean, store.covariance, crop_size, augmentation, torch.device("cpu"))
    return layer_activities(net, views, store.splits["val"])[-1].spread


def errors(settings: Settings, data: Path) -> list[float]:
    """Train a run and return its validation error after each epoch, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in train(settings, data, Path(folder)):
            pass
        (path,) = Path(folder).iterdir()
        return [epoch.val_top1_error for epoch in read_run(path).log]


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield a line per seed."""
    SCALES[options.scale] = replace(SCALES[options.scale], width=options.width)  # in this process only
    for seed in map(int, options.seeds.split(",")):
        epochs = options.epochs or None
        settings = Settings(
            options.variant, options.recipe, options.scale, seed=seed, epochs=epochs, precision=options.precision
        )
        line = f"{options.variant}, {options.recipe}, width {options.width:g}, seed {seed}: "
        line += f"logits' spread {logits_spread(settings, options.data):.2g}"
        if epochs:
            line += "; error, %: " + ", ".join(f"{error:.1f}" for error in errors(settings, options.data))
        yield line


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="store of images of the scale's size")
    parser.add_argument("--scale", choices=("small", "paper"), default="small")
    parser.add_argument("--variant", default="alexnet")
    parser.add_argument("--recipe", choices=("authors", "paper"), default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--precision", default="fp32")
    for line in lines(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
