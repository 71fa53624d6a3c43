"""`repro retrieve`: which training images lie nearest to each test image, by fc7, by pixels, by codes (Sec. 6.1).

Writes `retrieval-<split>.json` and `.npz` into the run's folder: the measures, the neighbours of every image, and
small pictures of a few, so that Figure 4 can be drawn from the records alone.
"""

from __future__ import annotations

import io
import math
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from repro import atomic
from repro.data.sampling import torch_seed
from repro.data.store import Split, Store, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.nearest_neighbours import NearestNeighbours, blocks, hamming, nearest, squared_distances
from repro.evaluation.trained_model import load_net
from repro.models.devices import find_devices
from repro.models.network import AlexNet
from repro.paper.intervals import mean_interval
from repro.paper.variants import configure
from repro.provenance import current_provenance, data_record
from repro.records import Estimate, RetrievalRecord, Run, read_run, retrieval_arrays_name, retrieval_name, write_record

NEIGHBOURS = 6  # Figure 4
LABELLED, QUERIES = 8, 5  # images of Figure 4's left and right half
THUMBNAIL = 96  # pixels
BATCH = 128
BITS = 64  # of a code: one machine word
SAMPLE, EPOCHS, HIDDEN, CODE_NOISE = 20_000, 20, 512, 1.0  # how the auto-encoder is trained; ours


def retrieve(
    path: Path,
    data: Path,
    split: str = "test",
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, RetrievalRecord]:
    """Search the training images for each image of `split`; returns the record's path and contents.

    Distances are Euclidean, between fc7's activations, kept as float16, and between pixels of the centre view, both
    computed in float32; Hamming's between codes. Training images pass by in blocks, so memory does not grow with
    them. Raises ReproError for a run, data or a split that do not fit.
    """
    run, store = read_run(path), open_store(data)
    _check(run, store, split)
    target = find_devices(device)[0]
    model = load_net(run).to(target).eval()
    configuration = configure(run.variant, run.recipe, run.scale, len(store.classes))
    crop, augmentation = configuration.scale.crop_size, configuration.recipe.augmentation
    views = Views(store.mean, store.covariance, crop, augmentation, target)
    train, asked = store.splits["train"], store.splits[split]
    total = len(asked) + len(train) + min(len(train), SAMPLE)
    done = 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        if on_progress:
            on_progress(done, total)

    sample = np.sort(np.random.default_rng(0).permutation(len(train))[:SAMPLE])
    coder = fit_coder(features(model, views, train, sample, tell))
    queries = features(model, views, asked, np.arange(len(asked)), tell)
    found = _search(model, views, train, asked, queries, coder, run.folder, tell)
    matches = {name: train.labels[nearest] == asked.labels[:, None] for name, nearest in found.neighbours.items()}
    shared = [np.isin(a, b).mean() for a, b in zip(found.neighbours["fc7"], found.neighbours["pixels"], strict=True)]
    shares = np.bincount(train.labels, minlength=len(store.classes)) / len(train)
    record = RetrievalRecord(
        run=run.folder.name,
        variant=run.variant,
        recipe=run.recipe,
        scale=run.scale,
        seed=run.seed,
        data=data_record(store),
        split=split,
        images=len(asked),
        searched=len(train),
        neighbours=NEIGHBOURS,
        activations=queries.shape[1],
        bits=BITS,
        precision={name: _percent(same.mean(axis=1)) for name, same in matches.items()},
        precision_at_random=float(100 * shares[asked.labels].mean()),
        overlap=_percent(np.array(shared)),
        seconds_per_query={name: seconds / len(asked) for name, seconds in found.seconds.items()},
        arrays=retrieval_arrays_name(split),
        command=shlex.join(["repro", "retrieve", str(path), "--data", str(data), "--split", split]),
        **vars(current_provenance()),
    )
    buffer = io.BytesIO()
    arrays = {f"{name}_neighbours": nearest for name, nearest in found.neighbours.items()}
    arrays |= _examples(model, queries, train, asked, found)
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic.write(run.folder / record.arrays, buffer.getvalue())
    out = run.folder / retrieval_name(split)
    write_record(out, record)
    return out, record


def _check(run: Run, store: Store, split: str) -> None:
    if split not in store.splits:
        raise ReproError(f"the store '{store.path}' has no split '{split}', only {', '.join(store.splits)}")
    if run.data.fingerprint != store.fingerprint:
        raise ReproError(
            f"the run '{run.folder}' was trained on other data than '{store.path}': name '{run.data.path}'"
        )
    if len(store.splits["train"]) < NEIGHBOURS:
        raise ReproError(f"the store '{store.path}' has fewer than {NEIGHBOURS} training images: prepare more")


def _percent(shares: np.ndarray) -> Estimate:
    low, high = mean_interval(100 * shares)
    return Estimate(float(100 * shares.mean()), (max(low, 0.0), min(high, 100.0)))


@torch.inference_mode()
def features(
    model: AlexNet, views: Views, split: Split, indices: np.ndarray, tell: Callable[[int], None] = lambda _: None
) -> Tensor:
    """fc7's activations on the centre views of the images at `indices` [N], float32 [N, D] on the CPU."""
    parts = []
    for start in range(0, len(indices), BATCH):
        rows = indices[start : start + BATCH]
        parts.append(model.forward_features(next(views.test_views(split.images(rows), 1))).float().cpu())
        tell(len(rows))
    return torch.cat(parts)


def pixels(views: Views, split: Split, indices: np.ndarray) -> Tensor:
    """The centre views' pixels less the mean image's, float32 [N, 3·crop²]."""
    start, end = views.margin // 2, views.margin // 2 + views.crop
    centre = split.images(indices)[:, start:end, start:end]
    return (torch.from_numpy(centre).to(views.device) - views.mean[start:end, start:end]).flatten(1)


@dataclass
class Coder:
    """The auto-encoder's way to a code: activations [N, D] to 64 bits, a machine word each."""

    mean: Tensor
    scale: Tensor
    encoder: nn.Module
    thresholds: Tensor

    def standard(self, activations: Tensor) -> Tensor:
        """Activations [N, D] around 0 and of unit size: fit for float16, and as near to each other as before."""
        return (activations - self.mean) / self.scale

    @torch.inference_mode()
    def codes(self, activations: Tensor) -> np.ndarray:
        """uint64 [N]; each bit says whether a unit of the code layer is above its median."""
        bits = self.encoder(self.standard(activations)) > self.thresholds
        return np.packbits(bits.numpy(), axis=1).view(np.uint64)[:, 0]


def fit_coder(activations: Tensor) -> Coder:
    """Train an auto-encoder on activations [N, D], without labels.

    Noise before the code layer's sigmoids drives them to 0 or 1, so that little is lost in rounding them.
    """
    generator = torch.Generator().manual_seed(torch_seed(0))
    mean, scale = activations.mean(0), activations.std().clamp_min(1e-6)
    inputs = (activations - mean) / scale
    width = inputs.shape[1]
    encoder = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, BITS))
    decoder = nn.Sequential(nn.Linear(BITS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    with torch.no_grad():
        for weight in parameters:
            weight.normal_(
                0, 1 / math.sqrt(weight.shape[1]), generator=generator
            ) if weight.ndim > 1 else weight.zero_()
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            code = encoder(inputs[rows])
            noise = torch.empty_like(code).normal_(0, CODE_NOISE, generator=generator)
            loss = nn.functional.mse_loss(decoder(torch.sigmoid(code + noise)), inputs[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.inference_mode():
        return Coder(mean, scale, encoder.eval(), encoder(inputs).median(0).values)


@dataclass
class _Found:
    neighbours: dict[str, np.ndarray]
    seconds: dict[str, float]


def _search(
    model: AlexNet,
    views: Views,
    train: Split,
    asked: Split,
    queries: Tensor,
    coder: Coder,
    folder: Path,
    tell: Callable[[int], None],
) -> _Found:
    """The six nearest training images of each query in each space, and the seconds that the searches took.

    fc7's activations wait for their search in a file without a name in `folder`, as float16: 8 kB an image.
    """
    found = {name: NearestNeighbours(len(asked), NEIGHBOURS) for name in ("pixels", "codes")}
    seconds = dict.fromkeys(found, 0.0)
    query_codes = coder.codes(queries)
    with tempfile.TemporaryFile(dir=folder) as file:
        stored = np.memmap(file, np.float16, "w+", shape=(len(train), queries.shape[1]))
        for start, end in blocks(len(train), 3 * views.crop**2):
            rows = np.arange(start, end)
            block = features(model, views, train, rows, tell)
            stored[start:end] = coder.standard(block).numpy()
            codes = coder.codes(block)
            block_pixels = pixels(views, train, rows)
            began = time.perf_counter()
            for low, high in blocks(len(asked), len(rows)):
                found["codes"].offer(low, hamming(query_codes[low:high], codes), start)
            seconds["codes"] += time.perf_counter() - began
            for low, high in blocks(len(asked), 3 * views.crop**2):
                query_pixels = pixels(views, asked, np.arange(low, high))
                began = time.perf_counter()
                found["pixels"].offer(low, squared_distances(query_pixels, block_pixels), start)
                seconds["pixels"] += time.perf_counter() - began
        began = time.perf_counter()
        found["fc7"] = nearest(coder.standard(queries), stored, NEIGHBOURS, views.device)
        seconds["fc7"] = time.perf_counter() - began
    order = ("fc7", "pixels", "codes")
    return _Found({name: found[name].places.numpy() for name in order}, {name: seconds[name] for name in order})


@torch.inference_mode()
def _examples(model: AlexNet, queries: Tensor, train: Split, asked: Split, found: _Found) -> dict[str, np.ndarray]:
    """Figure 4's images: drawn by chance, of different classes while there are any, never by what came out."""
    drawn = _different_classes(asked.labels, LABELLED + QUERIES)
    labelled, searched = drawn[:LABELLED], drawn[LABELLED:]
    classifier = model.get_classifier()
    device = next(classifier.parameters()).device
    probabilities = classifier(queries[labelled].to(device)).float().softmax(1).cpu()
    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    return {
        "labelled": labelled,
        "labelled_labels": asked.labels[labelled],
        "labelled_top5": best.indices.numpy(),
        "labelled_probabilities": best.values.numpy(),
        "labelled_images": _thumbnails(asked, labelled),
        "queries": searched,
        "query_labels": asked.labels[searched],
        "query_images": _thumbnails(asked, searched),
    } | {
        f"query_{name}_{what}": values
        for name in ("fc7", "pixels")
        for places in [found.neighbours[name][searched]]
        for what, values in (
            ("images", _thumbnails(train, places.ravel()).reshape(*places.shape, THUMBNAIL, THUMBNAIL, 3)),
            ("labels", train.labels[places]),
        )
    }


def _different_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Places of `count` images (or all), going round the classes in a random order."""
    order = np.random.default_rng(0).permutation(len(labels))
    seen: dict[int, int] = {}
    turns = []
    for place in order:
        turns.append(seen.get(int(labels[place]), 0))
        seen[int(labels[place])] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")][:count]


def _thumbnails(split: Split, places: np.ndarray) -> np.ndarray:
    """Small pictures, uint8 [N, 96, 96, 3]."""
    pictures = [Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL)) for image in split.images(places)]
    return np.stack([np.asarray(picture) for picture in pictures])
