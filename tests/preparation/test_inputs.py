"""For any content of an archive, `prepare` makes a store whose manifest lists what was left out, or none at all."""

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from helpers import picture
from official_archives import class_tars, tar, write_ilsvrc2012
from PIL import Image
from test_preprocess import encode, png_header

import repro.preparation.prepare
from repro.errors import ReproError
from repro.preparation.prepare import prepare

TRAIN = "ILSVRC2012_img_train.tar"
RED, BLUE, CYAN, GREY, WHITE = (255, 0, 0), (0, 0, 255), (0, 255, 255), (77, 77, 77), (255, 255, 255)
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6


def plain(colour: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, colour if len(colour) > 1 else colour[0])


def red_above_blue(**options: object) -> bytes:
    image = plain(RED)
    image.paste(plain(BLUE), (0, 20))
    return encode(image, "JPEG", **options)


def two_frames(format: str) -> bytes:
    return encode(plain(RED), format, save_all=True, append_images=[plain(BLUE)])


USED = {  # content of a file whose name ends in .JPEG, and the expected colour of the centre
    "cmyk": (encode(plain((255, 0, 0, 0), "CMYK"), "JPEG"), CYAN),
    "grey": (encode(plain((77,), "L"), "JPEG"), GREY),
    "png": (encode(plain(RED)), RED),
    "webp": (encode(plain(RED), "WEBP", lossless=True), RED),
    "palette": (encode(plain(RED).quantize(2)), RED),
    "sixteen-bit": (encode(plain((77 << 8,), "I;16")), GREY),
    "alpha": (encode(plain((255, 0, 0, 0), "RGBA")), WHITE),
    "animated-gif": (two_frames("GIF"), RED),
    "animated-png": (two_frames("PNG"), RED),
    "animated-webp": (two_frames("WEBP"), RED),
    "corrupt-exif": (red_above_blue(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40), RED),
    "orientation": (red_above_blue(exif=SIDEWAYS), RED),
    "one-wide": (encode(plain((77,), "L", (1, 60_000)), "JPEG"), GREY),
    "one-high": (encode(plain((77,), "L", (60_000, 1)), "JPEG"), GREY),
}
REJECTED = {
    "truncated": (picture(1)[:-100], "truncated"),
    "zero-byte": (b"", "empty file"),
    "html": (b"<!DOCTYPE html><title>404 Not Found</title>", "not an image"),
    "bomb": (png_header(50_000, 50_000), "decompression bomb"),
}


def train_of(members: dict[str, bytes]) -> bytes:
    """Return the training archive with `members` as its first class."""
    return tar({**class_tars(), "n01440764.tar": tar(members)})


def test_every_unusual_image_is_used_or_listed_with_a_reason(tmp_path: Path) -> None:
    source = write_ilsvrc2012(tmp_path / "2012")
    images = {f"n01440764_{name}.JPEG": content for name, (content, _) in {**USED, **REJECTED}.items()}
    (source / TRAIN).write_bytes(train_of(images))
    store = prepare("ilsvrc2012", tmp_path / "store", source=source, size=16, allow_partial=True)

    reasons = {entry["name"].split("_")[-1][:-5]: entry["reason"] for entry in store.manifest["rejected"]}
    assert reasons.keys() == REJECTED.keys()
    for name, (_, reason) in REJECTED.items():
        assert reason in reasons[name]
    assert store.manifest["damaged"] == []
    train = store.splits["train"]
    assert len(train) == len(USED) + 9
    indices = {name.split("_")[-1][:-5]: index for index, name in enumerate(train.names) if "n01440764" in name}
    assert indices.keys() == USED.keys()
    for name, (_, colour) in USED.items():
        (image,) = train.images([indices[name]])
        assert abs(image[4, 8].astype(int) - colour).max() < 6, name


def with_member(name: str = "n01440764_1.JPEG", kind: bytes = tarfile.REGTYPE, again: bool = False) -> bytes:
    """Return the training archive with another member in its first class."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for one in ("n01440764_0.JPEG", name, *([name] if again else [])):
            info = tarfile.TarInfo(one)
            content = picture(7)
            info.size = len(content)
            if one == name and kind != tarfile.REGTYPE:
                info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            archive.addfile(info, io.BytesIO(content))
    return tar({**class_tars(), "n01440764.tar": inner.getvalue()})


WHOLE = with_member()
MALICIOUS = {
    "outer cut": (WHOLE[: len(WHOLE) // 2], r", byte [\d,]+: .*member 'n\d+\.tar'.*truncated"),
    "inner cut": (
        tar({**class_tars(), "n01440764.tar": tar({"n01440764_0.JPEG": picture(7)})[:900]}),
        r"in its member 'n01440764\.tar', byte [\d,]+: member 'n01440764_0\.JPEG'.*truncated",
    ),
    "climbing": (with_member("../../escaped.JPEG"), r"member '\.\./\.\./escaped\.JPEG' has an unsafe name"),
    "absolute": (with_member("/tmp/escaped.JPEG"), "member '/tmp/escaped.JPEG' has an unsafe name"),
    "symbolic link": (with_member(kind=tarfile.SYMTYPE), "member 'n01440764_1.JPEG' is a symbolic link"),
    "hard link": (with_member(kind=tarfile.LNKTYPE), "member 'n01440764_1.JPEG' is a hard link"),
    "device": (with_member(kind=tarfile.CHRTYPE), "member 'n01440764_1.JPEG' is a device"),
    "twice": (with_member(again=True), "member 'n01440764_1.JPEG' occurs twice"),
    "not UTF-8": (with_member("n01440764_\udce9.JPEG"), "a name is not UTF-8"),
}


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_malicious_or_truncated_archive_makes_no_store(tmp_path: Path, kind: str, allow_partial: bool) -> None:
    content, reason = MALICIOUS[kind]
    source = write_ilsvrc2012(tmp_path / "2012")
    (source / TRAIN).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReproError, match=reason) as error:
        prepare("ilsvrc2012", tmp_path / "deep" / "er" / "store", source=source, size=16, allow_partial=allow_partial)
    assert re.search(rf"{TRAIN}'.*byte [\d,]+: ", str(error.value))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped.JPEG").exists()


MEMORY = """
import resource, sys
from pathlib import Path
from repro.preparation.preprocess import UndecodableImage, to_square

def used() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

first, *others = map(Path, sys.argv[1:])
to_square(first.read_bytes(), 256)
before = used()  # with torch, which is most
for path in others:
    try:
        to_square(path.read_bytes(), 256)
        print(path.name, "used")
    except UndecodableImage as error:
        print(path.name, error)
print((used() - before) // 10**6)
"""


def test_very_long_images_and_bombs_take_little_memory(tmp_path: Path) -> None:
    """Measured by the system in a separate process: Pillow and torch do not allocate through Python."""
    jpeg = encode(plain(RED), "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5
    inputs = {
        "plain": jpeg,
        "wide.JPEG": encode(plain((9,), "L", (60_000, 1)), "JPEG"),
        "high.JPEG": encode(plain(RED, size=(1, 60_000)), "JPEG"),
        "wide.PNG": encode(plain(RED, size=(60_000, 1))),
        "high.PNG": encode(plain((9,), "L", (1, 60_000))),
        "bomb.JPEG": jpeg[:size] + b"\xff\xdc\xff\xdc" + jpeg[size + 4 :],
        "bomb.PNG": png_header(50_000, 50_000),
        "bomb.PGM": b"P5 60000 60000 255 \0",
    }
    for name, content in inputs.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *(tmp_path / name for name in inputs)], capture_output=True, text=True,
        timeout=600, env={**os.environ, "PYTHONPATH": str(Path(repro.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *outcomes, megabytes = done.stdout.splitlines()
    assert [line.split()[1] for line in outcomes[:4]] == ["used"] * 4
    assert all("decompression bomb" in line for line in outcomes[4:])
    assert int(megabytes) < 100
