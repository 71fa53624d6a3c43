"""Figure 4 and its claim, from records."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import data_record, write_retrieval, write_run

from repro.records.reading import read_records
from repro.report import build_report
from repro.report.build import judge
from repro.report.figures.figure4 import retrieval_pictures

ILSVRC2010 = data_record("ilsvrc2010", "", ["one, two"] * 1000, train=1_261_406, val=50_000, test=150_000)
ALL: dict[str, Any] = {"images": 150_000, "searched": 1_261_406}


def test_both_halves_are_drawn_and_measured(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_retrieval(tmp_path)
    build_report(tmp_path, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Left: eight images" in page
    assert "70.0% [69.0, 71.0] are of the same class, in pixels 20.0% [19.0, 21.0], by chance 10.0%" in page
    assert "searched 20.0 times as fast" in page
    table = pd.read_csv(tmp_path / "out" / "tables" / "retrieval.csv")
    assert table["Same class, %: fc7"][0] == 70
    assert table["Same class, %: by chance"][0] == 10
    assert table["Speedup of codes"][0] == pytest.approx(20)


def test_the_claim_matches_at_the_papers_scale_and_agrees_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path / "small")
    write_retrieval(tmp_path / "small")
    assert judge(read_records(tmp_path))["retrieval-not-pixels"][0].direction == "agrees"
    write_run(tmp_path / "full", scale="paper", epochs=93, done=1, data=ILSVRC2010)
    write_retrieval(tmp_path / "full", scale="paper", data=ILSVRC2010, **ALL)
    verdict, other = judge(read_records(tmp_path))["retrieval-not-pixels"]
    assert (verdict.verdict, other.verdict) == ("match", "not comparable")
    assert verdict.measurement
    assert (verdict.measurement.interval, verdict.measurement.over) == ((2.5, 3.5), "images")


def test_where_pixels_would_do_the_claim_is_a_mismatch(tmp_path: Path) -> None:
    write_run(tmp_path, scale="paper", epochs=93, done=1, data=ILSVRC2010)
    write_retrieval(tmp_path, scale="paper", data=ILSVRC2010, overlap=80, **ALL)
    assert judge(read_records(tmp_path))["retrieval-not-pixels"][0].verdict == "mismatch"


def test_neighbours_no_better_than_those_in_pixels_are_no_evidence(tmp_path: Path) -> None:
    """A net with random weights: its neighbours are not those in pixels either, but of no use."""
    write_run(tmp_path, scale="paper", epochs=93, done=1, data=ILSVRC2010)
    random = {space: {"value": 0.2, "interval": [0.1, 0.3]} for space in ("fc7", "pixels", "codes")}
    write_retrieval(tmp_path, scale="paper", data=ILSVRC2010, precision=random, **ALL)
    verdict = judge(read_records(tmp_path))["retrieval-not-pixels"][0]
    assert verdict.verdict == "not comparable"
    assert "neighbours in fc7 no better than in pixels" in verdict.reason


def test_a_sample_of_the_images_is_not_comparable(tmp_path: Path) -> None:
    write_run(tmp_path, scale="paper", epochs=93, done=1, data=ILSVRC2010)
    write_retrieval(tmp_path, scale="paper", data=ILSVRC2010, images=1000, searched=1_261_406)
    assert judge(read_records(tmp_path))["retrieval-not-pixels"][0].verdict == "not comparable"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half of an archive"])
def test_damaged_pictures_are_not_drawn(tmp_path: Path, damage: bytes) -> None:
    (write_retrieval(tmp_path) / "retrieval-test.npz").write_bytes(damage)
    assert list(retrieval_pictures(read_records(tmp_path))) == []
    # Neighbours in fc7 against those in pixels, and codes against pixels.
    assert build_report(tmp_path, tmp_path / "out").counts["not comparable"] == 2


def test_without_a_list_of_classes_they_are_numbers(tmp_path: Path) -> None:
    write_retrieval(tmp_path, data=data_record(classes=[]))
    left, _ = retrieval_pictures(read_records(tmp_path))
    assert "class " in left.alt


def test_a_damaged_record_is_left_out_and_named(tmp_path: Path) -> None:
    write_retrieval(tmp_path, overlap=3.0, precision={"fc7": 1})
    records = read_records(tmp_path)
    assert records.retrievals == ()
    assert "retrieval-test.json was left out" in records.problems[0]
