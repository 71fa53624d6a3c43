"""Every row of the table of layouts in docs/data.md is built and prepared by the command that it states."""

import csv
import io
import json
import re
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import picture, write_pictures
from official_archives import CLASSES, class_tars, tar, unlabelled_2012, write_ilsvrc2010, write_ilsvrc2012
from test_cifar import write_cifar, write_cifar_binary
from test_imagenette import write_imagenette
from test_parquet import write_hub

from repro.data.store import Store
from repro.preparation.prepare import prepare
from repro.preparation.sources.datasets import DATASETS
from repro.preparation.sources.ilsvrc import YEARS, ilsvrc2010, ilsvrc2012
from repro.preparation.sources.source import Source

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
IDS = sorted(id for id, _ in CLASSES.values())
ARCHIVES_2012 = {"train": 12, "val": 8}
UNLABELLED_2012 = {"test": 12}

Build = Callable[[Path, pytest.MonkeyPatch], dict[str, int]]
LAYOUTS: dict[tuple[str, str], Build] = {}


class Row(NamedTuple):
    """A row of the table."""

    dataset: str
    layout: str
    command: str


def rows() -> list[Row]:
    """Read the table of layouts."""
    text = DOCS.read_text(encoding="utf-8").split("## What you have")[1].split("\n## ")[0]
    found: list[Row] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and cells[0] != "dataset" and set(cells[0]) != {"-"}:
            names = re.findall(r"`(\w+)`", cells[0]) or [found[-1].dataset]
            found.append(Row(names[0], cells[1].replace("`", ""), cells[2].strip("`")))
    return found


ROWS = rows()


def layout(dataset: str, begins: str) -> Callable[[Build], Build]:
    """Declare the builder of the row of a dataset that begins with these words.

    It builds the layout in a folder and returns the number of images by split.
    """
    found = [row for row in ROWS if row.dataset == dataset and row.layout.startswith(begins)]
    assert len(found) == 1, (dataset, begins, len(found))

    def declare(build: Build) -> Build:
        LAYOUTS[dataset, found[0].layout] = build
        return build

    return declare


def test_every_row_has_a_builder_and_every_dataset_a_row() -> None:
    assert {(row.dataset, row.layout) for row in ROWS} == LAYOUTS.keys()
    assert {row.dataset for row in ROWS} == DATASETS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.dataset}: {row.layout[:50]}")
def test_a_layout_is_prepared_by_its_command(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    expected = LAYOUTS[row.dataset, row.layout](Path(), monkeypatch)
    command = shlex.split(row.command)
    assert command[:2] == ["repro", "prepare"]
    options = dict(zip(command[3::2], command[4::2], strict=False))
    arguments = {"source": Path(options["--source"])} if "--source" in options else {}
    store = prepare(
        command[2], tmp_path / "store", size=16, allow_partial=True, split_folders="--no-splits" not in command,
        limit_per_class=None if arguments else 5, encoding=options.get("--encoding", "raw"), **arguments,
    )  # fmt: skip
    assert {split: len(images) for split, images in store.splits.items()} == expected
    assert store.manifest["rejected"] == []
    if row.dataset == "ilsvrc2012" and ARCHIVES_2012.items() <= expected.items():
        check_labels(store)


def check_labels(store: Store) -> None:
    """Check labels against the archives: the layouts differ in the order of images at most."""
    source = ilsvrc2012(write_ilsvrc2012(Path("archives")), 0)
    for split in ("train", "val"):
        found = {Path(name).name: label for name, label in labels(store, split).items()}
        expected = {Path(r.name).name: source.classes[r.label].id for r in source.splits[split]}
        # The hub's names end in the id, and WebDataset's classes are numbers.
        assert {re.sub(r"_n\d{8}(?=\.)", "", name): id for name, id in found.items()} == {
            re.sub(r"_n\d{8}(?=\.)", "", name): id for name, id in expected.items()
        }


def labels(store: Store, split: str) -> dict[str, str]:
    images = store.splits[split]
    return {name: store.classes[label].id for name, label in zip(images.names, images.labels, strict=True)}


def write(source: Source, root: Path, place: Callable[[str], str] = lambda name: name) -> Path:
    """Write the images of a source below root, at `place` of their names."""
    for split in source.splits.values():
        for reference in split:
            path = root / place(reference.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reference.read())
    return root


def imagenet() -> Source:
    return ilsvrc2012(write_ilsvrc2012(Path("archives")), 0)


def flat_val(name: str) -> str:
    return f"val/{name.split('/')[-1]}" if name.startswith("val/") else name


def write_solution(root: Path, source: Source) -> None:
    lines = [f"{Path(r.name).stem},{source.classes[r.label].id} 1 2 3 4 \n" for r in source.splits["val"]]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines) + "\n", encoding="utf-8")


@layout("ilsvrc2012", "ILSVRC2012_img_train.tar, ")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_ilsvrc2012(root / "downloads")
    return ARCHIVES_2012


@layout("ilsvrc2012", "any of these with the test images")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_ilsvrc2012(root / "downloads")
    members = {f"test/{name}": content for name, content in unlabelled_2012().items()}
    (root / "downloads/ILSVRC2012_img_test_v10102019.tar").write_bytes(tar(members))
    return {**ARCHIVES_2012, **UNLABELLED_2012}


@layout("ilsvrc2012", "the same with the development kit")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    kit = write_ilsvrc2012(root / "downloads") / YEARS[2012].kit
    with tarfile.open(kit) as archive:
        for member in archive.getmembers():
            path = root / "downloads" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = archive.extractfile(member)
            assert file is not None
            path.write_bytes(file.read())
    kit.unlink()
    return ARCHIVES_2012


@layout("ilsvrc2012", "the training archive unpacked once")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    downloads = write_ilsvrc2012(root / "downloads")
    (downloads / "ILSVRC2012_img_train.tar").unlink()
    (downloads / "ILSVRC2012_img_train").mkdir()
    for name, content in class_tars().items():
        (downloads / "ILSVRC2012_img_train" / name).write_bytes(content)
        (downloads / "ILSVRC2012_img_train" / f"._{name}").write_bytes(b"Mac OS X")
    return ARCHIVES_2012


@layout("ilsvrc2012", "the training archive packed again")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    downloads = write_ilsvrc2012(root / "downloads")
    images = {f"./{r.name}": r.read() for r in imagenet().splits["train"]}
    system = {f"./train/{IDS[0]}/._x.JPEG": b"Mac OS X", "./.DS_Store": b"x"}
    (downloads / "ILSVRC2012_img_train.tar").write_bytes(tar({**images, **system}))  # type: ignore[arg-type]
    return ARCHIVES_2012


@layout("ilsvrc2012", "train/WNID/*.JPEG and val/WNID/*.JPEG")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write(imagenet(), root / "imagenet")
    return ARCHIVES_2012


@layout("ilsvrc2012", "train/WNID/*.JPEG and val/*.JPEG")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write(imagenet(), root / "imagenet", flat_val)
    shutil.copy(root / "archives" / YEARS[2012].kit, root / "imagenet")
    return ARCHIVES_2012


@layout("ilsvrc2012", "Kaggle's ILSVRC/Data")
@layout("ilsvrc2012", "the same, from an inner folder")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    source = imagenet()
    write(source, root / "kaggle/ILSVRC/Data/CLS-LOC", flat_val)
    (root / "kaggle/ILSVRC/Data/CLS-LOC/test").mkdir()
    for name, content in unlabelled_2012().items():
        (root / "kaggle/ILSVRC/Data/CLS-LOC/test" / name).write_bytes(content)
    write_solution(root / "kaggle", source)
    mapping = "".join(f"{id} {words}\n" for id, words in CLASSES.values())
    (root / "kaggle/LOC_synset_mapping.txt").write_text(mapping, encoding="utf-8")
    return {**ARCHIVES_2012, **UNLABELLED_2012}


@layout("ilsvrc2012", "data/train-*.parquet")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_hub(root / "imagenet-1k")
    return {"train": 20, "val": 10}


@layout("ilsvrc2012", "data/train_images_0.tar.gz")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    source = imagenet()
    (root / "imagenet-1k/data").mkdir(parents=True)
    shards: dict[str, dict[str, bytes]] = {}
    for split, images in source.splits.items():
        for index, r in enumerate(reversed(images)):
            shard = "val_images" if split == "val" else f"train_images_{index % 2}"
            path = Path(r.name)
            content = r.read()
            assert isinstance(content, bytes)
            shards.setdefault(shard, {})[f"{path.stem}_{source.classes[r.label].id}.JPEG"] = content
    for shard, members in shards.items():
        with tarfile.open(root / f"imagenet-1k/data/{shard}.tar.gz", "w:gz") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return ARCHIVES_2012


def write_shards(root: Path, source: Source) -> None:
    """Write shards as WebDataset and timm do: a number in .cls, and more in .json."""
    root.mkdir()
    for split, name in (("train", "train"), ("val", "validation")):
        for shard in range(2):
            members = {}
            for r in source.splits[split][shard::2]:
                key = Path(r.name).stem
                content = r.read()
                assert isinstance(content, bytes)
                members |= {f"{key}.cls": str(r.label).encode(), f"{key}.jpg": content}
                members[f"{key}.json"] = json.dumps({"label": r.label, "filename": r.name}).encode()
            (root / f"imagenet1k-{name}-{shard:04}.tar").write_bytes(tar(members))


@layout("ilsvrc2012", "WebDataset shards of ImageNet")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_shards(root / "imagenet-wds", imagenet())
    monkeypatch.setattr(__name__ + ".check_labels", lambda store: None)  # its classes are numbers
    return ARCHIVES_2012


@layout("webdataset", "WebDataset shards")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_shards(root / "shards", imagenet())
    return ARCHIVES_2012


@layout("ilsvrc2010", "ILSVRC2010_images_train.tar")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_ilsvrc2010(root / "downloads")
    return {"train": 12, "val": 8, "test": 5}


@layout("ilsvrc2010", "train/WNID")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    archives = write_ilsvrc2010(root / "archives")
    shutil.copy(archives / YEARS[2010].kit, write(ilsvrc2010(archives, 0), root / "imagenet10"))
    return {"train": 12, "val": 8, "test": 5}


@layout("fall2009", "a folder of synset tars")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    (root / "fall2009").mkdir()
    for name, content in class_tars(101).items():
        (root / "fall2009" / name).write_bytes(content)
    return {"train": 200, "val": 4, "test": 200}


@layout("fall2011", "fall11_whole.tar")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    (root / "fall11_whole.tar").write_bytes(tar(class_tars(101)))
    return {"train": 396, "val": 8}


@layout("imagenette", "nothing")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    monkeypatch.setattr("torchvision.datasets.Imagenette", lambda root, download: write_imagenette(Path(root)))
    return {"train": 30, "val": 10}


@layout("imagenette", "imagenette2/")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_imagenette(root)
    return {"train": 30, "val": 10}


@layout("imagenette", "imagenette2.tgz")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_imagenette(root / "unpacked")
    with tarfile.open(root / "imagenette2.tgz", "w:gz") as archive:
        archive.add(root / "unpacked/imagenette2", "imagenette2")
    return {"train": 30, "val": 10}


def pack(root: Path, folder: Path) -> None:
    with tarfile.open(root, "w:gz") as archive:
        archive.add(folder, folder.name)


@layout("cifar10", "nothing")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda root, download: write_cifar(Path(root)))
    return {"train": 15, "test": 3}


@layout("cifar10", "cifar-10-python.tar.gz")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    pack(root / "cifar-10-python.tar.gz", write_cifar(root / "unpacked"))
    return {"train": 15, "test": 3}


@layout("cifar10", "cifar-10-batches-py/")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_cifar_binary(root)
    return {"train": 15, "test": 3}


@layout("cifar10", "Kaggle's")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    kaggle = root / "kaggle"
    for split in ("train", "test"):
        (kaggle / split).mkdir(parents=True)
        for number in range(1, 41):
            (kaggle / split / f"{number}.png").write_bytes(picture(number, 32, 32, "PNG"))
    with (kaggle / "trainLabels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *((n, ("frog", "truck", "cat")[n % 3]) for n in range(1, 41))])
    return {"train": 40}


@layout("cifar10", "train/CLASS/")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_pictures(root / "cifar", {"train/frog": 4, "train/truck": 4, "test/frog": 1, "test/truck": 1})
    return {"train": 8, "test": 2}


@layout("cifar100", "cifar-100-python.tar.gz")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    pack(root / "cifar-100-python.tar.gz", write_cifar(root / "unpacked", classes=100))
    return {"train": 3, "test": 3}


SPLITS = {"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2, "test/dog": 1}


@layout("folder", "train/CLASS/*.jpg, with")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_pictures(root / "images", SPLITS)
    return {"train": 8, "val": 4, "test": 1}


@layout("folder", "the same by other usual names")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    renamed = {"train": "Training", "val": "valid", "test": "Testing"}
    counts = {f"{renamed[name.split('/')[0]]}/{name.split('/')[1]}": count for name, count in SPLITS.items()}
    write_pictures(root / "images", counts)
    return {"train": 8, "val": 4, "test": 1}


@layout("folder", "CLASS/*.jpg")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_pictures(root / "images", {"cat": 10, "dog": 20})
    return {"train": 27, "val": 3}


@layout("folder", "such a tree with a class")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_pictures(root / "vehicles", {"bus": 10, "car": 10, "train": 10})
    return {"train": 27, "val": 3}


@layout("folder", "a zip, tar")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_pictures(root / "unpacked", SPLITS)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for file in sorted((root / "unpacked").rglob("*.jpg")):
            archive.write(file, file.relative_to(root / "unpacked"))
    return {"train": 8, "val": 4, "test": 1}


def write_table(path: Path, header: tuple[str, ...], table: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *table])


def write_together(root: Path) -> list[tuple[str, ...]]:
    """Write pictures that lie together; return their names, labels and splits."""
    write_pictures(root, {"pictures": 20})
    return [(f"{n}.jpg", ("cat", "dog")[n % 2], ("train", "train", "val", "test")[n // 2 % 4]) for n in range(20)]


@layout("folder", "images that lie together")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    table = write_together(root / "images")
    write_table(root / "images/labels.csv", ("image", "label"), [row[:2] for row in table])
    return {"train": 18, "val": 2}


@layout("folder", "the same with a column split")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    write_table(root / "images/labels.csv", ("image", "label", "split"), write_together(root / "images"))
    return {"train": 12, "val": 4, "test": 4}


@layout("folder", "labels in the names")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    (root / "dogs-vs-cats/train").mkdir(parents=True)
    (root / "dogs-vs-cats/test1").mkdir()
    for n in range(10):
        for label in ("cat", "dog"):
            (root / f"dogs-vs-cats/train/{label}.{n}.jpg").write_bytes(picture(n))
        (root / f"dogs-vs-cats/test1/{n}.jpg").write_bytes(picture(n))
    write_table(root / "dogs-vs-cats/sampleSubmission.csv", ("id", "label"), [(str(n), "0") for n in range(10)])
    return {"train": 18, "val": 2}


@layout("folder", "Tiny ImageNet")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    tiny = write_pictures(
        root / "tiny-imagenet-200", {**{f"train/{id}/images": 3 for id in IDS}, "val/images": 8, "test/images": 8}
    )
    table = "".join(f"{n}.jpg\t{IDS[n % 4]}\t0\t32\t44\t62\n" for n in range(8))
    (tiny / "val/val_annotations.txt").write_text(table, encoding="utf-8")
    return {"train": 12, "val": 8}


@layout("synthetic", "nothing")
def _(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    return {"train": 50, "val": 50, "test": 50}
