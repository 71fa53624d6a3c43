"""The table of the differences between the recipes, against logs whose course is known."""

import json
from pathlib import Path

from made_records import data_record, write_run

from repro.records import LOG, read_records
from repro.report.recipe_table import leaves_chance, recipe_table


def test_the_epoch_that_leaves_chance_is_that_of_the_log(tmp_path: Path) -> None:
    for seed, stall in enumerate((6, 4, 30)):
        write_run(tmp_path, recipe="paper", seed=seed, epochs=10, stall=stall)
    write_run(tmp_path, "swap-initialisation", "paper", epochs=10, stall=0)
    write_run(tmp_path, "alexnet", "authors", epochs=10)
    (section,) = recipe_table(read_records(tmp_path)).sections
    assert section.heading == "ten classes (10 classes), small scale, 10 epochs"
    assert [row[:3] for row in section.rows] == [
        ["the text", "nothing", "7, 5, not in 10"],
        ["the text", "initialisation", "1"],
        ["the program", "nothing", "1"],
    ]
    (text, initialisation, program) = (row[3] for row in section.rows)
    assert (text.n, text.over) == (3, "seeds")
    assert (initialisation.n, program.over) == (2000, "images")


def test_data_without_an_exchanged_difference_have_no_section(tmp_path: Path) -> None:
    for name in ("paper", "authors"):
        write_run(tmp_path, recipe=name)
    write_run(tmp_path, "swap-crops", "paper", data=data_record(name="others", train=100))  # without validation images
    assert not recipe_table(read_records(tmp_path)).filled


def test_an_error_within_three_standard_errors_of_chance_does_not_leave_it(tmp_path: Path) -> None:
    """On 2,000 images of ten classes, three standard errors are 2.0 points."""
    folder = write_run(tmp_path, epochs=3, stall=3)
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for line, error in zip(lines, (90.0, 88.1, 87.9), strict=True):
        line["val_top1_error"] = error
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = read_records(tmp_path).runs
    assert leaves_chance(run) == 3
