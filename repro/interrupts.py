"""Ctrl-C and SIGTERM: stop at once by default, or at the next safe point where a run must be saved first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from repro.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_at_once() -> None:
    """From now on each of the signals raises Stopped, wherever the program is."""

    def raise_stopped(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, "stopped; nothing half-made was left behind")

    for number in SIGNALS:
        signal.signal(number, raise_stopped)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Within it the signals are only noted; the function it gives answers with the last one's number, or None."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda seen, frame: noted.append(seen)) for number in SIGNALS}
    try:
        yield lambda: noted[-1] if noted else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
