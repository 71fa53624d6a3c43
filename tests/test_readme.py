"""What the README says of the commands is what the commands say of themselves."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from repro.cli import commands as cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def test_the_table_lists_every_command_with_its_own_words() -> None:
    rows = dict(re.findall(r"^\| `repro (\w+)[^`]*` \| (.+) \|$", README, re.MULTILINE))
    assert rows == {name: command.help for name, command in COMMANDS.items()}


def shown() -> list[str]:
    """Every `repro …` line in the README's blocks of code."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for language, block in blocks if not language for line in block.splitlines()]
    return [line.rpartition("&& ")[2] for line in lines if "repro " in line and "nox" not in line]


@pytest.mark.parametrize("line", shown())
def test_every_command_shown_can_be_parsed(line: str) -> None:
    name, *words = shlex.split(line[line.index("repro ") :])[1:]
    COMMANDS[name].make_context(name, words)  # an unknown option or a missing one raises


def test_there_are_commands_to_check() -> None:
    assert len(shown()) >= 8


def test_the_numbers_shown_are_those_of_the_records() -> None:
    """Every evaluation that is published with the code stands in the README's table, and nothing else does."""
    runs = Path(__file__).parents[1] / "outputs" / "reference" / "runs"
    rows = re.findall(r"^\| (\w+) \| (\w+) \| ([\d.]+)% / ([\d.]+)% \| ([\d.]+)% / ([\d.]+)% \|$", README, re.MULTILINE)
    expected = []
    for run in sorted(runs.glob("*/run.json")):
        one, ten = (json.loads((run.parent / f"evaluation-val-{views}.json").read_text()) for views in (1, 10))
        errors = (each[key] for each in (one, ten) for key in ("top1_error", "top5_error"))
        expected.append((one["variant"], one["recipe"], *(f"{error:.2f}" for error in errors)))
    assert rows == expected != []
