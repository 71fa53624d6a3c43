"""How fast is `repro prepare`? Whole processes on the same photographs, side by side, as ratios.

    python benchmarks/prepare.py IMAGES [--copies 200] [--rounds 3] [--work FOLDER]

IMAGES holds train/CLASS/*.jpg in full size. Each photograph is taken so many times, by links. Compared with two
workers each, on the pixels of 256×256:

- `repro prepare`, from the command's start to the finished store;
- torchvision's ImageFolder with Resize and CenterCrop in a DataLoader, only collecting the pixels;
- two processes that only decode with Pillow.

They take turns, and the ratios are those of the medians, because other work on the machine slows all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOADER = """
import sys
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
if __name__ == "__main__":
    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(256), v2.PILToTensor()])
    seen = 0
    for pixels, labels in DataLoader(ImageFolder(sys.argv[1], transform), batch_size=128, num_workers=2):
        seen += len(pixels)
    print(seen)
"""
DECODER = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from PIL import Image
def decode(paths):
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
    return len(paths)
if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).rglob("*.jpg"))
    chunks = [paths[start : start + 512] for start in range(0, len(paths), 512)]
    with ProcessPoolExecutor(2) as pool:
        print(sum(pool.map(decode, chunks)))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="a folder on the disk to write to [default: a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        images = work / "images"
        count = link(options.images, images, options.copies)
        store = work / "store"
        script = (sys.executable, "-c")
        programs = {
            "repro prepare": (
                sys.executable, "-m", "repro", "prepare", "folder", "--source", images, "--out", store, "--workers", "2"
            ),
            "ImageFolder": (*script, LOADER, images / "train"),
            "Pillow decoding": (*script, DECODER, images / "train"),
        }  # fmt: skip
        speeds: dict[str, list[float]] = {program: [] for program in programs}
        for number in range(options.rounds):
            for program, command in programs.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                speeds[program].append(count / (time.perf_counter() - began))
                shutil.rmtree(store, ignore_errors=True)
                print(f"round {number + 1}: {program:16} {speeds[program][-1]:7,.0f} images/s", flush=True)
        ours, loader, decoder = (statistics.median(found) for found in speeds.values())
        print(f"{count:,} images: {ours / loader:.2f} × ImageFolder, {100 * ours / decoder:.0f}% of decoding alone")


def link(source: Path, target: Path, copies: int) -> int:
    """Lay `copies` links to each photograph of train under `target`; returns how many that are."""
    count = 0
    for path in sorted((source / "train").rglob("*.jpg")):
        folder = target / "train" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            os.symlink(path.resolve(), folder / f"{path.stem}-{copy}.jpg")
            count += 1
    return count


if __name__ == "__main__":
    main()
