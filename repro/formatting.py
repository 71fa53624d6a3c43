"""Quantities and command lines as text for people."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable


def duration(seconds: float) -> str:
    """Return a duration in the unit that reads best: 40 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def file_size(size: int) -> str:
    """Return a size in bytes as text: 512 bytes, 3.4 kB, 5.0 MB, 12.3 GB or 1.75 TB."""
    if size < 1000:
        return f"{size} bytes"
    if size < 999_950:
        return f"{size / 1e3:.1f} kB"
    if size < 999_950_000:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e9:,.1f} GB" if size < 999_950_000_000 else f"{size / 1e12:,.2f} TB"


def number(value: float, decimals: int | None = 1) -> str:
    """Return a number as it is printed: with `decimals`, or with all its digits (None), and a true minus sign."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if decimals is None else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def unit_sign(unit: str) -> str:
    """Return a unit that is written as a sign directly after its number; empty for others."""
    return unit if unit in ("%", "×") else ""


def with_unit(text: str, unit: str) -> str:
    """Return a number with its unit: 40.7%, 6×, 1.7 points."""
    return text + (unit_sign(unit) or (f" {unit}" if unit else ""))


def valid_text(text: str) -> str:
    """Return text that every file format and font takes: a question mark for each byte of a name that is not UTF-8."""
    return text.encode(errors="replace").decode()


def command_line(words: Iterable[object]) -> str:
    """Return `words` quoted for the system's shell, ready to be pasted."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """Return `text` with what is between the marks `begin` and `end` replaced by `content`; the marks stay."""
    between = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return between.sub(lambda _: begin + content + end, text)
