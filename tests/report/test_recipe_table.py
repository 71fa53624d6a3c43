"""The table of the differences between the recipes, against logs whose course is known."""

import json
from pathlib import Path

import pytest
from made_records import data_record, write_run

from repro.records.file_names import LOG
from repro.records.reading import read_records
from repro.report.recipe_table import leaves_chance, recipe_table


def test_the_epoch_that_leaves_chance_is_that_of_the_log(tmp_path: Path) -> None:
    for seed, stall in enumerate((6, 4, 30)):
        write_run(tmp_path, recipe="paper", seed=seed, epochs=10, stall=stall)
    write_run(tmp_path, "swap-initialisation", "paper", epochs=10, stall=0)
    write_run(tmp_path, "alexnet", "authors", epochs=10)
    (section,) = recipe_table(read_records(tmp_path)).sections
    assert section.heading == "ten classes (10 classes), small scale, 10 epochs"
    assert [row[:4] for row in section.rows] == [
        ["the text", "nothing", "7, 5, not in 10", "7, 5, not in 10"],
        ["the text", "initialisation", "1", "1"],
        ["the program", "nothing", "1", "1"],
    ]
    (text, initialisation, program) = (row[4] for row in section.rows)
    assert (text.n, text.over) == (3, "seeds")
    assert (initialisation.n, program.over) == (2000, "images")


def test_data_without_an_exchanged_difference_have_no_section(tmp_path: Path) -> None:
    for name in ("paper", "authors"):
        write_run(tmp_path, recipe=name)
    write_run(tmp_path, "swap-crops", "paper", data=data_record(name="others", train=100))  # without validation images
    assert not recipe_table(read_records(tmp_path)).filled


@pytest.mark.parametrize(
    ("errors", "first", "for_good"),
    [
        ((90.0, 88.1, 87.9), 3, 3),  # on 2,000 images of ten classes, three standard errors are 2.0 points
        ((80.0, 70.0, 60.0), 1, 1),
        ((80.0, 90.0, 60.0), 1, 3),
        ((90.0, 80.0, 90.0), 2, None),
        ((90.0, 90.0, 90.0), None, None),
    ],
)
def test_chance_is_left_by_three_standard_errors(
    errors: tuple[float, ...], first: int | None, for_good: int | None, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, epochs=3, stall=3)
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for line, error in zip(lines, errors, strict=True):
        line["val_top1_error"] = error
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = read_records(tmp_path).runs
    assert (leaves_chance(run), leaves_chance(run, for_good=True)) == (first, for_good)
