"""Exceptions that end a command: ReproError for what the user can fix, Stopped for a signal."""

import difflib
from collections.abc import Iterable

MOST_CHOICES = 50  # that an error names; there may be a thousand classes


class ReproError(Exception):
    """Data, files or settings that the user has to fix.

    The message is one line that states what is wrong, names the value, and says what to do. The command line prints
    it without a traceback and exits with `exit_code`. A programming error is never a ReproError.
    """

    exit_code = 3


def unknown(kind: str, name: str, known: Iterable[str]) -> ReproError:
    """Return the error for a `name` that is not among the `known` names of its `kind`, with the closest matches."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    few = choices if len(choices) <= MOST_CHOICES else [*choices[:20], f"… ({len(choices):,} in all)"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(few)}"
    return ReproError(f"unknown {kind} '{name}': {hint}")


def how_to_install(extra: str) -> str:
    """Return how to install an extra: from the clone, because `repro` on PyPI is a different project.

    The quotes are double because cmd.exe on Windows passes single ones on.
    """
    return f'pip install ".[{extra}]" in the clone of repro'


class Stopped(BaseException):
    """A signal asked the program to stop, and everything is saved; the exit code is 128 + `signal`.

    Not an Exception, so that no library's `except Exception` swallows it.
    """

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
