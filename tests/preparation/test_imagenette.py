import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_pictures

from repro.errors import ReproError
from repro.preparation.sources.class_folders import WNID_NAMES
from repro.preparation.sources.imagenette import imagenette


def write_imagenette(root: Path) -> Path:
    counts = {f"imagenette2/{split}/{id}": count for split, count in (("train", 3), ("val", 1)) for id in WNID_NAMES}
    write_pictures(root, counts)
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(".JPEG"))
    (root / "imagenette2/noisy_imagenette.csv").write_text("path\n")
    return root


def test_folder_and_archive_hold_the_same(tmp_path: Path) -> None:
    root = write_imagenette(tmp_path / "folder")
    with tarfile.open(tmp_path / "imagenette2.tar", "w") as archive:
        archive.add(root / "imagenette2", "imagenette2")
    with tarfile.open(tmp_path / "imagenette2.tgz", "w:gz") as archive:
        archive.add(root / "imagenette2", "imagenette2")
    paths = (root, root / "imagenette2", tmp_path / "imagenette2.tar", tmp_path / "imagenette2.tgz")
    sources = [imagenette(path, 0) for path in paths]
    for source in sources:
        assert [info.name for info in source.classes][:2] == ["tench", "English springer"]
        assert {split: len(images) for split, images in source.splits.items()} == {"train": 30, "val": 10}
        assert source.problems == (
            "train has 30 images, the official set 9,469",
            "val has 10 images, the official set 3,925",
        )
        for split in ("train", "val"):
            found = [(r.name, r.label, r.read()) for r in source.splits[split]]
            if source is sources[-1]:  # a compressed archive is read in its own order
                found.sort()
            assert found == [(r.name, r.label, r.read()) for r in sources[0].splits[split]]


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imagenette2.tgz").write_bytes(b"")
    with pytest.raises(ReproError, match=r"imagenette2\.tgz' is an empty file.*--source"):
        imagenette(tmp_path / "imagenette2.tgz", 0)
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    with pytest.raises(ReproError, match="holds no train/WNID"):
        imagenette(tmp_path / "x.tar", 0)

    def unreachable(root: str, download: bool) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.Imagenette", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ReproError, match=r"cannot download Imagenette.*--source"):
        imagenette(None, 0)
    monkeypatch.setattr("torchvision.datasets.Imagenette", lambda root, download: write_imagenette(Path(root)))
    assert len(imagenette(None, 0).splits["train"]) == 30


def test_real_imagenette(real_images: Callable[[str], Path]) -> None:
    assert imagenette(real_images("imagenette128"), 0).problems == ()
