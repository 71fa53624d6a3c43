"""Small archives in the exact layouts in which ImageNet is offered."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from helpers import picture
from scipy.io import savemat

# Not in alphabetical order of their ids, as in the real kits; two share a name, as the real cranes do.
CLASSES = {
    1: ("n02119789", "kit fox, Vulpes macrotis"),
    2: ("n02012849", "crane"),
    3: ("n01440764", "tench, Tinca tinca"),
    4: ("n03126707", "crane"),
}
ABOVE = ("n00001740", "entity")  # a synset with children: not a class
VALIDATION = [3, 1, 4, 2, 3, 3, 1, 2]  # the class of each validation image
TEST = [2, 4, 1, 3, 1]


def tar(members: dict[str, bytes]) -> bytes:
    """Return a GNU tar of these regular files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def class_tars(images: int = 3, classes: dict[int, tuple[str, str]] = CLASSES) -> dict[str, bytes]:
    """Return `n01440764.tar` and so on, each with this number of images."""
    return {
        f"{id}.tar": tar({f"{id}_{7 * k}.JPEG": picture(1000 * number + k) for k in range(images)})
        for number, (id, _) in classes.items()
    }


def meta(year: int, classes: dict[int, tuple[str, str]] = CLASSES) -> bytes:
    """Return meta.mat of a development kit with these classes by number."""
    key = f"ILSVRC{year}_ID"
    fields = [key, "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    synsets = np.zeros((len(classes) + 1, 1), [(field, object) for field in fields])
    for row, (number, (id, words)) in enumerate([*classes.items(), (len(classes) + 1, ABOVE)]):
        children = [float(child) for child in classes] if row == len(classes) else []
        synsets[row, 0] = (float(number), id, words, "a gloss", float(len(children)), children, 1.0, 3.0)
    content = io.BytesIO()
    savemat(content, {"synsets": synsets})
    return content.getvalue()


def kit(year: int, validation: list[int], **changes: bytes) -> bytes:
    """Return a gzipped development kit; `meta` and `truth` replace the bytes of its files."""
    root = {2012: "ILSVRC2012_devkit_t12", 2010: "devkit-1.0"}[year]
    truth = "".join(f"{number}\n" for number in validation).encode()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in {
            "readme.txt": b"This is the documentation",
            "data/meta.mat": changes.get("meta", meta(year)),
            f"data/ILSVRC{year}_validation_ground_truth.txt": changes.get("truth", truth),
        }.items():
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def numbered(prefix: str, count: int, seed: int) -> dict[str, bytes]:
    """Return images as the val and test archives have them: numbered, in random order."""
    order = np.random.default_rng(seed).permutation(count)
    return {f"{prefix}_{number + 1:08}.JPEG": picture(seed + int(number)) for number in order}


def write_ilsvrc2012(root: Path, classes: dict[int, tuple[str, str]] = CLASSES) -> Path:
    """Write the three official files of 2012 with labels."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar(class_tars(classes=classes)))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(numbered("ILSVRC2012_val", len(VALIDATION), 50_000)))
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit(2012, VALIDATION, meta=meta(2012, classes)))
    return root


def unlabelled_2012(count: int = 12) -> dict[str, bytes]:
    """Return the test images of 2012; image n is `picture(80_000 + n - 1)`."""
    return numbered("ILSVRC2012_test", count, 80_000)


def write_ilsvrc2010(root: Path) -> Path:
    """Write the five official files of 2010."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ILSVRC2010_images_train.tar").write_bytes(tar(class_tars()))
    val = {f"val/{name}": data for name, data in numbered("ILSVRC2010_val", len(VALIDATION), 60_000).items()}
    (root / "ILSVRC2010_images_val.tar").write_bytes(tar(val))
    test = {f"test/{name}": data for name, data in numbered("ILSVRC2010_test", len(TEST), 70_000).items()}
    (root / "ILSVRC2010_images_test.tar").write_bytes(tar(test))
    (root / "ILSVRC2010_devkit-1.0.tar.gz").write_bytes(kit(2010, VALIDATION))
    (root / "ILSVRC2010_test_ground_truth.txt").write_text("".join(f"{number}\n" for number in TEST))
    return root


def md5(path: Path) -> str:
    """Return the hex MD5 of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
