import contextlib
import errno
import filecmp
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import picture, write_pictures
from PIL import Image

import repro.preparation.prepare
import repro.preparation.shards
from repro.data.store import Store, open_store
from repro.errors import ReproError
from repro.evaluation.trained_model import preprocess
from repro.preparation import estimates
from repro.preparation.estimates import seconds_per_image
from repro.preparation.prepare import _ListingProgress, prepare
from repro.preparation.preprocess import MissingDecoder, to_square
from repro.preparation.settings import PrepareSettings
from repro.preparation.sources.datasets import DATASETS
from repro.preparation.sources.folder import folder
from repro.provenance import data_record
from repro.records.schema import PreprocessingRecord
from repro.training.settings import Settings
from repro.training.train import describe


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", {"train/a": 6, "train/b": 4, "val/a": 2, "val/b": 2})


def assert_refused(match: str, tmp_path: Path, *arguments: Any, **options: Any) -> None:
    """`prepare` fails with one line, and leaves nothing behind but finished shards that the line mentions."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReproError, match=match) as error:
        prepare(*arguments, **options)
    assert "\n" not in str(error.value)
    after = sorted(path for path in tmp_path.rglob("*") if ".partial" not in str(path))
    kept = list(tmp_path.rglob(".*.partial"))
    assert bool(kept) == (" kept in '" in str(error.value))
    if kept:
        after = [path for path in after if path not in kept[0].parents or path in before]
        shutil.rmtree(kept[0])
    assert after == before


def test_a_store_holds_the_images_of_the_source(images: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = prepare("folder", tmp_path / "store", source=images, size=24, on_progress=lambda *at: seen.append(at))
    assert (store.dataset, store.size, list(store.splits)) == ("folder", 24, ["train", "val"])
    assert [(info.id, info.name) for info in store.classes] == [("a", "a"), ("b", "b")]
    assert store.splits["train"].labels.tolist() == [0] * 6 + [1] * 4
    assert store.splits["val"].names == ["val/a/0.jpg", "val/a/1.jpg", "val/b/0.jpg", "val/b/1.jpg"]
    assert seen[-1] == (14, 14)

    expected = np.stack([to_square((images / name).read_bytes(), 24) for name in store.splits["train"].names])
    np.testing.assert_array_equal(store.splits["train"].images(np.arange(10)), expected)
    np.testing.assert_array_equal(store.mean, expected.mean(axis=0).astype(np.float32))
    pixels = expected.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(store.mean_rgb, pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(store.covariance, np.cov(pixels.T, bias=True), rtol=1e-11)
    assert store.manifest["rejected"] == []
    assert store.manifest["versions"].keys() == {"numpy", "pillow", "torch", "simplejpeg", "libjpeg_turbo"}


def same_files(one: Path, other: Path) -> bool:
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


def test_the_store_does_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 16)
    monkeypatch.setattr(repro.preparation.prepare, "POOL_IMAGES", 1)
    images = write_pictures(tmp_path / "images", {"a": 60, "b": 60}, "PNG")
    for workers in (1, 2):
        prepare("folder", tmp_path / f"{workers}", source=images, size=32, workers=workers)
    assert same_files(tmp_path / "1", tmp_path / "2")
    prepare("folder", tmp_path / "other", source=images, size=32, seed=1, workers=1)
    assert open_store(tmp_path / "other").fingerprint != open_store(tmp_path / "1").fingerprint


def test_a_long_listing_reports_progress(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repro.preparation.prepare, "LISTING_SECONDS", 0)
    lines: list[str] = []
    listing = _ListingProgress(lines.append)
    for _ in range(200):
        folder(images, 0, listing.count)  # 14 images
    assert lines == ["listing images: 1,000 files so far", "listing images: 2,000 files so far"]


def test_the_time_is_estimated_from_a_sample_of_the_images(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger images take longer, and JPEG encoding longer still; rows of CIFAR-10 take hardly any time."""
    now = 0.0  # of a clock that only reading and decoding advance: the load of the machine does not matter

    class Row:
        name, label = "row", 0
        reads = 0

        def read(self) -> np.ndarray:
            nonlocal now
            Row.reads += 1
            now += 0.02 if Row.reads % 2 else 1e-6  # loading a batch of rows, and taking another row of it
            return np.zeros((32, 32, 3), np.uint8)

        def identity(self) -> str:
            return "row"

    def timed_decode(image: bytes) -> object:
        nonlocal now
        now += 0.003
        return decode(image)

    decode = estimates.decode
    monkeypatch.setattr(estimates, "decode", timed_decode)
    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: now))
    rows = 60_000 * seconds_per_image([Row()] * 100, 32, "raw")
    assert 0.1 < rows < 60
    photographs = folder(images, 0).splits["train"]
    small, large, as_jpeg = (
        seconds_per_image(photographs, *kind) for kind in [(32, "raw"), (1024, "raw"), (1024, "jpeg")]
    )
    assert small > 0.003
    assert small + 0.004 < large < as_jpeg


def test_limit_per_class_selects_images_by_seed(images: Path, tmp_path: Path) -> None:
    stores = [
        prepare("folder", tmp_path / str(seed), source=images, size=16, limit_per_class=3, seed=seed)
        for seed in range(3)
    ]
    for store in stores:
        assert store.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert len(store.splits["val"]) == 4
    assert len({tuple(store.splits["train"].names) for store in stores}) > 1


def test_the_default_size_is_that_of_the_dataset(synthetic_store: Store) -> None:
    assert synthetic_store.size == 64
    assert list(synthetic_store.splits) == ["train", "val", "test"]
    sizes = {name: dataset.size for name, dataset in DATASETS.items()}
    assert (sizes.pop("cifar10"), sizes.pop("cifar100"), sizes.pop("synthetic")) == (32, 32, 64)
    assert set(sizes.values()) == {256}


def test_a_small_share_of_undecodable_images_is_listed_with_reasons(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", {"train/a": 1300, "train/b": 2, "val/a": 1, "val/b": 1})
    (images / "train/a/text.jpg").write_text("no image at all")
    store = prepare("folder", tmp_path / "store", source=images, size=8, workers=1)
    (rejected,) = store.manifest["rejected"]
    assert rejected == {"split": "train", "name": "train/a/text.jpg", "reason": rejected["reason"]}
    assert rejected["reason"].startswith("not an image")
    assert len(store.splits["train"]) == 1302
    assert "train/a/text.jpg" not in store.splits["train"].names
    (images / "train/b/text.jpg").write_text("no image at all")
    assert_refused(r"2 of \d,\d+ images cannot be used.*train/a/text.jpg.*not an image",
            tmp_path, "folder", tmp_path / "again", source=images, size=8, workers=1)  # fmt: skip


def test_allow_partial_accepts_any_number_of_rejected_images(images: Path, tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"<html>", picture(1)[:-100])):
        (images / f"train/a/bad{number}.jpg").write_bytes(content)
    shutil.rmtree(images / "val/b")
    (images / "val/b").mkdir()
    (images / "val/b/only.jpg").write_bytes(b"")
    store = prepare("folder", tmp_path / "store", source=images, size=8, allow_partial=True)
    assert [rejected["name"] for rejected in store.manifest["rejected"]] == [
        "train/a/bad0.jpg", "train/a/bad1.jpg", "train/a/bad2.jpg", "val/b/only.jpg"
    ]  # fmt: skip
    assert len(store.splits["train"]) == 10


def test_a_damaged_jpeg_is_used_and_listed_with_the_complaint_of_libjpeg(images: Path, tmp_path: Path) -> None:
    whole = picture(5, 300, 200)
    (images / "train/a/0.jpg").write_bytes(whole[: len(whole) * 2 // 3] + b"\xff\xd9")
    store = prepare("folder", tmp_path / "store", source=images, size=8)
    (damaged,) = store.manifest["damaged"]
    assert (damaged["split"], damaged["name"]) == ("train", "train/a/0.jpg")
    assert "premature end" in damaged["reason"]
    assert "train/a/0.jpg" in store.splits["train"].names


def test_orientation_is_applied_to_folders_with_a_note(images: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = images / "train/a/3.jpg"
    with Image.open(io.BytesIO(picture(5, 60, 40, "PNG"))) as image:
        image.save(turned, exif=exif, quality=95)
    stores, notes = {}, {}
    for orientation in (None, "exif", "stored"):
        notes[orientation] = list[str]()
        out = tmp_path / str(orientation)
        options: Any = {"orientation": orientation, "on_note": notes[orientation].append}
        stores[orientation] = prepare("folder", out, source=images, size=16, **options)
    index = stores["exif"].splits["train"].names.index("train/a/3.jpg")
    pixels = {key: store.splits["train"].images(np.array([index]))[0] for key, store in stores.items()}
    np.testing.assert_array_equal(pixels["stored"], to_square(turned.read_bytes(), 16))
    np.testing.assert_array_equal(pixels["exif"], to_square(turned.read_bytes(), 16, orientation=6))
    assert stores[None].fingerprint == stores["exif"].fingerprint != stores["stored"].fingerprint
    assert [store.manifest["orientation"] for store in stores.values()] == ["exif", "exif", "stored"]
    turns = {key: [line for line in lines if "upright" in line] for key, lines in notes.items()}
    assert [len(lines) for lines in turns.values()] == [1, 1, 0]
    assert turns[None][0].startswith("1 image was turned upright")
    assert [name for name, dataset in DATASETS.items() if dataset.orientation == "exif"] == ["folder"]


def test_a_store_of_squashed_images(images: Path, tmp_path: Path) -> None:
    """Whole images, resized on both sides; predictions and records of a net trained on them follow."""
    squashed = prepare("folder", tmp_path / "squashed", source=images, size=24, resize="squash")
    default = prepare("folder", tmp_path / "default", source=images, size=24)
    for index, name in enumerate(squashed.splits["train"].names):
        path = next(path for path in images.rglob("*.jpg") if path.as_posix().endswith(name))
        with Image.open(path) as whole:
            expected = np.asarray(whole.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR))
        pixels = squashed.splits["train"].images(np.array([index]))[0]
        np.testing.assert_array_equal(pixels, expected)
        record = PreprocessingRecord(image_size=24, crop_size=16, resize=squashed.resize)
        np.testing.assert_array_equal(preprocess(path, record), expected)
    assert (squashed.manifest["resize"], squashed.resize, default.resize) == ("squash", "squash", "shorter side")
    assert "resize" not in default.manifest
    assert squashed.fingerprint != default.fingerprint
    assert (data_record(squashed).dataset, data_record(default).dataset) == ("folder, squashed", "folder")
    trained = describe(Settings("alexnet", scale="smoke"), squashed).preprocessing
    assert trained is not None
    assert (trained.image_size, trained.resize) == (24, "squash")
    with pytest.raises(ReproError, match="unknown --resize 'squish': did you mean squash"):
        prepare("folder", tmp_path / "other", source=images, resize="squish")


def test_many_unusable_images_are_counted_and_ten_are_named(images: Path, tmp_path: Path) -> None:
    for number in range(500):
        (images / f"train/a/bad{number:03}.jpg").write_bytes(b"")
    with pytest.raises(ReproError, match=r"500 of 510 images cannot be used: 'train/a/bad000\.jpg' \(empty") as error:
        prepare("folder", tmp_path / "store", source=images, size=8)
    assert "and 490 more; fix or remove them" in str(error.value)
    assert "bad009" in str(error.value)
    assert "bad010" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_many_problems_are_counted_and_ten_are_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(folder(images, 0), problems=tuple(f"problem {number} of a source" for number in range(1000)))
    monkeypatch.setattr(repro.preparation.prepare, "open_source", lambda *arguments: source)
    with pytest.raises(ReproError, match=r"^1,000 problems: problem 0 .*problem 9 of a source; and 990 more") as error:
        prepare("folder", tmp_path / "store", source=images, size=8)
    assert "problem 10 " not in str(error.value)
    notes: list[str] = []
    prepare("folder", tmp_path / "store", source=images, size=8, allow_partial=True, on_note=notes.append)
    accepted = [line for line in notes if line.startswith("accepted by --allow-partial: ")]
    assert len(accepted) == 11
    assert accepted[-1].endswith("990 more problems")


@pytest.mark.parametrize("moment", ["on_note", "on_progress"])
def test_an_output_that_is_full_is_not_an_error_of_the_store(images: Path, tmp_path: Path, moment: str) -> None:
    def full(*values: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    callbacks: Any = {moment: full}
    with pytest.raises(ReproError, match=r"^cannot print the progress: No space left on device"):
        prepare("folder", tmp_path / "store", source=images, size=8, **callbacks)


def test_a_missing_decoder_may_be_installed_before_the_next_call(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare("folder", tmp_path / "whole", source=images, size=8)
    missing = picture(0)

    def fail(image: bytes, *arguments: Any) -> np.ndarray:
        if image == missing:
            raise MissingDecoder('a HEIC image, which needs pip install ".[heic]" in the clone of repro')
        return to_square(image, *arguments)

    monkeypatch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
    with monkeypatch.context() as patch:
        patch.setattr(repro.preparation.shards, "to_square", fail)
        with pytest.raises(ReproError, match="needs pip install"):
            prepare("folder", tmp_path / "store", source=images, size=8)
    store = prepare("folder", tmp_path / "store", source=images, size=8, allow_partial=True)
    assert store.manifest["rejected"] == []
    assert len(store.splits["train"]) == len(whole.splits["train"])


def test_a_class_without_usable_images_is_an_error(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", {"train/a": 1300, "train/b": 1, "val/a": 1})
    (images / "train/b/0.jpg").write_bytes(b"")
    assert_refused("no image of class 'b' in train", tmp_path,
            "folder", tmp_path / "store", source=images, size=8, workers=1)  # fmt: skip


def test_a_text_file_among_few_images_is_an_error(images: Path, tmp_path: Path) -> None:
    (images / "val/b/text.jpg").write_text("no image at all")
    assert_refused("1 of 15 images.*val/b/text.jpg", tmp_path, "folder", tmp_path / "store", source=images)


def test_unusable_arguments(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    assert_refused("unknown dataset 'cifar': did you mean cifar10", tmp_path, "cifar", out)
    assert_refused("unknown dataset 'xyz': choose from ilsvrc2010, ilsvrc2012", tmp_path, "xyz", out)
    assert_refused("unknown --encoding 'png'", tmp_path, "folder", out, source=images, encoding="png")
    assert_refused("no such file or folder", tmp_path, "folder", out, source=tmp_path / "nowhere")
    assert_refused("--size is 0", tmp_path, "folder", out, source=images, size=0)
    assert_refused("--size is 5000", tmp_path, "folder", out, source=images, size=5000)
    assert_refused("--limit-per-class is 0", tmp_path, "folder", out, source=images, limit_per_class=0)
    assert_refused("--workers is -1", tmp_path, "folder", out, source=images, workers=-1)
    assert_refused("--seed is -1", tmp_path, "synthetic", out, seed=-1)
    assert_refused("is not empty", tmp_path, "folder", images, source=images)
    assert_refused("'/' is the root of a file system", tmp_path, "folder", Path("/"), source=images)
    assert_refused("Not a directory", tmp_path, "folder", images / "train/a/0.jpg", source=images)
    assert_refused("Not a directory", tmp_path, "folder", images / "train/a/0.jpg/store", source=images)


def test_the_target_may_be_an_empty_folder_or_have_missing_parents(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("empty", "here", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("linked")
    for out in (Path(), tmp_path / "empty", tmp_path / "link", tmp_path / "not" / "yet" / "there"):
        monkeypatch.chdir(tmp_path / "here")
        expected = out.resolve()
        assert prepare("folder", out, source=images, size=8).path == expected
        assert (expected / "manifest.json").exists()
        assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EROFS], ids=["full", "unwritable", "read-only"])
@pytest.mark.parametrize("file", ["train/00000.npy", "val/labels.npy", "manifest.json"])
def test_a_disk_error_leaves_nothing_behind(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, file: str
) -> None:
    sync = os.fsync

    def failing_sync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.strip(".").startswith(file.split("/")[-1]):
            raise OSError(error, os.strerror(error))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing_sync)
    assert_refused(os.strerror(error), tmp_path, "folder", tmp_path / "a" / "b" / "store", source=images, size=8)


def test_a_file_size_limit_in_worker_processes(tmp_path: Path) -> None:
    """The system refuses to write, and the error of the worker reaches the user."""
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import repro.preparation.prepare\n"
        "from repro.errors import ReproError\n"
        "if __name__ == '__main__':\n"
        "    repro.preparation.prepare.POOL_IMAGES = 1\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    try:\n"
        "        source = Path(sys.argv[2])\n"
        "        repro.preparation.prepare.prepare('folder', Path(sys.argv[1]), source=source, size=64, workers=2)\n"
        "    except ReproError as error:\n"
        "        print(error)\n"
    )
    root = str(Path(repro.__file__).parents[1])
    images = write_pictures(tmp_path / "images", {"a": 300, "b": 300}, "PNG")
    result = subprocess.run(
        [sys.executable, script, tmp_path / "store", images],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )
    assert "File too large" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "script.py"]


def test_systems_without_posix_functions(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice on the page cache is missing on macOS and Windows; some network folders cannot be synced."""
    sync = os.fsync

    def sync_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    whole = prepare("folder", tmp_path / "whole", source=images, size=16)
    monkeypatch.setattr(os, "fsync", sync_files_only)
    for name in ("posix_fadvise", "posix_fallocate", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    assert same_files(prepare("folder", tmp_path / "store", source=images, size=16).path, whole.path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed in /proc")
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_no_open_file_is_renamed_or_removed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Windows refuses it, also for files that are memory-mapped; nor does it rename over a folder."""

    def guard(function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *others: Any, **options: Any) -> Any:
            opened = set()
            for descriptor in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    opened.add(os.readlink(f"/proc/self/fd/{descriptor}"))
            maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            opened.update(line.split(maxsplit=5)[-1] for line in maps)
            name = os.path.join(os.readlink(f"/proc/self/fd/{options['dir_fd']}"), path) if options else str(path)
            if name in opened or (function is replace and (os.path.isdir(others[0]) or held_below(name, opened))):
                refused.append(name)
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return function(path, *others, **options)

        return guarded

    def held_below(folder: str, opened: set[str]) -> bool:
        return any(path.startswith(f"{folder}/") for path in opened)

    replace, refused = os.replace, list[str]()
    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, guard(getattr(os, name)))
    (tmp_path / "store").mkdir()
    store = prepare("folder", tmp_path / "store", source=images, size=16, encoding=encoding)
    assert len(store.splits["train"]) == 10
    assert [Path(name).name for name in refused] == ["lock"]  # which Windows removes when it is released
    names = [path.name for path in store.path.rglob("*")]
    assert not any(re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name) for name in names)


def test_an_interrupt_before_the_first_shard_leaves_nothing_behind(images: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt  # at the first call, before any shard

    with pytest.raises(KeyboardInterrupt):
        prepare("folder", tmp_path / "store", source=images, size=8, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_names_that_are_not_utf8(images: Path, tmp_path: Path) -> None:
    odd = "caf\udce9\n.jpg"
    (images / "train/a" / odd).write_bytes(picture(9))
    store = prepare("folder", tmp_path / "store", source=images, size=8)
    assert f"train/a/{odd}" in store.splits["train"].names
    json.loads((store.path / "manifest.json").read_text())


def test_settings_build_the_command_line_that_states_them() -> None:
    settings = PrepareSettings(
        "folder",
        Path("my pictures"),
        64,
        5,
        "jpeg",
        3,
        True,
        2,
        "tcp://host:8786",
        orientation="stored",
        resize="squash",
    )
    assert settings.to_argv(Path("out")) == [
        "prepare", "folder", "--out", "out", "--source", "my pictures", "--size", "64", "--limit-per-class", "5",
        "--encoding", "jpeg", "--orientation", "stored", "--resize", "squash", "--seed", "3", "--workers", "2",
        "--scheduler", "tcp://host:8786", "--allow-partial",
    ]  # fmt: skip
    assert PrepareSettings("synthetic").to_argv(Path("out")) == ["prepare", "synthetic", "--out", "out"]


def test_prepare_imports_no_torch() -> None:
    root = str(Path(repro.__file__).parents[1])
    code = "import repro.preparation.prepare, repro.verification.verify, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})


def test_real_photographs(real_images: Callable[[str], Path], tmp_path: Path) -> None:
    store = prepare("folder", tmp_path / "store", source=real_images("imagenet5"), size=128)
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 270, "val": 30, "test": 75}
    assert store.manifest["rejected"] == []
    assert 60 < store.mean_rgb.min() < store.mean_rgb.max() < 180
    assert (np.linalg.eigvalsh(store.covariance) > 0).all()
