"""Decisions of the small-scale protocol: which measurements count, and what two sets of images decide together."""

from __future__ import annotations

import pytest

from repro.paper.targets import Measurement, Scope, compare, load_targets
from repro.report.claims import Claim
from repro.report.small_scale import decision, small_scale_table

LRN = next(target for target in load_targets() if target.id == "lrn-top1")


@pytest.mark.parametrize(
    ("directions", "decided"),
    [
        (["agrees"], "supported"),
        (["undecided", "agrees"], "supported"),
        (["agrees", "agrees"], "supported"),
        (["disagrees", "undecided"], "contradicted"),
        (["agrees", "disagrees"], "undecided"),
        (["undecided"], "undecided"),
    ],
)
def test_one_set_decides_unless_the_other_says_the_opposite(directions: list[str], decided: str) -> None:
    assert decision(directions) == decided


def test_one_view_of_unchanged_runs_on_validation_images_decides() -> None:
    """Of runs without normalisation: the row is that of the one measurement on each set that the protocol names."""
    rows = rows_of(
        on("imagenette", 0.1, views=10),
        on("imagenette", 9.0, changes=("lr 0.005",)),
        on("imagenette", 9.0, split="train"),
        on("imagenette", 9.0, recipe="paper"),
        on("imagenette", 9.0, scale="smoke"),
        on("imagenette", 1.4),
        on("catsdogs", 9.0),
        on("caltech100", -2.0, changes=("1 of 8 runs at chance",)),
    )
    assert [row[3:] for row in rows] == [
        ["1.4 [0.4, 2.4], agrees", "−2.0 [−3.0, −1.0], disagrees", "3 seeds", "undecided, 1 of 8 runs at chance"]
    ]


def test_ten_views_count_where_one_was_not_measured() -> None:
    assert [row[3:5] for row in rows_of(on("imagenette", 1.4, views=10))] == [["1.4 [0.4, 2.4], agrees", None]]


def test_pre_training_on_the_other_set_is_planned() -> None:
    rows = rows_of(
        on("imagenette", 9.0, changes=("pre-trained on imagenette",)),
        on("imagenette", 1.7, changes=("pre-trained on caltech100",)),
    )
    assert [row[3:5] for row in rows] == [["1.7 [0.7, 2.7], agrees", None]]


def test_an_earlier_method_with_one_run_decides_nothing_and_two_claims_with_one_measurement_are_one() -> None:
    scope = Scope("folder", "val", 1, "small")
    measured = Measurement(0.8, (0.3, 1.4), 3925, "images", scope, "authors", "imagenette (10 classes)")
    claims = [
        Claim(compare(target, measured))
        for target in load_targets()
        if target.id in ("contest-sift-fv-top5", "contest-2012-sift-fv-top5")
    ]
    assert [each.direction for each in claims] == ["disagrees", "disagrees"]
    (row,) = (row for section in small_scale_table(claims).sections for row in section.rows)
    assert list(row)[3:] == ["0.8 [0.3, 1.4], undecided", None, "3,925 images", "undecided"]


def test_a_claim_that_was_measured_on_neither_set_has_no_row() -> None:
    assert not rows_of(on("catsdogs", 1.4))


def on(
    where: str, value: float, views: int = 1, split: str = "val", scale: str = "small", recipe: str = "authors",
    changes: tuple[str, ...] = (),
) -> Claim:  # fmt: skip
    scope = Scope("folder", split, views, scale, changes)
    interval = (value - 1, value + 1)
    measured = Measurement(value, interval, 3, "seeds", scope, recipe, f"{where} (10 classes)")
    return Claim(compare(LRN, measured))


def rows_of(first: Claim, *others: Claim) -> list[list[object]]:
    table = small_scale_table([Claim(first.verdict, others)])
    return [list(row) for section in table.sections for row in section.rows]
