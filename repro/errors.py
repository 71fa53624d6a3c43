"""The one exception that users see."""

import difflib
from collections.abc import Iterable


class ReproError(Exception):
    """Something the user must mend: data, files or settings.

    The message is one line that names the offending value and says the mend. The command line prints it
    without a traceback and exits with code 3. A programming error is never a ReproError.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> ReproError:
    """The error for a `name` that is not among the `known` ones of its `kind`, with the nearest names."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(choices)}"
    return ReproError(f"unknown {kind} '{name}': {hint}")


class Stopped(Exception):
    """The user asked to stop by a signal, and everything is saved; the exit code is 128 + `signal`."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
