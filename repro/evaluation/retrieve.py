"""`repro retrieve`: the training images nearest to each test image, by fc7, pixels and binary codes (Sec. 6.1).

Writes `retrieval-<split>.json` and `.npz` into the run's folder: the measures, the neighbours of every image, and
thumbnails of a few, so that Figure 4 can be drawn from the records alone.
"""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repro import atomic
from repro.data.reader import Request, read_ahead
from repro.data.store import Split, Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation import nearest_neighbours
from repro.evaluation.auto_encoder import BITS, fit_coder
from repro.evaluation.command_lines import command_line, retrieve_argv
from repro.evaluation.nearest_neighbours import NearestNeighbours, blocks, hamming, nearest, squared_distances
from repro.evaluation.predictions import NOT_FINITE
from repro.evaluation.replicas import Replica, map_batches, replica_devices, replicate
from repro.evaluation.trained_model import TrainedModel, open_run
from repro.models.allocator import keep_freed_memory
from repro.models.finite import all_finite
from repro.models.network import AlexNet
from repro.paper.intervals import mean_interval
from repro.provenance import current_provenance, data_record
from repro.records.file_names import retrieval_arrays_name, retrieval_name
from repro.records.schema import SPACES, Estimate, RetrievalRecord
from repro.records.writing import write_record

NEIGHBOURS = 6  # Figure 4
LABELLED, QUERIES = 8, 5  # images of Figure 4's left and right half
THUMBNAIL = 96  # pixels
BATCH = 128
SAMPLE = 20_000  # training images that the auto-encoder is trained on; ours

Advance = Callable[[int], None]  # called with a number of images that are done


def retrieve(
    path: Path,
    data: Path,
    split: str = "test",
    devices: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = BATCH,
) -> tuple[Path, RetrievalRecord]:
    """Search the training images for each image of `split`; return the record's path and contents.

    Distances are Euclidean between fc7's activations, stored as float16, and between pixels of the centre view, both
    computed in float32; between codes they are Hamming distances. Training images are processed in blocks, so memory
    does not grow with their number: the activations are in a temporary file, and pixels are compared with all queries,
    4 GB at a time. Fewer than six training images have fewer neighbours. Activations of `batch_size` images are
    computed at once. Each of `devices`, names separated by commas, takes a part of the work. Raises ReproError for a
    run, data or a split that do not fit, and for a full disk.
    """
    keep_freed_memory()
    store = open_store(data)
    replicas = replica_devices(devices)
    model = open_run(path, str(replicas[0]), store)
    model.check_store(store, ("train", split))
    store.require_labels(("train", split), "retrieval")
    size = _output_bytes(len(store.splits[split]))
    atomic.check_writable(model.run.folder, f"up to {size / 1e6:.0f} MB of neighbours and images", size)
    search = Search(model, store, split, _counter(store, split, on_progress), batch_size, replicas)
    found = search.run()
    record = _record(search, found, command_line(retrieve_argv(path, data, split)))
    arrays = {f"{space}_neighbours": found.neighbours[space] for space in SPACES}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays, **_examples(search, found))
    atomic.write(model.run.folder / record.arrays, buffer.getvalue())
    out = model.run.folder / retrieval_name(split)
    write_record(out, record)
    return out, record


@dataclass(frozen=True)
class Neighbours:
    """The result of a search.

    Attributes:
        queries: fc7's activations of the query images, float32 [Q, D].
        neighbours: the nearest training images of each query, nearest first, int64 [Q, 6], by space.
        seconds: duration of the searches of all queries, by space.
    """

    queries: Tensor
    neighbours: dict[str, np.ndarray]
    seconds: dict[str, float]


class Search:
    """The search for the training images nearest to those of a split, in the spaces of `SPACES`."""

    def __init__(
        self,
        model: TrainedModel,
        store: Store,
        split: str,
        advance: Advance,
        batch_size: int = BATCH,
        devices: Sequence[torch.device] = (),
    ) -> None:
        assert isinstance(model.net, AlexNet)  # on one device
        self.model, self.net, self.store, self.split = model, model.net, store, split
        self.views, self.advance = model.views(store), advance
        self.train, self.queried = store.splits["train"], store.splits[split]
        self.batch_size = batch_size
        self.count = min(NEIGHBOURS, len(self.train))
        self.replicas = replicate([model.net], self.views, devices)

    def run(self) -> Neighbours:
        """Compute activations and codes of all images, and search them."""
        with StoredActivations(len(self.train), self.net.num_features) as stored:
            sample = np.sort(np.random.default_rng(0).permutation(len(self.train))[:SAMPLE])
            coder = fit_coder(self.features(self.train, sample))
            queries = self.features(self.queried, np.arange(len(self.queried)))
            found = {space: NearestNeighbours(len(queries), self.count) for space in ("pixels", "codes")}
            seconds = dict.fromkeys(found, 0.0)
            query_codes = coder.codes(queries)
            for start, end in blocks(len(self.train), 3 * self.views.crop**2, nearest_neighbours.PIXEL_BYTES):
                pixels = np.empty((end - start, self.views.crop, self.views.crop, 3), np.uint8)
                for low, high in blocks(end - start, 16 * self.net.num_features):
                    rows = np.arange(start + low, start + high)
                    activations = self.features(self.train, rows, pixels[low:high])
                    stored.append(coder.standardize(activations))
                    codes = coder.codes(activations)
                    seconds["codes"] += self._search_codes(found["codes"], query_codes, codes, start + low)
                seconds["pixels"] += self._search_pixels(found["pixels"], pixels, start)
                del pixels  # before the next block is allocated
            devices = [replica.device for replica in self.replicas]
            started = time.perf_counter()
            found["fc7"] = nearest(coder.standardize(queries), stored.array(), self.count, devices)
            seconds["fc7"] = time.perf_counter() - started
        return Neighbours(queries, {space: found[space].indices.numpy() for space in SPACES}, seconds)

    @torch.inference_mode()
    def features(self, split: Split, indices: np.ndarray, pixels: np.ndarray | None = None) -> Tensor:
        """Return fc7's activations on the centre views of the images at `indices` [N], float32 [N, D] on the CPU.

        The centre views themselves are copied to `pixels`, uint8 [N, crop, crop, 3], if it is given.
        """

        def compute(replica: Replica, images: Tensor) -> tuple[Tensor, ...]:
            (net,), (views,) = replica.models, replica.views
            assert isinstance(net, AlexNet)
            assert views
            activations = net.forward_features(next(views.test_views(images, 1))).float()
            # A copy, because the images are overwritten.
            return (activations,) if pixels is None else (activations, views.centre(images).clone())

        parts, done = [], 0
        batches = [indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size)]
        for batch, (activations, *centres) in map_batches(self.replicas, split, batches, compute):
            if not all_finite(activations):
                raise ReproError(NOT_FINITE)
            parts.append(activations)
            if pixels is not None:
                pixels[done : done + len(batch)] = centres[0].numpy()
            done += len(batch)
            self.advance(len(batch))
        return torch.cat(parts)

    def _search_codes(self, found: NearestNeighbours, queries: np.ndarray, codes: np.ndarray, start: int) -> float:
        """Update `found` with a block of codes whose first is that of image `start`; return the seconds it took."""
        started = time.perf_counter()
        for low, high in blocks(len(queries), 4 * len(codes)):
            found.update(low, hamming(queries[low:high], codes), start)
        return time.perf_counter() - started

    def _search_pixels(self, found: NearestNeighbours, pixels: np.ndarray, first: int) -> float:
        """Update `found` with centre views [N, crop, crop, 3] of the training images from number `first` on.

        The queries are read once, and compared with parts of `pixels` that stay on the devices. Returns the seconds
        that comparing took.
        """
        seconds, row_bytes = 0.0, 4 * pixels[0].size
        views = [own for replica in self.replicas for own in replica.views if own]
        parts = [
            (each, torch.from_numpy(pixels[low:high]).to(each.device), first + low)
            for each, (low, high) in zip(cycle(views), blocks(len(pixels), row_bytes), strict=False)
        ]
        queries = [np.arange(low, high) for low, high in blocks(len(self.queried), row_bytes)]
        with closing(read_ahead(self.queried, map(Request, queries))) as batches:
            for rows, batch in zip(queries, batches, strict=False):
                started = time.perf_counter()
                centres = self.views.centre(batch.images)
                of_queries = {each.device: centre_pixels(each, centres) for each in views}
                distances = (
                    (squared_distances(of_queries[each.device], centre_pixels(each, part)), start)
                    for each, part, start in parts
                )
                found.update_all(int(rows[0]), distances, len(views))
                seconds += time.perf_counter() - started
        return seconds


def centre_pixels(views: Views, centres: Tensor) -> Tensor:
    """Return centre views, uint8 [N, crop, crop, 3], less the mean image, float32 [N, 3·crop²] on the views' device."""
    return (centres.to(views.device) - views.centre_mean).flatten(1)


class StoredActivations:
    """Standardized activations of all training images, float16 in an unnamed temporary file.

    Their space on the disk is reserved at the start: a sparse file would fit on a full disk, and accessing a memory
    map of it would end the process. Where space cannot be reserved, a full disk is an error of `append`.
    """

    def __init__(self, images: int, units: int) -> None:
        self.shape = (images, units)

    def __enter__(self) -> StoredActivations:
        with self._disk_errors():
            self.file = tempfile.TemporaryFile()
            atomic.reserve(self.file, 2 * math.prod(self.shape))
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def append(self, activations: Tensor) -> None:
        """Append activations [B, units]. Raises ReproError if the disk is full."""
        with self._disk_errors():
            self.file.write(activations.half().numpy().tobytes())

    def array(self) -> np.ndarray:
        """Return all activations [images, units] as a read-only memory map."""
        with self._disk_errors():
            self.file.flush()
        return np.memmap(self.file, np.float16, "r", shape=self.shape)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if hasattr(self, "file"):
                self.file.close()
            raise ReproError(
                f"no space for {2 * math.prod(self.shape) / 1e6:,.0f} MB of activations in the folder for temporary "
                f"files ({error.strerror}): free some, or set TMPDIR to a folder on another disk"
            ) from error


def _output_bytes(queries: int) -> int:
    """Return the size in bytes of the neighbours and images of `queries` images, without compression."""
    thumbnails = LABELLED + QUERIES * (1 + 2 * NEIGHBOURS)
    return 3 * THUMBNAIL**2 * thumbnails + 8 * len(SPACES) * NEIGHBOURS * queries


def _counter(store: Store, split: str, on_progress: Callable[[int, int], None] | None) -> Advance:
    """Return a function that counts images and reports their sum, and the number of all, to `on_progress`."""
    train = len(store.splits["train"])
    total, done = len(store.splits[split]) + train + min(train, SAMPLE), 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        if on_progress:
            on_progress(done, total)

    return advance


def _record(search: Search, found: Neighbours, command: str) -> RetrievalRecord:
    run, train, queried = search.model.run, search.train, search.queried
    matches = {space: train.labels[found.neighbours[space]] == queried.labels[:, None] for space in SPACES}
    pairs = zip(found.neighbours["fc7"], found.neighbours["pixels"], strict=True)
    frequencies = np.bincount(train.labels, minlength=len(search.store.classes)) / len(train)
    return RetrievalRecord(
        run=run.folder.name,
        variant=run.variant,
        recipe=run.recipe,
        scale=run.scale,
        seed=run.seed,
        data=data_record(search.store),
        split=search.split,
        images=len(queried),
        searched=len(train),
        neighbours=search.count,
        activations=found.queries.shape[1],
        bits=BITS,
        precision={space: _percentage(same.mean(axis=1)) for space, same in matches.items()},
        precision_at_random=float(100 * frequencies[queried.labels].mean()),
        overlap=_percentage(np.array([np.isin(fc7, pixels).mean() for fc7, pixels in pairs])),
        seconds_per_query={space: found.seconds[space] / len(queried) for space in SPACES},
        arrays=retrieval_arrays_name(search.split),
        command=command,
        **vars(current_provenance()),
    )


def _percentage(fractions: np.ndarray) -> Estimate:
    """Return the mean of `fractions`, one per image, in percent with its interval."""
    low, high = mean_interval(100 * fractions)
    return Estimate(float(100 * fractions.mean()), (max(low, 0.0), min(high, 100.0)))


@torch.inference_mode()
def _examples(search: Search, found: Neighbours) -> dict[str, np.ndarray]:
    """Return Figure 4's images: drawn at random, of different classes as far as possible, whatever their results.

    With fewer images than both halves of the figure need, some are in both.
    """
    train, queried = search.train, search.queried
    drawn = _different_classes(queried.labels, LABELLED + QUERIES)
    labelled, queries = drawn[:LABELLED], drawn[-QUERIES:]
    features = found.queries[labelled].to(search.views.device)
    probabilities = search.net.forward_head(features).float().softmax(1).cpu()
    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    arrays = {
        "labelled": labelled,
        "labelled_labels": queried.labels[labelled],
        "labelled_top5": best.indices.numpy(),
        "labelled_probabilities": best.values.numpy(),
        "labelled_images": _thumbnails(queried, labelled),
        "queries": queries,
        "query_labels": queried.labels[queries],
        "query_images": _thumbnails(queried, queries),
    }
    for space in ("fc7", "pixels"):
        nearest = found.neighbours[space][queries]
        images = _thumbnails(train, nearest.ravel())
        arrays[f"query_{space}_images"] = images.reshape(*nearest.shape, THUMBNAIL, THUMBNAIL, 3)
        arrays[f"query_{space}_labels"] = train.labels[nearest]
    return arrays


def _different_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of `count` images (or of all, if fewer), cycling through the classes in a random order."""
    order = np.random.default_rng(0).permutation(len(labels))
    seen: dict[int, int] = {}
    rounds = []
    for index in order:
        rounds.append(seen.get(int(labels[index]), 0))
        seen[int(labels[index])] = rounds[-1] + 1
    return order[np.argsort(rounds, kind="stable")][:count]


def _thumbnails(split: Split, indices: np.ndarray) -> np.ndarray:
    """Return small versions of images, uint8 [N, 96, 96, 3]."""
    thumbnails = [Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL)) for image in split.images(indices)]
    return np.stack([np.asarray(thumbnail) for thumbnail in thumbnails])
