from pathlib import Path

import pytest
from helpers import picture
from official_archives import class_tars, tar

from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.sources.imagenet_fall import fall2009, fall2011
from repro.preparation.sources.source import Source

IDS = ["n01440764", "n02012849", "n02119789", "n03126707"]  # as class_tars has them, in order


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.tar"
    path.write_bytes(tar(class_tars(101)))
    return path


def names(source: Source, split: str) -> list[str]:
    return [reference.name.split("/", 1)[1] for reference in source.splits[split]]


def test_2009_is_halved_in_each_class_by_seed(whole: Path) -> None:
    source = fall2009(whole, 0)
    assert [info.id for info in source.classes] == IDS
    counts = {split: len(images) for split, images in source.splits.items()}
    assert counts == {"train": 4 * 50, "val": 4 * 1, "test": 4 * 50}
    for label in range(4):
        assert sum(r.label == label for r in source.splits["test"]) == 50
    everything = [name for split in source.splits for name in names(source, split)]
    assert len(set(everything)) == len(everything) == 404
    assert names(fall2009(whole, 0), "test") == names(source, "test")
    assert names(fall2009(whole, 1), "test") != names(source, "test")


def test_2011_holds_out_one_in_fifty(whole: Path) -> None:
    source = fall2011(whole, 0)
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 4 * 99, "val": 4 * 2}
    assert "4 categories, the release has 21,841" in source.problems


def test_one_tar_or_a_folder_of_tars_give_the_same_source(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in class_tars(101).items():
        (folder / name).write_bytes(content)
    for split in ("train", "val", "test"):
        assert names(fall2009(folder, 0), split) == names(fall2009(whole, 0), split)
        assert [r.read() for r in fall2009(folder, 0).splits[split]] == [
            r.read() for r in fall2009(whole, 0).splits[split]
        ]


@pytest.mark.parametrize("folder", ["./", "train/{id}/"])
def test_the_halves_do_not_depend_on_how_a_class_was_packed(whole: Path, tmp_path: Path, folder: str) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for id in IDS:
        members = {f"{folder.format(id=id)}{id}_{7 * k}.JPEG": picture(k) for k in range(101)}
        (packed / f"{id}.tar").write_bytes(tar(members))
    again = fall2009(packed, 0)
    for split in ("train", "val", "test"):
        files, as_released = (
            [name.rpartition("/")[2] for name in names(source, split)] for source in (again, fall2009(whole, 0))
        )
        assert files == as_released


def test_synsets_txt_gives_classes_and_their_order(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "synsets.txt").write_text(f"{IDS[3]}\n{IDS[0]} tench\n\nn00000001\n")
    (tmp_path / "words.txt").write_text(f"{IDS[0]}\ttench, Tinca tinca\n{IDS[3]}\tcrane\n")
    source = fall2011(whole, 0)
    assert [(info.id, info.name) for info in source.classes] == [
        (IDS[3], "crane"), (IDS[0], "tench"), ("n00000001", "n00000001")
    ]  # fmt: skip
    assert any("2 of them are not in" in note for note in source.notes)
    assert "1 classes have no images, the first is n00000001" in source.problems
    with pytest.raises(ReproError, match=r"n00000001.*--allow-partial"):
        prepare("fall2011", tmp_path / "store", source=whole, size=16)
    store = prepare("fall2011", tmp_path / "store", source=whole, size=16, allow_partial=True)
    assert len(store.classes) == 3
    assert set(store.splits["train"].labels) == {0, 1}


def test_lists_that_editors_on_windows_wrote(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "synsets.txt").write_text(f"{IDS[3]}\n{IDS[0]}\n", encoding="utf-8-sig", newline="\r\n")
    (tmp_path / "words.txt").write_text(f"{IDS[3]}\tcrane\n", encoding="utf-8-sig", newline="\r\n")
    assert [(info.id, info.name) for info in fall2011(whole, 0).classes] == [(IDS[3], "crane"), (IDS[0], IDS[0])]


def test_synsets_txt_without_any_of_the_tars(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "synsets.txt").write_text("n00000001\nn00000002\n")
    with pytest.raises(ReproError, match=r"no training images of 'fall2011' in '.*whole\.tar'"):
        prepare("fall2011", tmp_path / "store", source=whole, size=16, allow_partial=True)
    assert not list(tmp_path.glob("*store*"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (f"{IDS[0]}\n{IDS[1]}\n{IDS[0]}\n", f"lists class {IDS[0]} twice"),
        ("tench\n", "line 1: 'tench' is not a WordNet id such as n01440764"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_invalid_synsets_txt(whole: Path, tmp_path: Path, content: str | bytes, match: str) -> None:
    (tmp_path / "synsets.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReproError, match=match):
        fall2011(whole, 0)


def test_invalid_archives(tmp_path: Path) -> None:
    for path, match in [(None, "--source PATH"), (tmp_path, "0 tars of synsets"), (tmp_path / "none", "no such file")]:
        with pytest.raises(ReproError, match=match):
            fall2009(path, 0)
    (tmp_path / "part1.tar").write_bytes(tar(class_tars(2)))
    (tmp_path / f"{IDS[0]}.tar").write_bytes(tar({}))
    with pytest.raises(ReproError, match=f"two tars of class {IDS[0]}"):
        fall2009(tmp_path, 0)
