"""The README and the command reference agree with the commands, and its results with the records."""

import io
import re
import shlex
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import typer
from PIL import Image

from repro.cli import commands as cli
from repro.cli import reference
from repro.paper.intervals import Interval, image_error, paired_interval, welch_interval
from repro.records.reading import read_records
from repro.report.figures.effects import effect_pictures
from repro.report.figures.style import figure_style
from repro.report.measurements.evaluations import group_evaluations, wrong_answers
from repro.report.results import EFFECTS, RECORDS, RESULTS, results, summary, with_summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def test_the_command_reference_and_the_table_of_commands_are_current() -> None:
    """After a change of a command or an option: python -m repro.cli.reference."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference.reference()
    assert reference.with_commands_table(README) == README
    assert reference.commands_table() in README
    assert all(f"`repro {name}" in reference.commands_table() for name in COMMANDS)


def example_commands() -> list[str]:
    """Every `repro …` line in the README's blocks of code."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for language, block in blocks if not language for line in block.splitlines()]
    return [line.rpartition("&& ")[2] for line in lines if "repro " in line and "nox" not in line]


@pytest.mark.parametrize("line", example_commands())
def test_every_example_can_be_parsed(line: str) -> None:
    name, *words = shlex.split(line[line.index("repro ") :])[1:]
    COMMANDS[name].make_context(name, words)  # an unknown option or a missing one raises


def test_there_are_examples() -> None:
    assert len(example_commands()) >= 8


def test_the_published_results_are_those_of_the_records() -> None:
    """After a change of the published records or of the report's tables: python -m repro.report.results."""
    assert RESULTS.read_text(encoding="utf-8") == results()
    assert with_summary(README) == README
    assert summary() in README


def test_the_published_figure_is_that_of_the_records() -> None:
    """Its coloured pixels are the measured intervals; those of texts depend on the version of the font library."""

    def coloured(png: IO[bytes]) -> np.ndarray:
        return np.ptp(np.asarray(Image.open(png).convert("RGB")), axis=2) > 60

    with figure_style(), EFFECTS.open("rb") as published:
        (picture,) = effect_pictures(read_records(RECORDS))
        drawn, found = coloured(io.BytesIO(picture.png)), coloured(published)
    assert drawn.sum() > 1000
    assert (drawn != found).sum() < 50


@pytest.mark.parametrize("name", ["findings.md", "contest.md"])
def test_every_interval_of_the_documentation_is_a_published_result(name: str) -> None:
    """Also of opposite sign: the net is better by 3.6 points where the table has a difference of −3.6."""
    published = {tuple(map(float, each)) for each in intervals(results())}
    published |= {(-high, -low) for low, high in published}
    found = intervals((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(found) > 5
    assert {tuple(map(float, each)) for each in found} <= published


def test_intervals_in_parentheses_are_of_two_published_nets() -> None:
    """They allow for seeds and images, as those in brackets do: one over the seeds alone is too short."""
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8").replace("−", "-")
    pattern = r"\((?:95%: )?(-?\d+\.\d+)\s+to\s+(-?\d+\.\d+)"
    found = {tuple(map(float, each)) for each in re.findall(pattern, text)}
    assert len(found) > 5
    published = {tuple(map(float, each)) for each in intervals(results())} | net_differences()
    assert found <= published | {(-high, -low) for low, high in published}


def net_differences() -> set[tuple[float, float]]:
    """Return the interval of each two published nets' difference on the same images and views, rounded as in a text."""
    wrong: dict[tuple[object, ...], list[np.ndarray]] = defaultdict(list)
    for key, nets in group_evaluations(read_records(RECORDS)).items():
        for evaluations in nets.values():
            if (answers := wrong_answers(evaluations, "top1_error")) is not None:
                wrong[key.context.data.fingerprint, key.split, key.views].append(answers)
    found = [nets_interval(*pair) for group in wrong.values() for pair in combinations(group, 2)]
    return {(round(low, 1), round(high, 1)) for low, high in found}


def nets_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Return the interval of the difference of two nets' errors, from their wrong answers [seeds, images]."""
    if min(len(first), len(second)) > 1:
        errors = [100 * each.mean(axis=1) for each in (first, second)]
        found = welch_interval(errors[0].tolist(), errors[1].tolist(), image_error(first, second))
        assert found
        return found
    one, other = first[0], second[0]
    return paired_interval(int((one & ~other).sum()), int((other & ~one).sum()), len(one))


def test_the_rows_on_the_recipes_are_published_results() -> None:
    """Epochs and errors of each row of docs/findings.md, under the title of the exchanged difference."""
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    found, published = (
        {(row[0], *row[2:]) for line in re.findall(r"^\| (the (?:text|program) \|.*) \|$", each, re.MULTILINE)
         if (row := line.replace("\\", "").split(" | "))}
        for each in (text, results())
    )  # fmt: skip
    assert len(found) > 5
    assert found <= published


def intervals(text: str) -> list[tuple[str, str]]:
    text = text.replace("\\", "").replace("−", "-")
    return re.findall(r"\[(-?\d+\.\d+), (-?\d+\.\d+)\]", text)
