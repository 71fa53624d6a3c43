import contextlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import picture
from official_archives import class_tars, tar

from repro.errors import ReproError
from repro.preparation.sources.tar import Archive, Block, Blocks, Member

MUTATED = 500  # archives: two seconds


def members(path: Path) -> list[Member]:
    return list(Archive.file(path).members())


def members_within(path: Path) -> None:
    for member in members(path):
        if member.name.endswith(".tar"):
            list(Archive.file(path).within(member).members())


def refused(match: str, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ReproError, match=match) as error:
        members_within(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def written(info: tarfile.TarInfo, data: bytes = b"", format: int = tarfile.GNU_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format) as archive:
        archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(tmp_path: Path, format: int) -> None:
    contents = {"a.txt": b"", "dir/b": b"x" * 513, "dir/" + "long" * 30 + "/" + "name" * 24: b"y" * 1024}
    if format != tarfile.USTAR_FORMAT:
        contents["dir/" + "very" * 60 + "/é"] = b"z"
    with tarfile.open(tmp_path / "x.tar", "w", format=format) as archive:
        directory = tarfile.TarInfo("dir")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    whole = (tmp_path / "x.tar").read_bytes()
    found = members(tmp_path / "x.tar")
    assert {m.name: whole[m.offset : m.offset + m.size] for m in found} == contents
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert [(m.name, m.offset_data) for m in archive if m.isreg()] == [(m.name, m.offset) for m in found]


def test_tars_in_a_tar_are_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "outer.tar"
    path.write_bytes(tar(class_tars(2)))
    found_files: list[None] = []
    outer = Archive.file(path, lambda: found_files.append(None))
    blocks = Blocks(
        Block.of(outer.within(m), label, f"train/{m.name[:9]}", outer.within(m).members())
        for label, m in enumerate(outer.members())
    )
    assert len(blocks) == 8
    assert len(found_files) == len(class_tars(2)) + 8  # every file of the outer archive and of the inner ones
    assert blocks[3].name == "train/n02012849/n02012849_7.JPEG"
    assert blocks[3].label == 1
    assert blocks[-1] == list(blocks)[-1] == blocks[7:][0]
    assert [r.name for r in blocks[1:6]] == [r.name for r in list(blocks)[1:6]]
    assert blocks[0].read() == picture(1000)
    path.write_bytes(path.read_bytes()[: blocks[7].offset + 3])
    with pytest.raises(OSError, match="shorter"):
        blocks[7].read()


def test_a_truncated_outer_or_inner_tar_is_named_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    whole = tar({"a.bin": b"x" * 2000, "b.bin": b"y" * 100})
    end = len(whole.rstrip(b"\0"))
    for length in [*range(0, end, 97), end, 3584 + 512]:
        named = "" if length < 512 else r".*member '[ab]\.bin'"
        refused(rf"byte [\d,]+: {named}.*truncated", path, whole[:length])
    refused(r"byte 0: member 'a.bin' has 2000 bytes, 488 are left", path, whole[:1000])
    inner = tar({"n01440764_0.JPEG": b"x" * 2000})
    for length in range(0, 2400, 101):
        named = "" if length < 512 else ".*member 'n01440764_0.JPEG'"
        refused(
            rf"in its member 'n01440764.tar', byte [\d,]+: {named}.*truncated",
            path,
            tar({"n01440764.tar": inner[:length]}),
        )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../escape", "unsafe name"),
        ("a/../../escape", "unsafe name"),
        ("/absolute", "unsafe name"),
        ("./a/./b", "unsafe name"),
        ("new\nline", "unsafe name"),
        ("escape\x1b[2J", "unsafe name"),
        ("", "unsafe name"),
        ("caf\udce9", "not UTF-8"),
    ],
)
def test_unsafe_names(tmp_path: Path, name: str, reason: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(name))
    refused(reason, tmp_path / "x.tar", content.getvalue())
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("invisible", ["\u202f", "\u3000", "\xa0", "\u200d"])
def test_names_with_spaces_that_are_no_ascii_are_read(tmp_path: Path, invisible: str) -> None:
    name = f"cat/Screenshot at 9.41{invisible}PM.png"  # macOS writes U+202F there
    path = tmp_path / "x.tar"
    path.write_bytes(tar({name: b"1"}))
    assert [member.name for member in Archive.file(path).members()] == [name]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Q", "of unknown kind"),
    ],
)
def test_only_regular_files(tmp_path: Path, kind: bytes, reason: str) -> None:
    info = tarfile.TarInfo("member")
    info.type, info.linkname = kind, "/etc/passwd"
    refused(f"byte 0: member 'member' is {reason}", tmp_path / "x.tar", written(info))


def test_extended_headers_are_checked_too(tmp_path: Path) -> None:
    for headers, reason in [({"path": "../../x"}, "unsafe name"), ({"GNU.sparse.major": "1"}, "extended header")]:
        info = tarfile.TarInfo("x")
        info.pax_headers = headers
        refused(reason, tmp_path / "x.tar", written(info, format=tarfile.PAX_FORMAT))
    for records in (b"9 size=-1\n", b"99 path=x\n", b"x path=y\n", b"11 path=\xff\xff\n", b"30 path\n"):
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, len(records)
        refused("extended header", tmp_path / "x.tar", written(header, records))
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 100_000
    refused("an extended header of 100000", tmp_path / "x.tar", written(huge, bytes(100_000)))


def test_duplicates_and_bytes_after_the_end(tmp_path: Path) -> None:
    one = tar({"a": b"1"})
    refused("'a' occurs twice", tmp_path / "x.tar", one[:1024] + one)
    refused("bytes after the end", tmp_path / "x.tar", one + tar({"b": b"2"}))
    with pytest.raises(ReproError, match="cannot read the archive"):
        Archive.file(tmp_path / "nowhere.tar")


def mutated(random: np.random.Generator, whole: bytes) -> bytes:
    """Flip, remove, repeat or cut off bytes, in headers more often than elsewhere."""
    content = bytearray(whole)
    for _ in range(int(random.integers(1, 4))):
        block = 512 * int(random.integers(0, max(1, len(content) // 512)))
        index = min(block + int(random.integers(0, 512)), len(content) - 1)
        action = random.integers(0, 5)
        if action <= 1:
            content[index] = int(random.integers(0, 256))
        elif action == 2:
            content[index] ^= 1 << int(random.integers(0, 8))
        elif action == 3:
            del content[block : block + 512 * int(random.integers(1, 4))]
        else:
            content[block:block] = content[block : block + 512]
        if not content:
            break
    return bytes(content[: int(random.integers(1, len(content) + 1))] if random.random() < 0.1 else content)


def test_mutated_tars_are_refused_or_read_correctly(tmp_path: Path) -> None:
    """Seeded. Headers have a checksum: a change is detected, or it lies in image bytes or padding."""
    whole = tar(class_tars(2))
    path = tmp_path / "mutated.tar"

    def read(content: bytes) -> list[tuple[str, int, int]]:
        path.write_bytes(content)
        outer = Archive.file(path)
        found = []
        for member in outer.members():
            found += [(m.name, m.offset, m.size) for m in outer.within(member).members()]
        return found

    intact = {(name, size): whole[offset : offset + size] for name, offset, size in read(whole)}
    refusals = 0
    for seed in range(MUTATED):
        content = mutated(np.random.default_rng(seed), whole)
        found = None
        with contextlib.suppress(ReproError):
            found = read(content)
        if found is None:
            refusals += 1
            continue
        assert {(name, size) for name, _, size in found} <= intact.keys()
        if len(content) == len(whole):  # nothing moved: no image is lost or confused with another
            assert len(found) == len(intact)
    assert refusals > MUTATED / 2
    assert os.listdir(tmp_path) == ["mutated.tar"]


def test_references_are_created_on_access(tmp_path: Path) -> None:
    """The index of 15 million images is a few numbers each, and slicing creates only the slice."""
    names = "\n".join(f"n00000000_{k}.JPEG" for k in range(1000)).encode()
    numbers = np.arange(1000, dtype=np.int64)
    block: Callable[[int], Block] = lambda label: Block("x.tar", label, f"train/{label}", names, numbers, numbers)  # noqa: E731
    blocks = Blocks(block(label) for label in range(15_000))
    assert len(blocks) == 15_000_000
    assert [r.name for r in blocks[7_000_999:7_001_001]] == [
        "train/7000/n00000000_999.JPEG", "train/7001/n00000000_0.JPEG"
    ]  # fmt: skip
