"""Quantities as text for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
