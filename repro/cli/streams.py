"""Standard output and error that work everywhere: closed, full, in ASCII, or as a pipe that its reader has closed."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

from repro import interrupts
from repro.errors import ReproError

# Replacements for the characters outside ASCII that help, messages and tables use.
ASCII = str.maketrans(
    {
        "…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "≈": "~", "·": "*", "µ": "u",
        "±": "+/-", "→": "->", "ε": "eps", "²": "^2", "“": '"', "”": '"', "‘": "'", "’": "'",
    }
)  # fmt: skip
ERRORS = "repro-ascii"


def prepare_streams() -> None:
    """Make standard output and error safe to write to; call it before anything is written."""
    register_errors()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would become standard output
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _safe(sys.stdout, 1)
    sys.stderr = _safe(sys.stderr, 2)


def register_errors() -> None:
    """Make ERRORS a name for `errors=`: what an encoding lacks is replaced by ASCII."""
    codecs.register_error(ERRORS, _replace)


def _safe(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):  # replaced by a program that calls `main`
        return stream
    if descriptor == 2:
        stream.reconfigure(errors=ERRORS)
        return stream
    line_buffering = stream.line_buffering
    encoding = stream.encoding
    return Output(stream.detach(), encoding=encoding, errors=ERRORS, line_buffering=line_buffering)


class Output(io.TextIOWrapper):
    """Standard output whose errors end the command in an orderly way.

    A full disk is a ReproError. A pipe whose reader has gone stops the command as a signal does, so that a training is
    saved; what is written afterwards is discarded.
    """

    def write(self, text: str) -> int:
        """Write `text`."""
        try:
            return super().write(text)
        except OSError as error:
            _fail(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            _fail(error)


def _fail(error: OSError) -> None:
    _discard_output()
    if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == 22):  # EINVAL is Windows' EPIPE
        interrupts.stop(interrupts.BROKEN_PIPE, "")
    else:
        raise ReproError(f"cannot write to standard output: {error.strerror}") from error


def _discard_output() -> None:
    """Point file descriptor 1 to the null device: what is still buffered cannot fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that an encoding lacks: a similar text, or else an escape such as \\xe9."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = error.object[error.start : error.end].translate(ASCII)
    return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end
