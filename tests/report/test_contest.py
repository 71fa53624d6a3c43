"""The methods that preceded the paper beside the net: the verdict on the difference, and their rows in the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import data_record, write_evaluation, write_run

from repro.paper.baselines import RECIPE
from repro.paper.intervals import paired_interval
from repro.paper.targets import Verdict
from repro.records.reading import read_evaluation, read_records
from repro.records.schema import DataRecord
from repro.report import build_report
from repro.report.build import judge

IMAGENET = data_record(
    "ilsvrc2010", "", [f"class {index}" for index in range(1000)], train=1_261_406, val=50_000, test=150_000
)


def write_contest(
    folder: Path,
    net: float,
    baseline: float,
    data: DataRecord | None = None,
    scale: str = "small",
    recipe: str = "authors",
) -> tuple[Path, Path]:
    """A net and a baseline with these errors in percent; return the paths of their evaluations."""
    data = data or data_record()
    where = {"split": "test", "images": 150_000} if scale == "paper" else {"split": "val", "images": 2000}
    paths = []
    for variant, by, error, views, epochs, changes in (
        ("alexnet", recipe, net, 10, 93 if scale == "paper" else 30, {}),
        ("sift-fv", RECIPE, baseline, 1, 10, {"kind": "baseline"}),
    ):
        write_run(folder, variant, by, scale, data=data, epochs=epochs, level=20, **changes)
        path = write_evaluation(folder, variant, by, scale, error=error, views=views, data=data, **where)
        paths.append(path / f"evaluation-{where['split']}-{views}.json")
    return paths[0], paths[1]


def verdict(folder: Path, name: str = "contest-sift-fv-top1") -> Verdict:
    return judge(read_records(folder))[name][0]


@pytest.mark.parametrize("recipe", ["authors", "paper"])
def test_the_difference_is_paired_by_image_whatever_the_recipe_of_the_net(recipe: str, tmp_path: Path) -> None:
    first, second = (read_evaluation(path) for path in write_contest(tmp_path, 25, 40, recipe=recipe))
    found = verdict(tmp_path)
    assert (found.verdict, found.direction) == ("not comparable", "agrees")
    measurement = found.measurement
    assert measurement
    (_, net), (_, baseline) = first.wrong("top1_error") or (None, None), second.wrong("top1_error") or (None, None)
    assert net is not None
    assert baseline is not None
    assert measurement.value == -15
    assert (measurement.over, measurement.n) == ("images", 2000)
    assert measurement.interval == paired_interval(int((net & ~baseline).sum()), int((baseline & ~net).sum()), 2000)
    assert measurement.recipe == recipe
    assert "small scale" in found.reason


@pytest.mark.parametrize(("net", "baseline", "direction"), [(40, 25, "disagrees"), (30, 30.1, "undecided")])
def test_a_net_that_is_not_better(net: float, baseline: float, direction: str, tmp_path: Path) -> None:
    write_contest(tmp_path, net, baseline)
    assert verdict(tmp_path).direction == direction


def test_one_net_and_one_baseline_decide_on_the_papers_images(tmp_path: Path) -> None:
    write_contest(tmp_path, 38, 47, IMAGENET, "paper")
    assert verdict(tmp_path).verdict == "match"
    assert verdict(tmp_path, "contest-sparse-coding-top1").verdict == "missing"
    build_report(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "tables" / "table1.csv").set_index("Model")
    assert table.loc["SIFT + FVs (others)", "Top-1: paper"] == 45.7
    assert table.loc["SIFT + FVs (others)", "Top-1: measured"] == 47
    assert np.isnan(table.loc["Sparse coding (others)", "Top-1: measured"])


def test_a_baseline_elsewhere_is_in_the_table_of_smaller_datasets(tmp_path: Path) -> None:
    write_contest(tmp_path, 25, 40)
    build_report(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "tables" / "smaller.csv").set_index("Net")
    assert table.loc["sift-fv", "One view: Top-1"] == 40
    assert table.loc["sift-fv", "Training"] == "cited recipe, small scale"
    assert table.loc["alexnet", "Ten views: Top-1"] == 25


def test_missing_runs_come_from_the_experiment(tmp_path: Path) -> None:
    write_run(tmp_path)
    build_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")
    assert "repro run contest --scale paper --stores STORES --out RUNS" in text
