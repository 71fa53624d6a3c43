"""Speed and memory of `repro prepare`, compared with torchvision's ImageFolder and with decoding alone.

    python benchmarks/prepare.py IMAGES [--copies 100] [--rounds 3] [--work FOLDER]

IMAGES holds full-size photographs as train/CLASS/*.jpg. Each is linked `--copies` times, and in a second measurement a
tenth as often: two numbers of images separate the time per image from the time to start, which does not matter for a
dataset of a million. Compared, with two workers each, at 256×256 pixels:

- `repro prepare`, from the start of the command to the finished store;
- torchvision's ImageFolder with Resize and CenterCrop in a DataLoader, which only collects the pixels;
- two processes that only decode, with Pillow.

They take turns, and medians are compared, because other work on the machine slows all of them. Processor time is given
beside wall-clock time: other work disturbs it less. Memory is the peak of the sum over a program's processes; shared
pages are counted for each.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
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


@dataclass(frozen=True)
class Run:
    """Resources that a program used."""

    images: int
    seconds: float
    processor: float  # seconds on all processors, user and system
    peak: int  # bytes of memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="a folder on the disk to write to [default: a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folders = {Path(name, str(copies)): copies for copies in (max(options.copies // 10, 4), options.copies)}
        counts = {folder: link(options.images, folder, copies) for folder, copies in folders.items()}
        found: dict[str, dict[int, list[Run]]] = {}
        for number in range(options.rounds):
            for folder, count in counts.items():
                for program, command in commands(folder, Path(name, "store")).items():
                    run = measure(command, count)
                    shutil.rmtree(Path(name, "store"), ignore_errors=True)
                    found.setdefault(program, {}).setdefault(count, []).append(run)
                    print(f"round {number + 1}: {program:16} {describe(run)}", flush=True)
    report(found)


def commands(images: Path, store: Path) -> dict[str, list[str | Path]]:
    """Return the command lines to compare."""
    script: list[str | Path] = [sys.executable, "-c"]
    ours: list[str | Path] = [
        sys.executable,
        "-m",
        "repro",
        "prepare",
        "folder",
        "--source",
        images,
        "--out",
        store,
        "--workers",
        "2",
    ]
    return {
        "repro prepare": ours,
        "ImageFolder": [*script, LOADER, images / "train"],
        "Pillow decoding": [*script, DECODER, images / "train"],
    }


def measure(command: list[str | Path], images: int) -> Run:
    """Run a program and measure it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        while True:
            try:
                program.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, memory(program.pid))
    seconds = time.perf_counter() - began
    if program.returncode:
        sys.exit(f"{command} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(images, seconds, processor, peak)


def memory(pid: int) -> int:
    """Return the bytes of memory of a process and its descendants (Linux)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        files = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for file in files for child in file.read_text(encoding="ascii").split()]
    except OSError:  # it has ended
        return 0
    return pages * resource.getpagesize() + sum(map(memory, children))


def report(found: dict[str, dict[int, list[Run]]]) -> None:
    """Print medians, the cost per image without the start, and the ratios."""
    speeds: dict[str, tuple[float, ...]] = {}
    for program, runs in found.items():
        few, many = (
            Run(
                count, *(statistics.median(values) for values in zip(*(astuple(run)[1:] for run in group), strict=True))
            )
            for count, group in sorted(runs.items())
        )
        for run in (few, many):
            print(f"{program:16} {describe(run)}")
        each, worked = (
            (getattr(many, what) - getattr(few, what)) / (many.images - few.images) for what in ("seconds", "processor")
        )
        start = few.seconds - few.images * each
        print(
            f"{program:16} {1e6 * worked:,.0f} µs of processor per image, {1 / each:,.0f} images/s after {start:.1f} s"
        )
        speeds[program] = (many.images / many.seconds, 1 / each, 1 / worked)
    ours, loader, decoder = speeds.values()
    for what, own, other, decoding in zip(
        ("as a whole", "without the start", "by processor"), ours, loader, decoder, strict=True
    ):
        print(f"{what}: {own / other:.2f} × ImageFolder, {100 * own / decoding:.0f}% of decoding alone")


def describe(run: Run) -> str:
    """Return a line about a run."""
    return (
        f"{run.images:7,} images: {run.images / run.seconds:6,.0f} images/s, "
        f"{1e6 * run.processor / run.images:6,.0f} µs of processor per image, peak {run.peak / 1e9:.2f} GB"
    )


def link(source: Path, target: Path, copies: int) -> int:
    """Create `copies` links to each photograph of train under `target`, and return their number."""
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
