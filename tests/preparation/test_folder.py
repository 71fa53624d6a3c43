"""The dataset `folder`: which layouts are understood, and what is said of what is left out."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from helpers import picture, write_pictures

from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.sources.folder import folder
from repro.preparation.sources.source import Source


def names(source: Source, split: str) -> list[str]:
    return [reference.name for reference in source.splits[split]]


def counts(source: Source) -> dict[str, int]:
    return {split: len(references) for split, references in source.splits.items()}


def ids(source: Source) -> list[str]:
    return [info.id for info in source.classes]


def refused(match: str, path: Path | None) -> None:
    with pytest.raises(ReproError, match=match) as error:
        folder(path, 0)
    assert "\n" not in str(error.value)


def partial(match: str, path: Path, tmp_path: Path) -> Source:
    """Refused by `prepare` in one line, and left out with --allow-partial."""
    out = tmp_path / "store-of-partial"
    with pytest.raises(ReproError, match=match) as error:
        prepare("folder", out, source=path, size=8)
    assert "\n" not in str(error.value)
    prepare("folder", out, source=path, size=8, allow_partial=True)
    shutil.rmtree(out)
    return folder(path, 0)


def write_files(root: Path, files: Iterable[str]) -> Path:
    """Write a picture to each path below root."""
    for seed, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed))
    return root


def test_folder_with_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/dog": 3, "train/cat": 2, "val/cat": 1, "val/dog": 1, "test/dog": 2})
    source = folder(tmp_path, 0)
    assert ids(source) == ["cat", "dog"]
    assert names(source, "train") == [
        "train/cat/0.jpg", "train/cat/1.jpg", "train/dog/0.jpg", "train/dog/1.jpg", "train/dog/2.jpg"
    ]  # fmt: skip
    assert [reference.label for reference in source.splits["train"]] == [0, 0, 1, 1, 1]
    assert names(source, "val") == ["val/cat/0.jpg", "val/dog/0.jpg"]
    assert names(source, "test") == ["test/dog/0.jpg", "test/dog/1.jpg"]
    assert source.splits["test"][1].read() == (tmp_path / "test/dog/1.jpg").read_bytes()
    assert (source.notes, source.problems) == ((), ())


def test_one_in_ten_is_held_out_by_seed(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 25, "b": 4})
    source = folder(tmp_path, 0)
    assert set(source.splits) == {"train", "val"}
    assert [reference.label for reference in source.splits["val"]] == [0, 0, 1]
    assert not set(names(source, "train")) & set(names(source, "val"))
    assert len(source.splits["train"]) == 26
    assert names(folder(tmp_path, 0), "val") == names(source, "val")
    assert names(folder(tmp_path, 1), "val") != names(source, "val")


def test_test_images_stay_test_where_val_is_held_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    assert counts(folder(tmp_path, 0)) == {"train": 18, "test": 4, "val": 2}


def test_layouts_that_are_not_understood(tmp_path: Path) -> None:
    refused("--source", None)
    refused("no such file or folder.*nowhere", tmp_path / "nowhere")
    refused("0 class folders", tmp_path)
    refused("1 class folder", write_pictures(tmp_path / "one", {"train/a": 3, "val/a": 1}))
    refused("val' but no train", write_pictures(tmp_path / "untrained", {"val/a": 1, "val/b": 1}))
    refused("3 images in no class folders", write_files(tmp_path / "flat", ["1.jpg", "2.jpg", "3.jpg"]))
    refused("3 images in no class folders", write_files(tmp_path / "camera", ["IMG_1.jpg", "DSC_1.jpg", "DSC_2.jpg"]))


def test_incomplete_classes_are_left_out_if_that_is_allowed(tmp_path: Path) -> None:
    empty = write_pictures(tmp_path / "empty", {"train/a": 3, "train/b": 0, "train/c": 3, "val/a": 1, "val/c": 1})
    assert ids(partial("'b' holds no image files, it is empty", empty, tmp_path)) == ["a", "c"]

    single = write_pictures(tmp_path / "single", {"a": 3, "b": 1})
    assert counts(partial("'b' has one image", single, tmp_path)) == {"train": 3, "val": 1}
    all_single = write_pictures(tmp_path / "all-single", {"a": 1, "b": 1})
    assert counts(partial("2 classes have one image.*'a', 'b'", all_single, tmp_path)) == {"train": 2}

    more = write_pictures(tmp_path / "more", {"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1})
    assert counts(partial("'c' is in val but not in train", more, tmp_path)) == {"train": 2, "val": 1}

    bare = write_pictures(tmp_path / "bare", {"train/a": 2, "train/b": 2})
    (bare / "val").mkdir()
    assert counts(partial("val' holds no class folders", bare, tmp_path)) == {"train": 2, "val": 2}


def test_a_store_in_the_source_is_not_a_class(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", {"cat": 3, "dog": 3})
    prepare("folder", images / "store", source=images, size=8)
    assert ids(partial("store' is a store that repro prepare made", images, tmp_path)) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAINING", "valid", "TEST"),
        ("train", "dev", "test"),
        ("training_set", "validation_set", "test_set"),
    ],
)
def test_split_folders_by_their_usual_names(tmp_path: Path, train: str, val: str, test: str) -> None:
    write_pictures(
        tmp_path, {f"{folder}/{id}": count for folder, count in ((train, 3), (val, 2), (test, 1)) for id in ("a", "b")}
    )
    source = folder(tmp_path, 0)
    assert counts(source) == {"train": 6, "val": 4, "test": 2}
    assert ids(source) == ["a", "b"]
    for split, name in (("train", train), ("val", val), ("test", test)):
        assert (f"'{name}' is taken as {split}" in source.notes) == (name != split)


def test_ambiguous_split_folders_are_refused_by_name(tmp_path: Path) -> None:
    both = {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "validation/a": 1, "validation/b": 1}
    refused("two folders for val, 'val' and 'validation'", write_pictures(tmp_path / "both", both))
    other = {"train/a": 2, "train/b": 2, "holdout/a": 1, "holdout/b": 1}
    refused("'holdout' holds the classes of 'train'.*--no-splits", write_pictures(tmp_path / "other", other))
    unknown = {"part1/a": 2, "part1/b": 2, "part2/a": 1, "part2/b": 1}
    refused("'part1', 'part2' hold the same folders, 'a', 'b'.*--no-splits",
            write_pictures(tmp_path / "unknown", unknown))  # fmt: skip
    assert ids(folder(tmp_path / "unknown", 0, splits=False)) == ["part1", "part2"]


def test_folders_that_are_hardly_classes_are_refused_by_name(tmp_path: Path) -> None:
    signs = write_files(
        tmp_path / "signs", ["Final_Training/Images/0/0.ppm", "Final_Training/Images/1/0.ppm", "Final_Test/0.ppm"]
    )
    refused("'Final_Test', 'Final_Training' may be splits: rename them", signs)
    pets = write_files(tmp_path / "pets", ["images/cat_1.jpg", "images/dog_1.jpg", "annotations/trimaps/cat_1.png"])
    refused("'annotations', 'images' may be no class: give it alone", pets)
    assert ids(folder(pets, 0, splits=False)) == ["annotations", "images"]
    copies = write_pictures(tmp_path / "copies", {"cat": 2, "dog": 2, "augmented/cat": 2, "augmented/dog": 2})
    refused("'augmented' holds folders of the same names as the classes beside it", copies)
    assert ids(folder(copies, 0, splits=False)) == ["augmented", "cat", "dog"]


@pytest.mark.parametrize("name", ["train", "test", "Dev"])
def test_a_class_may_have_the_name_of_a_split(tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path, {"bus": 3, "car": 3, name: 3})
    refused(f"'{name}' may be a split or, like 'bus', 'car', a class: pass --no-splits", tmp_path)
    source = folder(tmp_path, 0, splits=False)
    assert ids(source) == sorted(["bus", "car", name])
    assert counts(source) == {"train": 6, "val": 3}


def test_other_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "samples": 2})
    (tmp_path / "cover.jpg").write_bytes(picture())
    (tmp_path / "more.zip").write_bytes(b"PK")
    notes = folder(tmp_path, 0).notes
    assert "left out 1 image beside the splits: 'cover.jpg'" in notes
    assert "skipped 1 file that is not an image: 1 .zip" in notes
    assert "left out 'samples': not named train, val or test" in folder(tmp_path, 0).notes


def test_images_in_no_class_folder_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "stray.jpg").write_bytes(picture())
    source = folder(tmp_path, 0)
    assert counts(source) == {"train": 2, "val": 2}
    assert any("left out 1 image" in note and "'stray.jpg'" in note for note in source.notes)


def test_single_folders_above_the_classes_are_entered(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"download/pets/cat": 3, "download/pets/dog": 3})
    (tmp_path / "download/__MACOSX").mkdir()
    (tmp_path / "README").write_text("pets")
    source = folder(tmp_path, 0)
    assert ids(source) == ["cat", "dog"]
    assert [note for note in source.notes if "the images are in" in note] == [
        f"the images are in '{tmp_path / 'download/pets'}'"
    ]
    (tmp_path / "sizes.csv").write_text("file,width,height\n0.jpg,40,30\n", encoding="utf-8")
    table = "file,width,height\n" + "".join(f"{id}/{n}.jpg,40,{n}\n" for id in ("cat", "dog") for n in range(3))
    (tmp_path / "download/sizes.csv").write_text(table, encoding="utf-8")
    assert ids(folder(tmp_path, 0)) == ["cat", "dog"]
    nested = write_pictures(
        tmp_path / "nested", {f"{split}/{split}/{id}": 2 for split in ("train", "val") for id in "ab"}
    )
    assert counts(folder(nested, 0)) == {"train": 4, "val": 4}


def test_a_source_one_level_too_low_or_a_store(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    source = folder(images / "train", 0)
    assert counts(source) == {"train": 4, "val": 2}
    assert any("give the folder above it to read 'val' as well" in note for note in source.notes)
    refused("'.*cat' holds 3 images in no class folders.*give the folder above", images / "train/cat")
    prepare("folder", tmp_path / "store", source=images, size=8)
    refused("is a store that repro prepare made", tmp_path / "store")


def test_classes_that_are_numbers_are_in_numeric_order(tmp_path: Path) -> None:
    write_pictures(tmp_path, {str(number): 2 for number in (0, 1, 2, 10, 11, 100)})
    source = folder(tmp_path, 0)
    assert ids(source) == ["0", "1", "2", "10", "11", "100"]
    assert [reference.label for reference in source.splits["train"]] == [0, 1, 2, 3, 4, 5]
    assert any("numeric order" in note for note in source.notes)
    few = folder(write_pictures(tmp_path / "few", {"0": 2, "1": 2}), 0)
    assert not any("numeric order" in note for note in few.notes)


def test_class_names_differ_by_case(tmp_path: Path) -> None:
    assert ids(folder(write_pictures(tmp_path, {"Cat": 2, "cat": 2}), 0)) == ["Cat", "cat"]


def test_wnids_get_names(tmp_path: Path) -> None:
    source = folder(write_pictures(tmp_path, {"n01440764": 2, "n99999999": 2}), 0)
    assert [(info.id, info.name) for info in source.classes] == [("n01440764", "tench"), ("n99999999", "n99999999")]


def pack(root: Path, path: Path) -> Path:
    """Pack a folder as the file's ending says, by the standard library."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, file.relative_to(root.parent))
    else:
        with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as packed:
            packed.add(root, root.name)
    return path


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_holds_what_its_folder_holds(tmp_path: Path, ending: str) -> None:
    root = write_pictures(tmp_path / "pets", {"train/cat": 4, "train/dog": 4, "val/cat": 1, "val/dog": 2})
    (root / "train/cat/.DS_Store").write_bytes(b"x")
    (root / "train/cat/noext").write_bytes(picture(77))
    (root / "notes.txt").write_text("pets")
    expected = folder(root, 0)
    alone = tmp_path / "alone"
    alone.mkdir()
    archive = pack(root, alone / f"pets.{ending}")
    for path in (archive, alone):  # the archive itself, or the folder that holds it
        source = folder(path, 0)
        for split in ("train", "val"):
            found = [(r.name, r.label, r.read()) for r in source.splits[split]]
            assert sorted(found) == sorted((r.name, r.label, r.read()) for r in expected.splits[split])
        assert all(str(archive) in reference.identity() for reference in source.splits["train"])
    stores = [prepare("folder", tmp_path / str(k), source=path, size=8) for k, path in enumerate((root, archive))]
    if ending in ("zip", "tar"):  # a compressed tar keeps its own order
        assert stores[0].fingerprint == stores[1].fingerprint


def test_a_table_labels_images_that_lie_together(tmp_path: Path) -> None:
    files = [f"images/{number}.jpg" for number in range(1, 7)]
    for name, table in {
        "csv": "image,label\n" + "".join(f"{n}.jpg,{'cat' if n % 2 else 'dog'}\n" for n in range(1, 7)),
        "stems": "id;breed\n" + "".join(f"{n};{'cat' if n % 2 else 'dog'}\n" for n in range(1, 7)),
        "paths": "\ufefflabel\tpath\n" + "".join(f"{'cat' if n % 2 else 'dog'}\timages/{n}.jpg\n" for n in range(1, 7)),
        "caffe": "".join(f"images/{n}.jpg {'cat' if n % 2 else 'dog'}\n" for n in range(1, 7)),
        "endings": "file,label,\n" + "".join(f"{n}.png,{'cat' if n % 2 else 'dog'},\n" for n in range(1, 7)),
        "absolute": "file,label\n"
        + "".join(f"C:\\data\\images\\{n}.jpg,{'cat' if n % 2 else 'dog'}\n" for n in range(1, 7)),
        "more": "id,width,label\n" + "".join(f"{n},40,{'cat' if n % 2 else 'dog'}\n" for n in range(1, 7)),
    }.items():
        root = write_files(tmp_path / name, files)
        (root / "labels.csv").write_text(table)
        source = folder(root, 0)
        labels = {r.name: ids(source)[r.label] for split in source.splits.values() for r in split}
        assert labels == {f"images/{n}.jpg": "cat" if n % 2 else "dog" for n in range(1, 7)}, name
        assert counts(source) == {"train": 4, "val": 2}
        assert source.notes == ("labels from 'labels.csv': 'cat', 'dog'",)


def test_a_table_that_does_not_fit_its_images(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", [f"{number}.jpg" for number in range(1, 6)])
    table = root / "labels.csv"
    table.write_text("image,label\n1.jpg,cat\n2.jpg,dog\n3.jpg,cat\n4.jpg,dog\n9.jpg,dog\n")
    source = partial("names 1 missing image: '9.jpg'", root, tmp_path)
    assert any("left out 1 image without a label: '5.jpg'" in note for note in source.notes)
    table.write_text("image,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,dog\n")
    refused("gives '1.jpg' two labels, 'cat' and 'dog'", root)
    table.write_text("image,label\n1.jpg,cat\n2.jpg,\n")
    refused("gives '2.jpg' no label", root)
    table.write_text("image,label\n1.jpg,cat\n2.jpg\n3.jpg,dog\n", encoding="utf-8")
    refused("gives '2.jpg' no label", root)
    table.write_text("image,colour,size\n1.jpg,red,s\n2.jpg,red,l\n3.jpg,blue,l\n")
    refused("may hold labels in 2 columns, 'colour', 'size': name the column 'label'", root)
    table.write_text("image,label\n" + "".join(f"{n}.jpg,{'cat' if n % 2 else 'dog'}\n" for n in range(1, 6)))
    (root / "other.csv").write_text("image,label\n" + "".join(f"{n}.jpg,cat\n" for n in range(1, 6)))
    refused("labels '2.jpg' as 'cat', 'labels.csv' as 'dog': remove one", root)


def test_a_table_with_a_column_of_splits_or_one_table_for_each(tmp_path: Path) -> None:
    rows = [(n, "cat" if n % 2 else "dog", ("train", "train", "valid", "test")[n // 2 % 4]) for n in range(16)]
    column = write_files(tmp_path / "column", [f"images/{n}.jpg" for n, _, _ in rows])
    (column / "all.csv").write_text("file,label,split\n" + "".join(f"{n}.jpg,{label},{s}\n" for n, label, s in rows))
    tables = write_files(tmp_path / "tables", [f"images/{n}.jpg" for n, _, _ in rows])
    for split in ("train", "valid", "test"):
        chosen = "".join(f"{n}.jpg,{label}\n" for n, label, s in rows if s == split)
        (tables / f"{split}.csv").write_text("file,label\n" + chosen)
    for root in (column, tables):
        source = folder(root, 0)
        assert counts(source) == {"train": 8, "val": 4, "test": 4}
        assert set(names(source, "val")) == {f"images/{n}.jpg" for n, _, split in rows if split == "valid"}


def test_labels_that_train_lacks_are_a_problem(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", [f"{n}.jpg" for n in range(10)])
    rows = [f"{n}.jpg,{('cat', 'dog')[n % 2]},train" for n in range(8)]
    table = "\n".join(["image,label,split", *rows, "8.jpg,cat,test", "9.jpg,cow,test"])
    (root / "labels.csv").write_text(table, encoding="utf-8")
    source = partial("1 class that train lacks: 'cow'", root, tmp_path)
    assert (ids(source), counts(source)) == (["cat", "dog"], {"train": 6, "val": 2, "test": 1})


def test_a_table_of_train_is_not_used_for_test(tmp_path: Path) -> None:
    """Kaggle numbers the images of train and test alike."""
    root = write_files(tmp_path, [f"{split}/{n}.png" for split in ("train", "test") for n in range(1, 9)])
    (root / "trainLabels.csv").write_text(
        "id,label\n" + "".join(f"{n},{'cat' if n % 2 else 'dog'}\n" for n in range(1, 9))
    )
    (root / "sampleSubmission.csv").write_text("id,label\n" + "".join(f"{n},cat\n" for n in range(1, 9)))
    source = folder(root, 0)
    assert counts(source) == {"train": 6, "val": 2}
    assert any("left out 'test': its 8 images have no labels" in note or "8 images without a label" in note
               for note in source.notes)  # fmt: skip
    (root / "trainLabels.csv").rename(root / "labels.csv")
    assert counts(folder(root, 0)) == {"train": 6, "val": 2}


def test_a_table_and_folders_that_disagree(tmp_path: Path) -> None:
    root = write_files(tmp_path, [f"part{n % 2}/{n}.jpg" for n in range(12)])
    (root / "labels.csv").write_text(
        "image,label\n" + "".join(f"{n}.jpg,{'cat' if n % 3 else 'dog'}\n" for n in range(12))
    )
    refused("the folders 'part0', 'part1' and the table 'labels.csv'.*disagree", root)


@pytest.mark.parametrize("pattern", ["{}.{}.jpg", "{}_{}.jpg", "{}-{:03}.jpg", "{} ({}).jpg"])
def test_labels_in_names(tmp_path: Path, pattern: str) -> None:
    files = [f"train/{pattern.format(label, n)}" for label in ("cat", "dog") for n in range(10)]
    source = folder(write_files(tmp_path, [*files, "test1/1.jpg", "test1/2.jpg"]), 0)
    assert ids(source) == ["cat", "dog"]
    assert counts(source) == {"train": 18, "val": 2}
    assert all(ids(source)[r.label] in r.name for split in source.splits.values() for r in split)
    assert "labels from the names of the images: 'cat', 'dog'" in source.notes
    assert any("'test1'" in note for note in source.notes)


def test_tiny_imagenet(tmp_path: Path) -> None:
    """Class folders with a folder of images each, a table in val/, and images without labels in test/."""
    wnids = ["n01443537", "n01629819"]
    files = [f"train/{id}/images/{id}_{n}.JPEG" for id in wnids for n in range(3)]
    root = write_files(tmp_path, [*files, *(f"{s}/images/{s}_{n}.JPEG" for s in ("val", "test") for n in range(4))])
    for id in wnids:
        (root / f"train/{id}/{id}_boxes.txt").write_text(f"{id}_0.JPEG\t0\t0\t62\t62\n")
    (root / "val/val_annotations.txt").write_text(
        "".join(f"val_{n}.JPEG\t{wnids[n % 2]}\t0\t32\t44\t62\n" for n in range(4))
    )
    (root / "wnids.txt").write_text("\n".join(wnids))
    source = folder(root, 0)
    assert ids(source) == wnids
    assert counts(source) == {"train": 6, "val": 4}
    assert {r.name: r.label for r in source.splits["val"]} == {f"val/images/val_{n}.JPEG": n % 2 for n in range(4)}
    assert "left out 'test': its 4 images have no labels" in source.notes
    (root / "val/val_annotations.txt").unlink()
    refused("val/images' holds 4 images, neither in class folders nor with labels in a table", root)


def test_nothing_is_read_while_listing(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 3, "b": 3})
    source = folder(tmp_path, 0)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        source.splits["train"][0].read()


def test_real_photographs(real_images: Callable[[str], Path], tmp_path: Path) -> None:
    images = real_images("catsdogs128")
    expected = folder(images, 0)
    source = folder(pack(images, tmp_path / "catsdogs.zip"), 0)
    assert counts(source) == counts(expected) == {"train": 1600, "val": 500}
    assert [(r.name, r.label) for r in source.splits["val"]] == [(r.name, r.label) for r in expected.splits["val"]]
    assert source.splits["val"][99].read() == expected.splits["val"][99].read()


def test_links_are_followed_as_torchvision_does(tmp_path: Path) -> None:
    elsewhere = write_pictures(tmp_path / "elsewhere", {"pictures": 3})
    root = write_pictures(tmp_path / "root", {"dog": 3, "bird": 2})
    (root / "cat").symlink_to(elsewhere / "pictures")
    (root / "dog/linked").symlink_to(elsewhere / "pictures")
    (root / "dog/file.jpg").symlink_to(elsewhere / "pictures/0.jpg")
    (root / "dog/gone.jpg").symlink_to("/nonexistent/gone.jpg")
    (root / "dog/loop").symlink_to(root)
    (root / "dog/itself").symlink_to("itself")
    (root / "bird/up").symlink_to(tmp_path)
    source = folder(root, 0, splits=False)
    found = sorted(r.name for split in source.splits.values() for r in split)
    assert found == sorted(
        [f"{id}/{n}.jpg" for id, count in (("cat", 3), ("dog", 3), ("bird", 2)) for n in range(count)]
        + [f"dog/linked/{n}.jpg" for n in range(3)]
        + ["dog/file.jpg"]
    )
    assert "skipped 2 links to nothing: 'dog/gone.jpg', 'dog/itself'" in source.notes
    assert "skipped 2 links to folders above them: 'bird/up', 'dog/loop'" in source.notes


def test_two_links_that_lead_to_each_other(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "root", {"a": 2, "b": 2})
    (root / "a/to_b").symlink_to(root / "b")
    (root / "b/to_a").symlink_to(root / "a")
    found = sorted(r.name for split in folder(root, 0).splits.values() for r in split)
    assert found == ["a/0.jpg", "a/1.jpg", "a/to_b/0.jpg", "a/to_b/1.jpg", "b/0.jpg", "b/1.jpg", "b/to_a/0.jpg",
                     "b/to_a/1.jpg"]  # fmt: skip


def test_a_class_that_is_a_link_to_nothing_is_a_problem(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "root", {"cat": 4, "dog": 4})
    (root / "cow").symlink_to("/nonexistent/cows")
    assert ids(partial("cow' is a link to nothing", root, tmp_path)) == ["cat", "dog"]


SYSTEM = ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", ".ipynb_checkpoints", "#recycle", "lost+found"]


def test_files_of_operating_systems_are_skipped_everywhere_and_counted(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    for where in (".", "train", "train/cat", "val"):
        for name in SYSTEM:
            (root / where / name / "cat").mkdir(parents=True)
            (root / where / name / "cat/0.jpg").write_bytes(picture())
        (root / where / "Thumbs.db").write_bytes(picture())
        (root / where / "._0.jpg").write_bytes(b"Mac OS X")
    source = folder(root, 0)
    assert counts(source) == {"train": 4, "val": 2}
    (note,) = source.notes
    assert note.startswith(f"skipped {4 * (len(SYSTEM) + 2)} system files and folders: 4 @eaDir, ")
    assert "4 ._*" in note


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 2, "b": 2})
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a/pipe.jpg")
    assert counts(folder(tmp_path, 0)) == {"train": 2, "val": 2}
