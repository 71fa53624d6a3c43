"""`repro prepare`: turn the images of a dataset into a store that training reads (Sec. 2).

The steps, in order: list the images (`sources`), open a staging area beside the store (`staging`), process one shard
after the other (`shards`) in this process, in worker processes or on a Dask cluster (`executors`), and complete the
store with labels, names, mean image and manifest (`assembly`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import PIL.features

from repro import atomic
from repro.data.checksums import ALGORITHM
from repro.data.store import (
    ENCODINGS,
    FORMAT,
    SPLITS,
    UNLABELLED,
    VERSION,
    Store,
    fingerprint,
    open_store,
)
from repro.errors import ReproError, unknown
from repro.formatting import duration, file_size
from repro.preparation.assembly import assemble
from repro.preparation.estimates import STARTUP_SECONDS, check_disk_space, seconds_per_image, shard_bytes
from repro.preparation.executors import dask_pool, local_pool
from repro.preparation.formats import quoted
from repro.preparation.settings import RESIZES, SHORTER_SIDE, SQUASH, PrepareSettings
from repro.preparation.shards import ShardNotes, ShardTask, commit_shard, make_shard, read_notes
from repro.preparation.sources.datasets import find_dataset, open_source
from repro.preparation.sources.source import ImageReference, Source, choose
from repro.preparation.staging import StagingArea, already_published, check_target, staging_area
from repro.preparation.store_writing import write_manifest
from repro.processors import available_processors
from repro.remote import remote_url

SHARD_IMAGES = 512  # images per shard: 100 MB at 256×256, the most that is lost when a worker is stopped
POOL_IMAGES = 1000  # with fewer images to process, one process finishes before worker processes have started
REJECTED_SHARE = 0.001  # a larger share of images that cannot be decoded points to a problem with the dataset
MAX_LISTED = 10  # problems in a message
ORIENTATIONS = ("exif", "stored")
LISTING_SECONDS = 10.0  # between two notes while images are listed

OnNote = Callable[[str], None]
OnProgress = Callable[[int, int], None]


def prepare(
    dataset: str,
    out: Path,
    *,
    source: Path | None = None,
    size: int | None = None,
    limit_per_class: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    encoding: str = "raw",
    allow_partial: bool = False,
    seed: int = 0,
    split_folders: bool = True,
    orientation: str | None = None,
    resize: str = SHORTER_SIDE,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Store:
    """Prepare a dataset as a store at `out` and open it (Sec. 2).

    Every image is decoded to RGB, its shorter side is resized to `size` pixels and the central square is cropped; with
    `resize` "squash" both sides are resized.
    The mean image and the RGB covariance are those of train. The keywords are the fields of `PrepareSettings`.
    `on_progress(done, total)` is called with numbers of images, `on_note(line)` with what was found and how long the
    work will take.

    Images that cannot be decoded are listed in the manifest with the reason. It is an error if they are more than one
    in a thousand, if a class has no image left, or if an official dataset is incomplete, unless `allow_partial` is
    set. After an interruption or an error, the same call resumes with the first shard that is not finished.
    Raises ReproError for problems with settings, images or disk.

    Worker processes are spawned: a script that calls this function needs `if __name__ == "__main__":`.
    """
    settings = PrepareSettings(
        dataset, source, size, limit_per_class, encoding, seed, allow_partial, workers, scheduler, split_folders,
        orientation, resize,
    )  # fmt: skip
    _check_settings(settings)
    note = _reporting(on_note)
    out = Path(out).resolve()  # "." has no name, and a symbolic link cannot be replaced
    size = find_dataset(dataset).size if size is None else size
    orientation = orientation or find_dataset(dataset).orientation
    stored_settings = {
        "dataset": dataset,
        "size": size,
        "encoding": encoding,
        "seed": seed,
        "limit_per_class": limit_per_class,
        "orientation": orientation,
        **({"resize": resize} if resize == SQUASH else {}),  # default stores stay as in older versions
        "checksums": ALGORITHM,
        "versions": _versions(),
    }
    plan = {
        **stored_settings,
        "shard_images": SHARD_IMAGES,
        "source": None if source is None else remote_url(source) or os.path.realpath(Path(source).expanduser()),
    }
    if already_published(out, plan):
        return open_store(out)
    check_target(out)  # again in the staging area, but listing images can take minutes
    images = _list_images(settings, note)
    with staging_area(out, plan, note) as staging:
        _check_md5(images.md5, staging, allow_partial, note)
        shards = _Shards(staging, _select(images, settings, note), size, encoding, orientation, resize == SQUASH)
        _process(shards, settings, _reporting(on_progress), note)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **stored_settings,
            "classes": [asdict(info) for info in images.classes],
            **assemble(staging.store, images.classes, shards.tasks(), size, allow_partial),
        }
        if images.class_numbers:
            manifest["class_numbers"] = images.class_numbers  # outside the fingerprint: they do not reach the network
        write_manifest(staging.store, {**manifest, "fingerprint": fingerprint(manifest)})
    return open_store(out)


def _check_settings(settings: PrepareSettings) -> None:
    find_dataset(settings.dataset)
    if settings.encoding not in ENCODINGS:
        raise unknown("--encoding", settings.encoding, ENCODINGS)
    if settings.orientation not in (None, *ORIENTATIONS):
        raise unknown("--orientation", str(settings.orientation), ORIENTATIONS)
    if settings.resize not in RESIZES:
        raise unknown("--resize", settings.resize, RESIZES)
    _check_number("--size", settings.size, 8, 1024)
    _check_number("--limit-per-class", settings.limit_per_class, 1)
    _check_number("--workers", settings.workers, 1)
    _check_number("--seed", settings.seed, 0)


def _check_number(option: str, value: int | None, low: int, high: int | None = None) -> None:
    if value is not None and (value < low or (high is not None and value > high)):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ReproError(f"{option} is {value}: it must be {bounds}")


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that the pixels depend on."""
    return {
        **{name: version(name) for name in ("numpy", "pillow", "torch", "simplejpeg")},
        "libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
    }


def _first_few(problems: Sequence[str]) -> str:
    """Return the first problems, and the number of the others, in one line of moderate length."""
    shown = "; ".join(problems[:MAX_LISTED])
    more = f"; and {len(problems) - MAX_LISTED:,} more problems" if len(problems) > MAX_LISTED else ""
    return f"{len(problems):,} problems: {shown}{more}" if len(problems) > 1 else shown


def _reporting(callback: Callable[..., None] | None) -> Callable[..., None]:
    """Return the callback, or one that does nothing; its errors are not mistaken for errors of the store's disk."""

    def report(*values: object) -> None:
        try:
            if callback:
                callback(*values)
        except OSError as error:
            raise ReproError(f"cannot print the progress: {error.strerror or error}") from error

    return report


class _ListingProgress:
    """Report the number of listed files from time to time: an archive of millions takes minutes."""

    def __init__(self, note: OnNote) -> None:
        self._note = note
        self._files = 0
        self._next = time.monotonic() + LISTING_SECONDS

    def count(self) -> None:
        """Count a file."""
        self._files += 1
        if self._files % 1000 == 0 and time.monotonic() >= self._next:
            self._next += LISTING_SECONDS
            self._note(f"listing images: {self._files:,} files so far")


def _list_images(settings: PrepareSettings, note: OnNote) -> Source:
    """List the images of the dataset. Raises ReproError for its problems, unless they are allowed."""
    source = None if settings.source is None else Path(settings.source)
    listing = _ListingProgress(note)
    images = open_source(settings.dataset, source, settings.seed, listing.count, settings.split_folders)
    for line in images.notes:
        note(line)
    if images.problems and not settings.allow_partial:
        problems = _first_few(images.problems)
        raise ReproError(f"{problems}: fix this, or pass --allow-partial to use what is there")
    for problem in images.problems[:MAX_LISTED]:
        note(f"accepted by --allow-partial: {problem}")
    if len(images.problems) > MAX_LISTED:
        note(f"accepted by --allow-partial: {len(images.problems) - MAX_LISTED:,} more problems")
    if not images.splits.get("train"):
        raise ReproError(
            f"no training images of '{settings.dataset}' in '{settings.source}': name the folder that has them with "
            "--source"
        )
    return images


def _select(images: Source, settings: PrepareSettings, note: OnNote) -> dict[str, Sequence[ImageReference]]:
    """Return the images to prepare by split, at most `limit_per_class` of each class.

    With a limit, a split without labels is left out: a part of it cannot be submitted.
    """
    limit, seed = settings.limit_per_class, settings.seed
    splits = {split: images.splits[split] for split in SPLITS if split in images.splits}
    for split, references in list(splits.items()):
        if limit is not None and len(references) and references[0].label == UNLABELLED:
            note(f"{split} has no labels: --limit-per-class leaves it out")
            del splits[split]
    return {split: _limit(references, limit, seed) for split, references in splits.items()}


def _limit(references: Sequence[ImageReference], limit: int | None, seed: int) -> Sequence[ImageReference]:
    if limit is None:
        return references
    classes: dict[int, list[tuple[str, int]]] = {}
    for index, reference in enumerate(references):
        classes.setdefault(reference.label, []).append((reference.name, index))
    kept = [index for images in classes.values() for index in choose(images, limit, seed)]
    return [references[index] for index in sorted(kept)]


def _check_md5(published: Mapping[Path, str], staging: StagingArea, allow_partial: bool, note: OnNote) -> None:
    """Compare files of the source with their published MD5. Each file is read once only: that takes minutes."""
    record = staging.path / "md5.json"
    known: dict[str, str] = json.loads(record.read_bytes()) if record.exists() else {}
    for path, expected in published.items():
        if remote_url(path):
            note(f"{path.name} is not checked against its published MD5: that would download it")
            continue
        state = path.stat()
        file = f"{path.resolve()}, {state.st_size} bytes of {state.st_mtime_ns}"
        if file not in known:
            note(f"checking {path.name} ({file_size(state.st_size)}) against its published MD5")
            with path.open("rb") as content:
                known[file] = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            atomic.write_json(record, known)
        problem = f"'{path}' has the MD5 {known[file]}, the official file {expected}"
        if known[file] == expected:
            note(f"{path.name} is the official file")
        elif allow_partial:
            note(f"{problem}; using it as it is")
        else:
            raise ReproError(f"{problem}: download it again, or pass --allow-partial to use it as it is")


@dataclass(frozen=True)
class _Shards:
    """The shards to make: images of each split, and how they are stored."""

    staging: StagingArea
    splits: Mapping[str, Sequence[ImageReference]]
    size: int
    encoding: str
    orientation: str
    squash: bool

    def tasks(self) -> Iterator[ShardTask]:
        """Yield all tasks, split by split. They are created on demand: together they refer to every image."""
        store, notes = self.staging.store, self.staging.notes
        for split, references in self.splits.items():
            for folder in (store, notes):
                (folder / split).mkdir(exist_ok=True)
            for number, start in enumerate(range(0, len(references), SHARD_IMAGES)):
                images = references[start : start + SHARD_IMAGES]
                yield ShardTask(
                    str(store), str(notes), split, number, images, self.size, self.encoding, self.orientation,
                    self.squash,
                )  # fmt: skip

    def images(self) -> int:
        """Return the number of images of all splits."""
        return sum(len(references) for references in self.splits.values())

    def seconds_per_image(self) -> float:
        """Return the time that a worker takes for an image, estimated from a few of them."""
        return seconds_per_image(next(iter(self.splits.values())), self.size, self.encoding)


class _ImageCounts:
    """Count the images that are done, and limit the number of those that are rejected."""

    def __init__(self, total: int, allow_partial: bool) -> None:
        self.done = 0
        self.turned = 0
        self.total = total
        self._max_rejected = total if allow_partial else REJECTED_SHARE * total
        self._rejected: list[tuple[int, str, str]] = []

    def add(self, notes: ShardNotes) -> None:
        """Count the images of a shard. Raises ReproError if too many images are rejected."""
        self.done += len(notes.labels) + len(notes.rejected)
        self.turned += notes.turned
        self._rejected += notes.rejected
        if len(self._rejected) > self._max_rejected:
            images = ", ".join(f"{quoted(name)} ({reason})" for _, name, reason in self._rejected[:MAX_LISTED])
            more = f" and {len(self._rejected) - MAX_LISTED:,} more" if len(self._rejected) > MAX_LISTED else ""
            raise ReproError(
                f"{len(self._rejected):,} of {self.done:,} images cannot be used: {images}{more}; fix or remove them, "
                "or pass --allow-partial to leave them out"
            )


def _process(shards: _Shards, settings: PrepareSettings, on_progress: OnProgress, note: OnNote) -> None:
    """Make every shard that is not finished yet."""
    counts = _ImageCounts(shards.images(), settings.allow_partial)
    needed = pending = stale = 0
    changed: list[str] = []
    for task in shards.tasks():
        notes = read_notes(task)
        if notes and notes.is_current(task):
            counts.add(notes)
        else:
            if notes:
                stale += 1
                changed = changed or notes.changed(task)[:1]
            task.finished.unlink(missing_ok=True)
            pending += 1
            needed += shard_bytes(len(task.references), task.size, task.encoding)
    if stale:
        example = f", such as {quoted(changed[0])}" if changed else ""
        shards_again = "1 finished shard" if stale == 1 else f"{stale:,} finished shards"
        note(f"making {shards_again} again: images were changed, added, removed or unreadable{example}")
    note(check_disk_space(shards.staging.path, needed))
    remaining = counts.total - counts.done
    if counts.done:
        note(f"{counts.done:,} images are finished, {remaining:,} remain")
    use_pool = remaining >= POOL_IMAGES
    workers = min(settings.workers or available_processors(), pending) if use_pool else 1
    with dask_pool(settings.scheduler) if settings.scheduler else local_pool(max(workers, 1)) as pool:
        if use_pool:
            seconds = STARTUP_SECONDS + shards.seconds_per_image() * remaining / pool.workers
            note(f"{remaining:,} images will take about {duration(seconds)} with {pool.workers} workers")
        on_progress(counts.done, counts.total)
        unfinished = (task for task in shards.tasks() if not task.finished.exists())
        for task, _ in pool.map(make_shard, unfinished):
            counts.add(commit_shard(task))
            on_progress(counts.done, counts.total)
    if counts.turned:
        images = "1 image was" if counts.turned == 1 else f"{counts.turned:,} images were"
        note(f"{images} turned upright as the EXIF data say; --orientation stored keeps the pixels as stored")
