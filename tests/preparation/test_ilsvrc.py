import bz2
import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets.imagenet as official_parser
from helpers import picture
from official_archives import (
    CLASSES,
    TEST,
    VALIDATION,
    class_tars,
    kit,
    md5,
    meta,
    tar,
    unlabelled_2012,
    write_ilsvrc2010,
    write_ilsvrc2012,
)

import repro.preparation.prepare
import repro.preparation.sources.ilsvrc as ilsvrc
from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.preprocess import to_square
from repro.preparation.sources.ilsvrc import YEARS, ilsvrc2010, ilsvrc2012
from repro.preparation.sources.source import Source
from repro.preparation.sources.tar import Archive
from repro.verification.store import verify_store

FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return write_ilsvrc2012(tmp_path / "2012")


@pytest.fixture
def as_published(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archives as if they were the official ones: their sizes, checksums and counts are those expected."""
    year = ilsvrc.Year(
        year=2012,
        kit=YEARS[2012].kit,
        archives=YEARS[2012].archives,
        images={"train": 12, "val": 8},
        bytes={name: (archives / name).stat().st_size for name in FILES},
        md5={name: md5(archives / name) for name in FILES},
        classes=4,
    )
    monkeypatch.setitem(YEARS, 2012, year)
    return archives


def refused(match: str, path: Path, read: object = ilsvrc2012) -> None:
    with pytest.raises(ReproError, match=match) as error:
        read(path, 0)  # type: ignore[operator]
    assert "\n" not in str(error.value)


def listing(source: Source, split: str) -> dict[str, int]:
    return {reference.name: reference.label for reference in source.splits[split]}


def test_2012_as_torchvision_reads_it(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes, labels, names and bytes equal those of torchvision's parser for the same files."""
    source = ilsvrc2012(archives, 0)
    reference = Path(shutil.copytree(archives, tmp_path / "torchvision"))
    known = {part: (name, md5(archives / name)) for part, name in zip(("train", "val", "devkit"), FILES, strict=True)}
    monkeypatch.setattr(official_parser, "ARCHIVE_META", known)
    with pytest.MonkeyPatch.context() as patch:  # its use of tarfile draws a deprecation warning
        patch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter), raising=False)
        for split in ("train", "val"):
            expected = official_parser.ImageNet(str(reference), split)
            assert [info.id for info in source.classes] == expected.wnids
            assert [info.name for info in source.classes] == [names[0] for names in expected.classes]
            found = source.splits[split]
            assert [(r.name, r.label) for r in found] == [
                (Path(path).relative_to(reference).as_posix(), label) for path, label in sorted(expected.imgs)
            ]
            for image, (path, _) in zip(found, sorted(expected.imgs), strict=True):
                assert image.read() == Path(path).read_bytes()


def test_2012_ground_truth_is_by_number_in_any_order_of_the_archive(archives: Path) -> None:
    labels = {name.split("/")[-1]: label for name, label in listing(ilsvrc2012(archives, 0), "val").items()}
    ids = sorted(id for id, _ in CLASSES.values())
    for number, kit_number in enumerate(VALIDATION, 1):
        assert ids[labels[f"ILSVRC2012_val_{number:08}.JPEG"]] == CLASSES[kit_number][0]


def write_unlabelled(root: Path, layout: str) -> None:
    """Write the test images beside the archives: in an archive, flat or in a folder of it, or as files."""
    images = unlabelled_2012()
    if layout in ("flat", "folder"):
        members = {f"{'test/' if layout == 'folder' else ''}{name}": content for name, content in images.items()}
        (root / f"ILSVRC2012_img_test{'' if layout == 'flat' else '_v10102019'}.tar").write_bytes(tar(members))
        return
    folder = root / layout
    folder.mkdir(parents=True)
    for name, content in images.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "layout", ["flat", "folder", "test", "ILSVRC2012_img_test_v10102019", "ILSVRC/Data/CLS-LOC/test"]
)
def test_2012_test_images_are_a_split_without_labels(archives: Path, layout: str) -> None:
    without = ilsvrc2012(archives, 0)
    assert without.splits.keys() == {"train", "val"}
    assert without.class_numbers == ()
    write_unlabelled(archives, layout)
    source = ilsvrc2012(archives, 0)
    assert [(r.name, r.label) for r in source.splits["test"]] == [
        (f"test/ILSVRC2012_test_{number:08}.JPEG", -1) for number in range(1, 13)
    ]
    assert [r.read() for r in source.splits["test"]] == [picture(80_000 + number) for number in range(12)]
    for split in ("train", "val"):
        assert listing(source, split) == listing(without, split)
    assert [CLASSES[number][0] for number in source.class_numbers] == [info.id for info in source.classes]
    assert set(source.problems) - set(without.problems) == {"test has 12 images, the official set 100,000"}


def test_2012_without_a_kit_has_no_class_numbers(archives: Path) -> None:
    write_unlabelled(archives, "test")
    (archives / YEARS[2012].kit).unlink()
    source = ilsvrc2012(archives, 0)
    assert len(source.splits["test"]) == 12
    assert source.class_numbers == ()
    assert any("if the development kit ILSVRC2012_devkit_t12.tar.gz is added before" in note for note in source.notes)


def test_2012_what_is_not_a_test_image_is_a_problem(archives: Path) -> None:
    (archives / "test").mkdir()
    (archives / "test/other.JPEG").write_bytes(picture())
    without = ilsvrc2012(archives, 0)  # a folder of other images is left out
    assert "test" not in without.splits
    write_unlabelled(archives, "flat")
    assert "test" in ilsvrc2012(archives, 0).splits
    (archives / "ILSVRC2012_img_test.tar").write_bytes(tar({"other.JPEG": picture(), **unlabelled_2012(2)}))
    assert "1 image of test without a number of the challenge: 'other.JPEG'" in ilsvrc2012(archives, 0).problems
    (archives / "ILSVRC2012_img_test.tar").write_bytes(tar({"other.JPEG": picture()}))
    assert any("has no images such as ILSVRC2012_test_00000001" in each for each in ilsvrc2012(archives, 0).problems)
    write_unlabelled(archives, "folder")
    refused(r"img_test\.tar' and '.*img_test_v10102019\.tar' both hold the test images", archives)


def test_2012_stores_with_and_without_test_images(archives: Path, tmp_path: Path) -> None:
    """The test images change neither the other splits nor a store without them, as --limit-per-class makes one."""
    options = {"source": archives, "size": 16, "allow_partial": True}
    plain = prepare("ilsvrc2012", tmp_path / "plain", **options)  # type: ignore[arg-type]
    limited = prepare("ilsvrc2012", tmp_path / "limited", **options, limit_per_class=2)  # type: ignore[arg-type]
    assert "class_numbers" not in plain.manifest
    write_unlabelled(archives, "folder")
    store = prepare("ilsvrc2012", tmp_path / "store", **options)  # type: ignore[arg-type]
    assert not store.splits["test"].labelled
    assert len(store.splits["test"]) == 12
    assert [CLASSES[number][0] for number in store.manifest["class_numbers"]] == [info.id for info in store.classes]
    assert verify_store(store.path) == []
    for split in ("train", "val"):
        assert store.manifest["splits"][split] == plain.manifest["splits"][split]
    notes: list[str] = []
    again = prepare("ilsvrc2012", tmp_path / "again", **options, limit_per_class=2, on_note=notes.append)  # type: ignore[arg-type]
    assert "test has no labels: --limit-per-class leaves it out" in notes
    assert again.fingerprint == limited.fingerprint


def test_2012_test_images_of_which_none_can_be_decoded(archives: Path, tmp_path: Path) -> None:
    (archives / "ILSVRC2012_img_test.tar").write_bytes(tar(dict.fromkeys(unlabelled_2012(2), b"no picture")))
    with pytest.raises(ReproError, match=r"^no image in test can be decoded; "):
        prepare("ilsvrc2012", tmp_path / "store", source=archives, size=16, allow_partial=True)


def test_2010_has_its_own_order_of_labels_and_a_test_split(tmp_path: Path) -> None:
    source = ilsvrc2010(write_ilsvrc2010(tmp_path), 0)
    assert [info.id for info in source.classes] == [id for id, _ in CLASSES.values()]
    assert [info.id for info in source.classes] != sorted(info.id for info in source.classes)
    for split, truth in (("val", VALIDATION), ("test", TEST)):
        labels = {name.split("/")[-1]: label for name, label in listing(source, split).items()}
        assert [labels[f"ILSVRC2010_{split}_{n:08}.JPEG"] for n in range(1, len(truth) + 1)] == [k - 1 for k in truth]
    assert len(source.splits["train"]) == 12


def test_2010_patches_replace_images(tmp_path: Path) -> None:
    write_ilsvrc2010(tmp_path)
    patches = {
        "patch_images/train/n01440764_7.JPEG": b"patched",
        "patch_images/val/ILSVRC2010_val_00000002.JPEG": b"too",
    }
    (tmp_path / "patch_images.tar").write_bytes(tar(patches))
    source = ilsvrc2010(tmp_path, 0)
    contents = {r.name.split("/")[-1]: r.read() for split in source.splits.values() for r in split}
    assert len(contents) == 25
    assert contents["n01440764_7.JPEG"] == b"patched"
    assert contents["ILSVRC2010_val_00000002.JPEG"] == b"too"
    assert contents["n01440764_0.JPEG"] not in (b"patched", b"too")


def test_2010_in_class_folders_makes_the_same_store(tmp_path: Path) -> None:
    archives, folders = write_ilsvrc2010(tmp_path / "2010"), tmp_path / "folders"
    source = ilsvrc2010(archives, 0)
    for split in ("train", "val", "test"):
        for reference in source.splits[split]:
            (folders / reference.name).parent.mkdir(parents=True, exist_ok=True)
            (folders / reference.name).write_bytes(reference.read())
    refused("cannot read the development kit", folders, ilsvrc2010)
    shutil.copy(archives / YEARS[2010].kit, folders)
    stores = [
        prepare("ilsvrc2010", tmp_path / f"store{number}", source=path, size=16, allow_partial=True)
        for number, path in enumerate((archives, folders))
    ]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert [info.id for info in stores[1].classes] == [id for id, _ in CLASSES.values()]
    (folders / "train/n00000001").mkdir()
    shutil.copy(folders / source.splits["train"][0].name, folders / "train/n00000001")
    refused("class 'n00000001' is not in the development kit", folders, ilsvrc2010)


def test_2010_test_truth_that_is_incomplete_or_missing(tmp_path: Path) -> None:
    truth = write_ilsvrc2010(tmp_path) / "ILSVRC2010_test_ground_truth.txt"
    truth.write_text("".join(f"{number}\n" for number in TEST[:3]))
    refused(
        r"ILSVRC2010_test_ground_truth\.txt' ends at line 3, before 'test/ILSVRC2010_test_0000000", tmp_path, ilsvrc2010
    )
    truth.write_text("1\ntwo\n")
    refused("has a line that is not a number", tmp_path, ilsvrc2010)
    truth.unlink()
    source = ilsvrc2010(tmp_path, 0)
    assert any("cannot read" in problem and truth.name in problem for problem in source.problems)
    assert "test has 0 images, the official set 150,000" in source.problems


def test_2012_without_its_kit_has_train_alone(archives: Path) -> None:
    (archives / FILES[2]).unlink()
    source = ilsvrc2012(archives, 0)
    assert list(source.splits) == ["train"]
    assert [info.id for info in source.classes] == sorted(id for id, _ in CLASSES.values())
    assert any(f"{FILES[2]}' is missing" in problem for problem in source.problems)


def test_invalid_development_kits(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = {**CLASSES, 4: (CLASSES[1][0], "a second kit fox")}
    for changes, match in [
        ({"meta": meta(2012, twice)}, f"two classes with the id '{CLASSES[1][0]}'"),
        ({"meta": meta(2012, {**CLASSES, 4: ("../../x", "no id")})}, r"'\.\./\.\./x' is not a WordNet id"),
        ({"meta": meta(2012, {1: CLASSES[1], 3: CLASSES[3]})}, "not numbered from 1 without gaps"),
        ({"meta": b"MATLAB 5.0 MAT-file" + bytes(200)}, r"cannot read meta\.mat"),
        ({"meta": b""}, r"has no data/meta\.mat"),
        ({"truth": b"1\n2\nx\n"}, "has a line that is not a number"),
    ]:
        (archives / FILES[2]).write_bytes(kit(2012, VALIDATION, **changes))
        refused(match, archives)
    monkeypatch.setattr(ilsvrc, "KIT_BYTES", 100)
    (archives / FILES[2]).write_bytes(kit(2012, VALIDATION))
    refused("decompresses to more than a development kit holds", archives)


def test_links_and_unsafe_names_in_a_kit_are_not_followed(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1\n" * len(VALIDATION))
    with tarfile.open(archives / FILES[2], "w:gz") as archive:
        for name, kind in [
            ("ILSVRC2012_devkit_t12/data/meta.mat", tarfile.REGTYPE),
            ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", tarfile.SYMTYPE),
            ("../../escaped", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, content = kind, str(tmp_path / "secret"), meta(2012)
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    refused("has no data/ILSVRC2012_validation_ground_truth.txt", archives)
    assert sorted(tmp_path.rglob("*")) == before


def test_kaggle_solution_that_is_incomplete_or_missing(archives: Path, tmp_path: Path) -> None:
    images, solution = tmp_path / "Data/CLS-LOC", tmp_path / "LOC_val_solution.csv"  # one folder less is fine too
    source = ilsvrc2012(archives, 0)
    for split in ("train", "val"):
        for reference in source.splits[split]:
            path = images / (reference.name if split == "train" else f"val/{Path(reference.name).name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reference.read())
    assert any("LOC_val_solution.csv" in problem for problem in ilsvrc2012(tmp_path, 0).problems)
    assert list(ilsvrc2012(tmp_path, 0).splits) == ["train"]
    rows = [f"{Path(r.name).stem},{source.classes[r.label].id} 1 2 3 4 " for r in source.splits["val"]]
    solution.write_text("\n".join(["ImageId,PredictionString", *rows]))
    assert listing(ilsvrc2012(tmp_path, 0), "val") == listing(source, "val")
    solution.write_text("\n".join(["ImageId,PredictionString", *rows[1:]]))
    refused(f"has no line for '{Path(source.splits['val'][0].name).name}'", tmp_path)
    solution.write_text("\n".join([*rows[1:], f"{rows[0].split(',')[0]},n00000001 1 2 3 4"]))
    with pytest.raises(ReproError, match="1 image of val in classes that train lacks: 'n00000001'"):
        prepare("ilsvrc2012", tmp_path / "store", source=tmp_path, size=16)


def test_every_layout_of_2012_makes_the_same_store(archives: Path, tmp_path: Path) -> None:
    source = ilsvrc2012(archives, 0)
    folders = tmp_path / "folders"
    kaggle = tmp_path / "kaggle"
    solution = ["ImageId,PredictionString"]
    for split in ("train", "val"):
        for reference in source.splits[split]:
            for path in (
                folders / reference.name,
                kaggle
                / "ILSVRC/Data/CLS-LOC"
                / (reference.name if split == "train" else f"val/{Path(reference.name).name}"),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(reference.read())
            if split == "val":
                solution.append(f"{Path(reference.name).stem},{source.classes[reference.label].id} 85 1 499 272 ")
    (kaggle / "ILSVRC/Data/CLS-LOC/test").mkdir()
    (kaggle / "LOC_val_solution.csv").write_text("\n".join(reversed(solution[1:])))
    mapping = "".join(f"{id} {words}\n" for id, words in CLASSES.values())
    (kaggle / "LOC_synset_mapping.txt").write_text(mapping)
    shutil.copy(archives / FILES[2], folders)
    stores = [
        prepare("ilsvrc2012", tmp_path / f"store{number}", source=path, size=16, allow_partial=True)
        for number, path in enumerate((archives, folders, kaggle))
    ]
    assert len({store.fingerprint for store in stores}) == 1
    assert len({store.manifest["source_fingerprint"] for store in stores}) == 1
    assert len({tuple(store.splits["val"].names) for store in stores}) == 1
    assert [info.name for info in stores[0].classes] == ["tench", "crane", "kit fox", "crane"]
    first = stores[0].splits["train"].images(np.array([0]))[0]
    np.testing.assert_array_equal(first, to_square(source.splits["train"][0].read(), 16))


def test_official_counts_and_checksums_are_verified_and_reported(as_published: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    prepare("ilsvrc2012", tmp_path / "store", source=as_published, size=16, on_note=notes.append)
    assert "train: 12 images, as published" in notes
    assert f"{FILES[0]} is the official file" in notes
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(YEARS[2012].md5, FILES[1], "0" * 32)  # type: ignore[arg-type]
        with pytest.raises(ReproError, match=rf"{FILES[1]}' has the MD5 \w+, the official file 0000.*--allow-partial"):
            prepare("ilsvrc2012", tmp_path / "other", source=as_published, size=16)
        prepare("ilsvrc2012", tmp_path / "other", source=as_published, size=16, allow_partial=True)


def test_checksums_are_computed_once_per_file_and_compared_every_time(
    as_published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mismatch that one call allows is an error in the next; the checksum of a changed file is computed again."""
    monkeypatch.setattr(repro.preparation.prepare, "SHARD_IMAGES", 4)
    official = YEARS[2012].md5[FILES[0]]
    monkeypatch.setitem(YEARS[2012].md5, FILES[0], "0" * 32)  # type: ignore[arg-type]
    checked: list[str] = []

    def note(line: str) -> None:
        if line.startswith("checking"):
            checked.append(line.split()[1])

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    def again(**options: Any) -> None:
        prepare("ilsvrc2012", tmp_path / "store", source=as_published, size=16, on_note=note, **options)

    with pytest.raises(KeyboardInterrupt):
        again(allow_partial=True, on_progress=stop)
    assert checked == list(FILES)
    with pytest.raises(ReproError, match="the official file 0000"):
        again()
    assert len(checked) == 3
    monkeypatch.setitem(YEARS[2012].md5, FILES[0], official)  # type: ignore[arg-type]
    os.utime(as_published / FILES[0])
    again()
    assert checked[3:] == [FILES[0]]


@pytest.mark.parametrize("wrong", ["bytes", "images", "md5"])
def test_official_numbers_are_checked_before_any_image_is_read(
    as_published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    numbers = {"bytes": {FILES[1]: 5}, "images": {"train": 13, "val": 8}, "md5": {FILES[0]: "0" * 32}}
    monkeypatch.setitem(YEARS, 2012, replace(YEARS[2012], **{wrong: numbers[wrong]}))
    monkeypatch.setattr(repro.preparation.prepare, "make_shard", None)  # must not be called
    with pytest.raises(ReproError, match=r"official.*--allow-partial"):
        prepare("ilsvrc2012", tmp_path / "store", source=as_published, size=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2012"]


def test_missing_archives_are_an_error_or_skipped_with_allow_partial(as_published: Path, tmp_path: Path) -> None:
    (as_published / FILES[1]).unlink()
    with pytest.raises(
        ReproError, match=rf"{FILES[1]}' is missing.*val has 0 images, the official set 8.*--allow-partial"
    ):
        prepare("ilsvrc2012", tmp_path / "store", source=as_published, size=16)
    store = prepare("ilsvrc2012", tmp_path / "store", source=as_published, size=16, allow_partial=True)
    assert list(store.splits) == ["train"]


def test_a_file_of_another_size_is_named(as_published: Path) -> None:
    with (as_published / FILES[0]).open("ab") as file:
        file.write(bytes(512))
    assert "the official file" in ilsvrc2012(as_published, 0).problems[0]


def test_archives_that_contradict_each_other(archives: Path) -> None:
    intact = {name: (archives / name).read_bytes() for name in FILES}
    for name, content, match in [
        (FILES[2], kit(2012, VALIDATION[:5]), "ends at line 5, before"),
        (FILES[2], kit(2012, [*VALIDATION[:-1], 9]), "names class 9 of 4"),
        (FILES[2], intact[FILES[2]][:300], "cannot read the development kit"),
        (FILES[2], b"", "cannot read the development kit"),
        (FILES[0], tar({**class_tars(), "n99999999.tar": tar({})}), "has class n99999999"),
        (FILES[0], tar({**class_tars(), "sub/n01440764.tar": tar({})}), "second tar of class n01440764"),
        (FILES[0], tar({**class_tars(), "readme.txt": b""}), "readme.txt' is not the tar of a class"),
        (FILES[1], tar({"ILSVRC2012_val_1.JPEG": b""}), "has no number of an image"),
    ]:
        (archives / name).write_bytes(content)
        refused(match, archives)
        (archives / name).write_bytes(intact[name])
    tars = class_tars()
    tars["n02012849.tar"] = tar({})
    (archives / FILES[0]).write_bytes(tar(tars))
    assert "class n02012849 has no training images" in ilsvrc2012(archives, 0).problems


def test_no_training_images_make_no_store(archives: Path, tmp_path: Path) -> None:
    (archives / FILES[0]).write_bytes(tar({name: tar({}) for name in class_tars()}))
    with pytest.raises(ReproError, match="no training images of 'ilsvrc2012'"):
        prepare("ilsvrc2012", tmp_path / "store", source=archives, size=16, allow_partial=True)
    assert [path.name for path in tmp_path.iterdir()] == ["2012"]


def test_folders_without_the_dataset(tmp_path: Path) -> None:
    refused("ILSVRC2012_img_train.tar", tmp_path)
    refused("ILSVRC2010_images_train.tar", tmp_path, ilsvrc2010)
    refused("no such file or folder", tmp_path / "nowhere")
    with pytest.raises(ReproError, match="--source"):
        ilsvrc2012(None, 0)


def spread(source: Source, root: Path, place: Callable[[str], str]) -> Path:
    """Write the images of a source below root, at `place` of their names."""
    for split in source.splits.values():
        for reference in split:
            content = reference.read()
            assert isinstance(content, bytes)
            (root / place(reference.name)).parent.mkdir(parents=True, exist_ok=True)
            (root / place(reference.name)).write_bytes(content)
    return root


def same_images(source: Source, expected: Source) -> bool:
    """Do two sources have the same classes, and the same names, labels and bytes in the same order?"""
    return [info.id for info in source.classes] == [info.id for info in expected.classes] and all(
        [(r.name, r.label, r.read()) for r in source.splits[split]]
        == [(r.name, r.label, r.read()) for r in expected.splits[split]]
        for split in expected.splits
    )


def flat_val(name: str) -> str:
    return f"val/{Path(name).name}" if name.startswith("val/") else name


@pytest.mark.parametrize("form", ["tar", "tgz", "unpacked", "unpacked here", "above"])
def test_forms_of_the_development_kit(archives: Path, form: str) -> None:
    expected = ilsvrc2012(archives, 0)
    kit_file = archives / FILES[2]
    stem = "ILSVRC2012_devkit_t12"
    with tarfile.open(kit_file) as packed:
        members = {m.name: packed.extractfile(m).read() for m in packed if m.isreg()}  # type: ignore[union-attr]
    if form == "tar":
        (archives / f"{stem}.tar").write_bytes(tar(members))
    elif form == "tgz":
        shutil.copy(kit_file, archives / f"{stem}.tgz")
    elif form == "above":
        shutil.copy(kit_file, archives.parent)
    else:
        for name, content in members.items():
            path = archives / (name if form == "unpacked" else name.removeprefix(f"{stem}/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    kit_file.unlink()
    assert same_images(ilsvrc2012(archives, 0), expected)


def test_a_flat_val_gets_its_labels_from_the_kit_or_the_solution(archives: Path, tmp_path: Path) -> None:
    expected = ilsvrc2012(archives, 0)
    with_kit = spread(expected, tmp_path / "kit", flat_val)
    shutil.copy(archives / FILES[2], with_kit)
    assert same_images(ilsvrc2012(with_kit, 0), expected)
    with_solution = spread(expected, tmp_path / "solution", flat_val)
    lines = [f"{Path(r.name).stem},{expected.classes[r.label].id} 1 2 3 4" for r in expected.splits["val"]]
    solution = "\n".join(["ImageId,PredictionString", *lines, "", ""])
    (with_solution / "LOC_val_solution.csv").write_text(solution, encoding="utf-8")
    assert same_images(ilsvrc2012(with_solution, 0), expected)
    neither = spread(expected, tmp_path / "deep/er/neither/here", flat_val)
    assert list(ilsvrc2012(neither, 0).splits) == ["train"]
    assert any("there are no labels for val" in problem for problem in ilsvrc2012(neither, 0).problems)


def test_archives_and_folders_may_be_mixed(archives: Path, tmp_path: Path) -> None:
    expected = ilsvrc2012(archives, 0)
    mixed = spread(expected, tmp_path / "mixed", flat_val)
    shutil.rmtree(mixed / "val")
    shutil.copy(archives / FILES[1], mixed)
    shutil.copy(archives / FILES[2], mixed)
    assert same_images(ilsvrc2012(mixed, 0), expected)
    other = tmp_path / "other"
    other.mkdir()
    (other / "train").mkdir()
    for name, content in class_tars().items():
        (other / "train" / name).write_bytes(content)
    spread(replace(expected, splits={"val": expected.splits["val"]}), other, lambda name: name)
    shutil.copy(archives / FILES[2], other)
    assert same_images(ilsvrc2012(other, 0), expected)


def test_any_folder_of_kaggle_s_tree_is_understood(archives: Path, tmp_path: Path) -> None:
    expected = ilsvrc2012(archives, 0)
    root = tmp_path / "download/kaggle"
    images = spread(expected, root / "ILSVRC/Data/CLS-LOC", flat_val)
    lines = [f"{Path(r.name).stem},{expected.classes[r.label].id} 1 2 3 4" for r in expected.splits["val"]]
    (root / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n" + "\n".join(lines) + "\n\n", encoding="utf-8"
    )
    for path in (root.parent, root, root / "ILSVRC", root / "ILSVRC/Data", images, images / "train"):
        assert same_images(ilsvrc2012(path, 0), expected), path


def test_archives_with_what_macos_adds(archives: Path, tmp_path: Path) -> None:
    expected = ilsvrc2012(Path(shutil.copytree(archives, tmp_path / "copy")), 0)
    inner = {name: content for name, content in class_tars().items()}
    first = next(iter(inner))
    with tarfile.open(fileobj=io.BytesIO(inner[first])) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    inner[first] = tar({"./._n.JPEG": b"Mac OS X", ".DS_Store": b"x", **{f"./{k}": v for k, v in members.items()}})
    system = {"._n01440764.tar": b"Mac OS X", ".DS_Store": b"x", "__MACOSX/._n01440764.tar": b"Mac OS X"}
    (archives / FILES[0]).write_bytes(tar({**system, **inner}))
    with tarfile.open(archives / FILES[1]) as archive:
        val = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    (archives / FILES[1]).write_bytes(tar({"._a.JPEG": b"Mac OS X", **{f"./val/{k}": v for k, v in val.items()}}))
    source = ilsvrc2012(archives, 0)
    assert same_images(source, expected)
    assert any(note.startswith("skipped 6 system files and folders") and "4 ._*" in note for note in source.notes)


def test_binary_attributes_of_macos_in_extended_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("n01440764_1.JPEG")
    content = picture()
    info.size = len(content)
    record = b"SCHILY.xattr.com.apple.quarantine=\xff\xfe\n"
    record = f"{len(record) + 3} ".encode() + record
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(header, io.BytesIO(record))
        archive.addfile(info, io.BytesIO(content))
    (member,) = Archive.file(path).members()
    assert Archive.file(path).read(member) == content


def test_compressed_archives_are_read_in_their_own_order(archives: Path, tmp_path: Path) -> None:
    expected = ilsvrc2012(Path(shutil.copytree(archives, tmp_path / "copy")), 0)
    for name, opener in ((FILES[0], gzip.compress), (FILES[1], bz2.compress)):
        (archives / name).write_bytes(opener((archives / name).read_bytes()))
    source = ilsvrc2012(archives, 0)
    for split in ("train", "val"):
        found = [(r.name, r.label, r.read()) for r in source.splits[split]]
        assert sorted(found) == sorted((r.name, r.label, r.read()) for r in expected.splits[split])
        assert [r.offset for r in source.splits[split]] == sorted(r.offset for r in source.splits[split])  # type: ignore[attr-defined]


def test_validation_images_of_classes_without_training_images(archives: Path, tmp_path: Path) -> None:
    """A part of Kaggle's tree: with --allow-partial, its val is cut down to the classes of train."""
    expected = ilsvrc2012(archives, 0)
    some = spread(expected, tmp_path / "some", flat_val)
    lines = [f"{Path(r.name).stem},{expected.classes[r.label].id} 1 2 3 4" for r in expected.splits["val"]]
    (some / "LOC_val_solution.csv").write_text("\n".join(lines), encoding="utf-8")
    shutil.rmtree(some / "train/n01440764")
    source = ilsvrc2012(some, 0)
    assert [info.id for info in source.classes] == [info.id for info in expected.classes][1:]
    left_out = VALIDATION.count(3)  # of n01440764
    assert len(source.splits["val"]) == len(VALIDATION) - left_out
    assert f"{left_out} images of val in classes that train lacks: 'n01440764'" in source.problems


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "imagenet.zip").write_bytes(b"PK\3\4")
    refused(r"imagenet\.zip' is a zip archive; --source is the folder of ILSVRC2012_img_train\.tar",
            tmp_path / "imagenet.zip")  # fmt: skip


def test_source_may_be_one_of_the_files(archives: Path) -> None:
    expected = ilsvrc2012(archives, 0)
    for name in FILES:
        assert same_images(ilsvrc2012(archives / name, 0), expected)


def test_a_folder_that_holds_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to(".")
    refused("ILSVRC2012_img_train.tar", tmp_path)
