"""Exact nearest neighbours of 1,000 queries among 128,000 vectors of length 4096, a tenth of ImageNet's fc7 features.

    python benchmarks/retrieval.py [FOLDER]

The vectors are on disk as float16, 1 GB, in FOLDER or the temporary folder. scikit-learn's brute force has them in
memory as float32.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from timing import HEAD, Row, print_machine, take_turns

from repro.evaluation.nearest_neighbours import nearest
from repro.models.allocator import keep_freed_memory

VECTORS, QUERIES, WIDTH, WANTED = 128_000, 1000, 4096, 6


def _vectors(path: Path) -> np.memmap:
    """Generate the vectors once: clusters, as the features of a class form, clipped at 0."""
    if not path.exists():
        draw = np.random.default_rng(0)
        centres = draw.standard_normal((1000, WIDTH), dtype=np.float32)
        made = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.float16, (VECTORS, WIDTH))
        for start in range(0, VECTORS, 8000):
            noise = draw.standard_normal((8000, WIDTH), dtype=np.float32)
            made[start : start + 8000] = np.maximum(centres[draw.integers(0, 1000, 8000)] + noise, 0)
        made.flush()
        path.with_suffix(".part").replace(path)
    return np.load(path, mmap_mode="r")


def _data() -> tuple[np.memmap, np.ndarray]:
    stored = _vectors(Path(sys.argv[2]) / "vectors.npy")
    return stored, np.array(stored[:: VECTORS // QUERIES][:QUERIES], np.float32) + 0.1


def ours() -> float:
    """Return the seconds of the search that `repro retrieve` uses; prints its peak memory."""
    keep_freed_memory()
    stored, queries = _data()
    began = time.perf_counter()
    nearest(torch.from_numpy(queries), stored, WANTED, [torch.device("cpu")])
    taken = time.perf_counter() - began
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB", file=sys.stderr)
    return taken


def scikit_learn() -> float:
    """Return the seconds of scikit-learn's search."""
    stored, queries = _data()
    search = NearestNeighbors(n_neighbors=WANTED, algorithm="brute").fit(np.asarray(stored, np.float32))
    began = time.perf_counter()
    search.kneighbors(queries)
    return time.perf_counter() - began


CANDIDATES = {"ours": ours, "scikit-learn": scikit_learn}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) == 1 or sys.argv[1] not in CANDIDATES:
            sys.argv.append(folder)
        taken = take_turns(CANDIDATES, arguments=sys.argv[-1:])
    print_machine()
    print("seconds:", ", ".join(f"{name} {value:.2f}" for name, value in taken.items()))
    print(HEAD)
    print(Row("nearest neighbours", "scikit-learn's brute force", taken["scikit-learn"] / taken["ours"], "≥ 1"))
