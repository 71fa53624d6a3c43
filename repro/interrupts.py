"""Signals that ask the program to stop: at once by default, or at the next point where a run can be saved."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from repro.errors import Stopped

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Those of them that the system has. A lost terminal sends SIGHUP, batch systems send SIGUSR1 before their time limit,
# and Windows sends SIGBREAK for Ctrl-Break.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)
BROKEN_PIPE = 13  # SIGPIPE's number, also where the system has no such signal
MESSAGE = "stopped; no partial files were left"
POLL_SECONDS = 0.05

_noted: list[list[int]] = []  # the innermost `deferred` is the last
_raised: weakref.ref[Stopped] | None = None  # the last Stopped, as long as it is propagated or handled
_dropped: tuple[int, str] | None = None  # signal and message of a Stopped that has to be raised again


def stop_at_once() -> None:
    """From now on raise Stopped in the main thread when a signal arrives.

    Code that cannot propagate exceptions, such as a destructor or a callback from C, drops them; Stopped is then
    raised again until it arrives at `finish`. While it is on its way, further signals are ignored, so that an
    impatient second Ctrl-C does not interrupt the removal of partial files.
    """
    for number in SIGNALS:
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started by nohup
        signal.signal(number, _handle)
    sys.unraisablehook = _report_unraisable


def finish() -> None:
    """From now on end the process at once when a signal arrives: the command is done, nothing is left to save."""
    global _raised
    _raised = None
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def stop(number: int, message: str = MESSAGE) -> None:
    """Stop as if signal `number` had arrived: raise Stopped, or note the number inside `deferred`."""
    if _noted:
        _noted[-1].append(number)
    elif _raised is None or _raised() is None:
        raise _new_stopped(number, message)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Only note signals inside the block; yields a function that returns the last one's number, or None."""
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _noted.append(noted)
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN or number != getattr(signal, "SIGHUP", None):
                signal.signal(number, _handle)
        yield lambda: noted[-1] if noted else None
    finally:
        _noted.remove(noted)
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    global _dropped
    if _dropped is None:
        stop(number)
    else:
        (number, message), _dropped = _dropped, None
        stop(number, message)


def _new_stopped(number: int, message: str) -> Stopped:
    """Return a new Stopped that is raised again if it is dropped.

    The caller must not keep it in a variable: its traceback would refer to the frame, and it would never be freed.
    """
    global _raised
    stopped = Stopped(number, message)
    _raised = weakref.ref(stopped)
    with suppress(RuntimeError):  # no more threads
        _thread.start_new_thread(_raise_again_if_dropped, (_raised, number, message))
    return stopped


def _raise_again_if_dropped(watched: weakref.ref[Stopped], number: int, message: str) -> None:
    """Wait until the exception is freed; if it has not arrived at `finish` by then, have it raised again."""
    global _dropped
    while watched() is not None:
        time.sleep(POLL_SECONDS)
    if _raised is watched:
        _dropped = number, message
        _thread.interrupt_main(signal.SIGINT)


def _report_unraisable(unraisable: UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
