"""Comparisons beyond the paper's claims: what they contain, and that one seed or a wide interval decides nothing."""

from pathlib import Path

import pytest
from made_records import data_record, write_evaluation, write_run

from repro.records.reading import read_records
from repro.report.comparisons import own_comparisons
from repro.report.tables import comparison_table

CATSDOGS = data_record("catsdogs", classes=["cat", "dog"], train=2000, val=2000)
TUNED = {"settings": {"lr": 0.001}, "init_from": {"run": "alexnet", "weights": ""}}


def write_both(folder: Path, plain: list[float], tuned: list[float]) -> None:
    """Runs from random weights, and fine-tuned ones, with their errors."""
    for name, errors, changes in (("plain", plain, {"settings": {"lr": 0.01}}), ("tuned", tuned, TUNED)):
        for seed, error in enumerate(errors):
            write_run(folder / name, seed=seed, data=CATSDOGS, **changes)  # type: ignore[arg-type]
            write_evaluation(folder / name, seeds=(seed,), error=error, data=CATSDOGS)


def conclusion(folder: Path) -> str:
    (row,) = comparison_table(read_records(folder)).frame.to_dict("records")
    return str(row["", "Conclusion"])


def test_pretraining_is_compared_and_everything_that_differs_is_named(tmp_path: Path) -> None:
    write_both(tmp_path, [30, 25.4, 26], [22, 25.4, 19])
    (found,) = own_comparisons(read_records(tmp_path))
    assert {found.first, found.second} == {
        "random weights, recipe authors", "fine-tuned, lr 0.001, recipe authors",
    }  # fmt: skip
    assert abs(found.difference.value) == pytest.approx(5)
    assert (found.difference.over, found.seeds) == ("seeds", 3)
    assert conclusion(tmp_path).startswith("undecided with 3 seeds of each; about ")


def test_a_difference_beyond_the_spread_is_decided(tmp_path: Path) -> None:
    write_both(tmp_path, [30, 31, 32], [20, 21, 22])
    assert conclusion(tmp_path) == "fine-tuned, lr 0.001, recipe authors is better, 3 seeds of each"


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    write_both(tmp_path, [30], [10])
    assert conclusion(tmp_path) == "these nets only: fewer than 3 seeds"


def test_recipes_are_compared_on_the_same_data_only(tmp_path: Path) -> None:
    for recipe, error in (("authors", 25), ("paper", 30)):
        write_run(tmp_path, recipe=recipe)
        write_evaluation(tmp_path, recipe=recipe, error=error)
    write_run(tmp_path / "other", recipe="paper", data=CATSDOGS)
    write_evaluation(tmp_path / "other", recipe="paper", data=CATSDOGS)
    (found,) = own_comparisons(read_records(tmp_path))
    assert {found.first, found.second} == {"random weights, recipe authors", "random weights, recipe paper"}
