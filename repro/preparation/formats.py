"""Which files are images, and which are left behind by operating systems and cameras.

The first bytes of a file decide, not its name. Files with a usual ending of images are not opened for it,
because opening a million files twice takes long; decoding finds what they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache

from repro.errors import how_to_install

HEAD = 512  # bytes at the start of a file that tell its format

ENDINGS = (  # not opened to learn their format
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".mpo",
)  # fmt: skip
# Raw files of cameras look like TIFF, but the picture that a TIFF reader finds is their thumbnail.
CAMERA_RAW = (
    ".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2",
    ".sr2", ".srf", ".srw",
)  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes; a text may begin with "BM"

SYSTEM_FOLDERS = frozenset(
    name.casefold()
    for name in (
        "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot", "__MACOSX", "$RECYCLE.BIN", "RECYCLER",
        "System Volume Information", "lost+found", "Network Trash Folder", "Temporary Items", "__pycache__",
    )
)  # fmt: skip
SYSTEM_FILES = frozenset(name.casefold() for name in ("Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"))

ARCHIVES = {  # by first bytes
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "zstd",
    b"Rar!": "rar",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
OTHER_KINDS = {b"PAR1": "a Parquet file", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array", b"%PDF": "a PDF"}


def image_format(head: bytes) -> str:
    """Return the image format that a file's first bytes announce, such as JPEG, or "" if none is known."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-6]\s+(#|\d)", head):
        return "PPM"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[index : index + 4] for index in range(16, len(head), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if head[8:12] in HEIF_BRANDS:
            return "HEIF"
    return ""


def archive_format(head: bytes) -> str:
    """Return the archive or compression format that a file's first bytes announce, such as zip, or ""."""
    if head[257:262] == b"ustar":
        return "tar"
    return next((name for magic, name in ARCHIVES.items() if head.startswith(magic)), "")


def kind_of(head: bytes) -> str:
    """Describe a file by its first bytes, for messages: "a JPEG image", "a zip archive", "a text file"."""
    if not head:
        return "an empty file"
    if image := image_format(head):
        return f"{'an' if image == 'AVIF' else 'a'} {image} image"
    if archive := archive_format(head):
        return f"a {archive} archive" if archive in ("zip", "tar", "rar", "7z") else f"a {archive}-compressed file"
    for magic, kind in OTHER_KINDS.items():
        if head.startswith(magic):
            return kind
    return "a binary file" if b"\0" in head else "a text file"


@cache
def decodable() -> tuple[str, ...]:
    """Return the formats that Pillow decodes here: a closed list, because some of its other readers run programs.

    HEIF needs pillow-heif, AVIF a Pillow that was built with it.
    """
    from PIL import features

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    if features.check("avif"):
        formats += ("AVIF",)
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats += ("HEIF",)
    return formats


def ending(name: str) -> str:
    """Return the ending of a file name in lower case, with its dot, or ""."""
    stem, dot, last = name.rpartition(".")
    return f".{last.lower()}" if dot and stem.rstrip("/") and "/" not in last else ""


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Return whether a file is an image that can be decoded here; `head`, rarely called, returns its first bytes."""
    end = ending(name)
    if end in ENDINGS:
        return True
    return end not in CAMERA_RAW and image_format(head()) in decodable()


def is_system(name: str, folder: bool = False) -> bool:
    """Return whether an operating system made this file or folder, or hides it; `name` is without its path."""
    return name.startswith(".") or name.casefold() in (SYSTEM_FOLDERS if folder else SYSTEM_FILES)


class Skipped:
    """What a listing skips, by the folder it is in, so that listing a folder again changes nothing."""

    def __init__(self) -> None:
        self.system: dict[str, list[str]] = {}
        self.other: dict[str, list[str]] = {}  # names of files that are no images
        self.dangling: dict[str, list[str]] = {}  # paths of links to nothing
        self.loops: dict[str, list[str]] = {}  # paths of links to a folder above them
        self.reported: set[str] = set()  # paths that are a problem or were used, and are not noted again

    def merge(self, other: Skipped) -> None:
        """Add what the listing of another tree skipped."""
        self.system |= other.system
        self.other |= other.other
        self.dangling |= other.dangling
        self.loops |= other.loops
        self.reported |= other.reported

    def notes(self) -> tuple[str, ...]:
        """Describe what was skipped, in one line for each reason."""
        notes = []
        if system := Counter("._*" if name.startswith("._") else name for name in _flat(self.system)):
            count = plural(sum(system.values()), "system file or folder", "system files and folders")
            notes.append(f"skipped {count}: {_counts(system)}")
        other = Counter(
            ending(name) or "without ending"
            for folder, names in self.other.items()
            for name in names
            if f"{folder}/{name}" not in self.reported
        )
        if other:
            count = plural(sum(other.values()), "file that is not an image", "files that are not images")
            notes.append(f"skipped {count}: {_counts(other)}{_advice(other)}")
        for paths, one, many in (
            (self.dangling, "link to nothing", "links to nothing"),
            (self.loops, "link to a folder above it", "links to folders above them"),
        ):
            if found := sorted(set(_flat(paths)) - self.reported):
                notes.append(f"skipped {plural(len(found), one, many)}: {first_few(found)}")
        return tuple(notes)


def plural(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def quoted(name: str) -> str:
    """Return a name in quotes on one line; characters that cannot be printed, which may command a terminal, escaped."""
    return f"'{name}'" if name.isprintable() else ascii(name)


def first_few(names: list[str], most: int = 10) -> str:
    """Join names with commas, the first `most` of them, each on one line."""
    shown = ", ".join(map(quoted, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def _flat(names: dict[str, list[str]]) -> Iterable[str]:
    return (name for found in names.values() for name in found)


def _counts(counter: Counter[str], most: int = 10) -> str:
    shown = ", ".join(f"{count:,} {name}" for name, count in counter.most_common(most))
    return shown if len(counter) <= most else f"{shown}, …"


def _advice(endings: Counter[str]) -> str:
    if endings.keys() & {".heic", ".heif", ".hif"} and "HEIF" not in decodable():
        return f" (to read HEIC: {how_to_install('heic')})"
    if endings.keys() & {".avif"} and "AVIF" not in decodable():
        return " (AVIF is read with a Pillow that was built with it)"
    return ""
