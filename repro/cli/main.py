"""The `repro` program around its commands: signals, streams, errors, exit codes.

Only light modules are imported before the signal handlers are in place.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from repro import interrupts
from repro.errors import ReproError, Stopped
from repro.launchers import is_launched

DEBUG = "--debug"
# Errors of the system that the user can do something about, wherever they come up.
SYSTEM_ERRORS = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE, errno.ENOSPC,
    errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip


def main() -> None:
    """Run the command line; exit codes as documented in the README."""
    interrupts.stop_at_once()
    try:
        code = run(sys.argv[1:], _prepare_process)
        interrupts.finish()
    except Stopped as stopped:  # by a signal at the very end
        code = 128 + stopped.signal
        interrupts.finish()
    if is_launched():  # threads of the process group can abort the interpreter's end
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command line, after `prepare`; return its exit code, with the message of an error on standard error."""
    debug = DEBUG in arguments
    try:
        prepare()
        from repro.cli.commands import app

        try:
            app(_with_debug_first(arguments), prog_name="repro")
        except SystemExit as end:  # how Typer always ends
            sys.stdout.flush()
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0
    except Stopped as stopped:
        return _fail(str(stopped), 128 + stopped.signal, debug)
    except ReproError as error:
        return _fail(str(error), error.exit_code, debug)
    except MemoryError:
        return _fail("not enough memory: close other programs, or choose a smaller --scale or --size", 3, debug)
    except OSError as error:
        if error.errno in SYSTEM_ERRORS:
            where = f"'{os.fsdecode(error.filename)}': " if isinstance(error.filename, str | bytes) else ""
            return _fail(f"{where}{error.strerror}", 3, debug)
        return _fail(_describe(error), 1, debug)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "repro":
            return _fail(_describe(error), 1, debug)
        missing = f"the package '{error.name}' is not installed for '{sys.executable}'"
        return _fail(f"{missing}: activate the environment that repro was installed in, or install it again", 3, debug)
    except Exception as error:
        return _fail(_describe(error), 1, debug)


def _prepare_process() -> None:
    from repro.cli import streams

    streams.prepare_streams()
    _prepare_warnings()
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a backend that is not installed ends `import matplotlib`


def _with_debug_first(arguments: list[str]) -> list[str]:
    """Return the arguments with `--debug`, which may be given anywhere, before the command."""
    return [DEBUG, *(each for each in arguments if each != DEBUG)] if DEBUG in arguments else arguments


def _prepare_warnings() -> None:
    """Print warnings of this package in one line, and drop what PYTHONWARNINGS says: it is meant for other programs.

    Both also hold for the processes that are started, which inherit the environment and the filters.
    """
    import warnings

    package, usual_format = os.path.dirname(os.path.dirname(__file__)), warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        ours = os.path.abspath(filename).startswith(package + os.sep)
        return f"repro: {message}\n" if ours else usual_format(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    setting = os.environ.pop("PYTHONWARNINGS", "")
    if setting:
        theirs = setting.split(",")
        sys.warnoptions[:] = [option for option in sys.warnoptions if option not in theirs]
        warnings.resetwarnings()
        for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", unseen)  # as Python does by default


def _fail(message: str, code: int, debug: bool) -> int:
    """Print the message of an error in one line, and return the exit code."""
    with suppress(OSError, ValueError, AttributeError, ReproError, Stopped):  # closed, full, or not there yet
        sys.stdout.flush()
    with suppress(OSError, ValueError, AttributeError):
        if debug:
            traceback.print_exc()
        if message:  # of several ranks, only the first has one
            print(f"repro: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)
    return code


def _describe(error: BaseException) -> str:
    """Return what to report about a bug."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return (
        f"internal error: {type(error).__name__}: {text} ({os.path.basename(last.filename)}, line {last.lineno}); this "
        f"is a bug: please report it to the maintainers with the output of the same command with {DEBUG}"
    )
