"""Output on every kind of terminal, pipe and encoding, and errors that end in one line."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console

from repro.cli import commands as cli
from repro.cli import streams, tables
from repro.cli.progress import meter
from repro.evaluation import command_lines
from repro.formatting import command_line

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
REPRO = [sys.executable, "-W", "error", "-m", "repro"]
posix = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell and its devices")


def run(*words: str, stdout: object = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*REPRO, *words], stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment, timeout=300
    )


ENCODINGS: dict[str, dict[str, str]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "POSIX locale": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
}


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("words", [("list", "targets"), ("prepare", "--help")])
def test_output_in_an_encoding_without_the_signs_of_the_paper(
    words: tuple[str, ...], environment: dict[str, str]
) -> None:
    done = run(*words, **environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 10
    assert not done.stderr


def test_characters_outside_an_encoding_are_replaced_by_similar_ones() -> None:
    streams.register_errors()
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=streams.ERRORS)
    shown.write("224×224 … σ é \udcff ≥")
    shown.flush()
    assert shown.buffer.getvalue() == b"224x224 ... \\u03c3 \\xe9 \\udcff >="  # type: ignore[attr-defined]


@posix
def test_closed_standard_output() -> None:
    for words in ("--version", "list variants"):
        done = subprocess.run(["sh", "-c", f'exec "$0" -m repro {words} >&-', sys.executable], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("list", "targets"), ("--help",)])
def test_a_full_standard_output_is_one_line_and_exit_code_3(words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(*words, stdout=full)
    assert done.returncode == 3
    assert done.stderr == b"repro: cannot write to standard output: No space left on device\n"


@posix
@pytest.mark.parametrize("words", [("list", "targets"), ("--help",)])
def test_a_pipe_without_reader_ends_as_by_sigpipe(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(*words, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, b"")


def test_a_bug_is_one_line_with_what_to_do_and_a_traceback_only_with_debug() -> None:
    code = (
        "import sys; from repro.cli import main, tables\n"
        "def broken(): raise KeyError('two\\nlines')\n"
        "tables.TABLES['variants'] = broken\n"
        "sys.argv = ['repro', 'list', 'variants', *sys.argv[1:]]; main.main()"
    )
    plain, debug = (
        subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        for words in ((), ("--debug",))
    )
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert len(plain.stderr.splitlines()) == 1
    for part in ("KeyError", "two", "report it", "--debug"):
        assert part in plain.stderr
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


@pytest.mark.parametrize(("module", "code"), [("typer", 3), ("repro.cli.tables", 1)])
def test_a_missing_package_is_named_with_the_interpreter(module: str, code: int) -> None:
    """That of another environment, for example; a missing part of repro itself is a bug."""
    program = f"import sys; from repro.cli import main; sys.modules[{module!r}] = None; main.main()"
    done = subprocess.run([sys.executable, "-c", program, "list", "variants"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert module in done.stderr
    assert (f"is not installed for '{sys.executable}'" in done.stderr) == (code == 3)


def test_help_shows_every_default() -> None:
    for name, command in COMMANDS.items():
        shown = " ".join(command.get_help(command.make_context(name, [], resilient_parsing=True)).split())
        for option in command.params:
            if isinstance(option.show_default, str):
                assert option.show_default in shown, (name, option.name)
            elif option.default not in (None, False) and not option.required:
                assert f"[default: {option.default}" in shown, (name, option.name)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("what", tables.TABLES)
def test_tables_split_no_word_in_a_terminal(what: str, width: int) -> None:
    listing, shown = tables.TABLES[what](), io.StringIO()
    tables.print_listing(Console(file=shown, force_terminal=True, no_color=True, width=width), listing)
    words = set(re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).replace("│", " ").split())
    assert {word for row in listing.rows for cell in row for word in cell.split()} <= words


@pytest.mark.parametrize("what", tables.TABLES)
def test_tables_have_a_line_for_each_row_in_a_pipe(what: str) -> None:
    listing, shown = tables.TABLES[what](), io.StringIO()
    tables.print_listing(Console(file=shown), listing)
    lines = shown.getvalue().splitlines()
    for row in listing.rows:
        assert any(all(cell in line for cell in row) for line in lines), row


def test_progress_in_a_dumb_terminal_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = io.StringIO()
    with meter(Console(file=shown, force_terminal=True), "preparing", "images") as show:
        show(10, 10)
    assert shown.getvalue().startswith("preparing: 10 of 10 images")
    assert "\x1b" not in shown.getvalue()


def test_brackets_and_colons_in_paths_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")  # prepare's crops are computed with it
    out = tmp_path / "a[red]b[" / "x] :smile: y"
    out.parent.mkdir()
    words = ("synthetic", "--out", str(out), "--limit-per-class", "1", "--workers", "1")
    COMMANDS["prepare"](words, standalone_mode=False)
    assert f"{out}: " in capsys.readouterr().out


def test_commands_to_type_are_quoted() -> None:
    words = ["repro", "verify", "my runs/a'b[1]"]
    quoted = "repro verify 'my runs/a'\"'\"'b[1]'" if os.name == "posix" else 'repro verify "my runs/a\'b[1]"'
    assert command_line(words) == quoted


def test_recorded_commands_are_quoted_for_the_systems_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Windows takes single quotes literally."""
    monkeypatch.setattr("repro.formatting.os", SimpleNamespace(name="nt"))
    recorded = command_lines.command_line(command_lines.retrieve_argv(Path("my run"), Path("store"), "test"))
    assert recorded == 'repro retrieve "my run" --data store --split test'
