"""Figure 1: the learning rate that counts, the crossing, the ratio and its bound, against numbers by hand."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from made_records import data_record, write_course, write_grid, write_run
from scipy.stats import ttest_ind

from repro.paper.experiments import GRIDS, epochs_to_error, fastest_lr
from repro.paper.targets import Verdict
from repro.records.reading import read_records
from repro.report import build_report
from repro.report.build import judge
from repro.report.measurements.grid import build_grid


def ratio(folder: Path) -> Verdict:
    return judge(read_records(folder))["figure1-relu-speed"][0]


def write_seeds(folder: Path, relu: list[float], tanh: list[float], relu_lr: float = 0.002) -> None:
    """Seeds 1 to 3 of both nets, of tanh at the learning rate 0.001."""
    for seed in (1, 2, 3):
        write_course(folder, "cifar-relu", relu_lr, seed, relu)
        write_course(folder, "cifar-tanh", 0.001, seed, tanh)


def test_crossing_is_interpolated_linearly() -> None:
    assert epochs_to_error([60, 40, 20], 25) == pytest.approx(2.75)
    assert epochs_to_error([60, 25, 20], 25) == 2
    assert epochs_to_error([20, 10], 25) == 1
    assert epochs_to_error([60, 30], 25) is None
    assert epochs_to_error([60, math.nan, 20], 25) == 3
    assert epochs_to_error([], 25) is None


def test_the_fastest_rate_reaches_the_error_first_or_gets_closest() -> None:
    assert fastest_lr({0.1: [60, 30, 24], 0.2: [60, 24, 30], 0.3: [60, 30, 1]}, 25) == 0.2
    assert fastest_lr({0.1: [60, 24.9], 0.2: [60, 20]}, 25) == 0.2  # both in the second epoch
    assert fastest_lr({0.1: [60, 30], 0.2: [60, 28], 0.3: [math.nan, math.nan], 0.4: []}, 25) == 0.2


def test_of_equally_fast_rates_the_first_declared_counts_as_in_repro_run(tmp_path: Path) -> None:
    for rate in GRIDS["authors"]:
        write_course(tmp_path, "cifar-relu", rate, 0, [45, 15])
    found = build_grid(read_records(tmp_path).runs)
    assert found
    assert found.fastest_lr == GRIDS["authors"][0] != min(GRIDS["authors"])


def test_each_net_counts_at_its_fastest_rate_over_the_seeds_that_did_not_choose_it(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-relu", 0.002, [45, 15])
    write_grid(tmp_path, "cifar-tanh", 0.001, [70, 60, 50, 45, 40, 35, 30, 28, 26, 20])
    counting = (
        (1, [40, 20], [70] * 9 + [20]), (2, [35, 5], [70] * 10 + [20]), (3, [45, 15], [70] * 9 + [28, 22]),
    )  # fmt: skip
    for seed, relu, tanh in counting:
        write_course(tmp_path, "cifar-relu", 0.002, seed, relu)
        write_course(tmp_path, "cifar-tanh", 0.001, seed, tanh)
    verdict = ratio(tmp_path)
    assert verdict.measurement
    slow = [9.9, 10.9, 10.5]
    quick = [1.75, 1 + 10 / 30, 1 + 20 / 30]
    logs = [[math.log(value) for value in values] for values in (slow, quick)]
    assert verdict.measurement.value == pytest.approx(math.exp(sum(logs[0]) / 3 - sum(logs[1]) / 3))
    interval = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert verdict.measurement.interval == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    assert (verdict.measurement.n, verdict.measurement.over) == (3, "seeds")
    assert verdict.verdict == "match"  # 6.6 times
    assert not any("seed0" in run for run in verdict.measurement.runs)  # they chose the learning rate
    assert len(verdict.measurement.runs) == 6
    reaches = judge(read_records(tmp_path))["figure1-relu-reaches"][0]
    assert reaches.verdict == "match"
    assert reaches.measurement
    assert reaches.measurement.value == pytest.approx((20 + 5 + 15) / 3)


def test_a_net_that_does_not_reach_the_error_gives_a_bound_and_no_number(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-relu", 0.002, [60, 24])
    write_grid(tmp_path, "cifar-tanh", 0.001, [70, 60, 50, 45, 40, 35, 32, 30])
    verdict = ratio(tmp_path)
    assert verdict.verdict == "missing"
    assert verdict.measurement
    assert verdict.measurement.bound == 1
    assert verdict.measurement.value == pytest.approx(8 / (2 - 1 / 36))
    build_report(tmp_path, tmp_path / "out")
    row = next(
        row
        for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["targets"]
        if row["id"] == "figure1-relu-speed"
    )
    assert row["measured"] is None
    assert row["bound"] == [1, pytest.approx(4.056, abs=0.001)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&gt; 4.06×" in page
    assert "tanh has not reached 25% in 8 epochs (1 seed)" in page
    table = pd.read_csv(tmp_path / "out" / "tables" / "figure1.csv", keep_default_na=False)
    assert set(table["Epochs: run 1"][table["Net"] == "cifar-tanh"]) == {"not in 8"}


def test_a_bound_beyond_the_tolerance_is_a_mismatch(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-relu", 0.002, [60, 24])
    write_grid(tmp_path, "cifar-tanh", 0.001, [70] * 16)
    assert ratio(tmp_path).verdict == "missing"  # one seed decides nothing
    write_seeds(tmp_path, [60, 24], [70] * 16)
    assert ratio(tmp_path).verdict == "mismatch"  # more than 8.1 times, where 7.5 would still match


def test_where_relu_alone_fails_the_bound_is_from_above_and_where_both_do_there_is_none(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-tanh", 0.001, [60, 24])
    assert ratio(tmp_path).measurement is None
    write_grid(tmp_path, "cifar-relu", 0.001, [60] * 4)
    verdict = ratio(tmp_path)
    assert verdict.measurement
    assert verdict.measurement.bound == -1
    write_seeds(tmp_path, [60] * 4, [60, 24], relu_lr=0.001)
    assert ratio(tmp_path).verdict == "mismatch"


def test_the_ratio_is_not_comparable_until_every_rate_of_the_grid_was_tried(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-relu", 0.002, [60, 24])
    write_course(tmp_path, "cifar-tanh", 0.001, 0, [80] * 11 + [24])
    verdict = ratio(tmp_path)
    assert verdict.verdict == "not comparable"
    assert "paper scale, learning rates of the grid missing" in verdict.reason


def test_a_recipe_that_neither_text_nor_program_has_is_not_the_papers(tmp_path: Path) -> None:
    for net, errors in (("cifar-relu", [60.0, 24.0]), ("cifar-tanh", [70.0, 60.0, 40.0, 24.0])):
        for rate in GRIDS["fan-in"]:
            for seed in range(4):
                write_course(tmp_path, net, rate, seed, errors, recipe="fan-in")
    verdict = ratio(tmp_path)
    assert verdict.verdict == "not comparable"
    assert "recipe fan-in" in verdict.reason


def test_an_unfinished_run_is_left_out_and_reported_as_such(tmp_path: Path) -> None:
    write_grid(tmp_path, "cifar-relu", 0.002, [60, 24])
    write_grid(tmp_path, "cifar-tanh", 0.001, [70] * 11 + [20])
    before = ratio(tmp_path).measurement
    write_course(tmp_path, "cifar-tanh", 0.001, 1, [70, 60], finished=False, epochs=30)
    assert ratio(tmp_path).measurement == before
    build_report(tmp_path, tmp_path / "out")
    assert "not yet in 2" in (tmp_path / "out" / "report.html").read_text()


def test_a_short_run_does_not_show_that_relu_fails(tmp_path: Path) -> None:
    write_course(tmp_path, "cifar-relu", 0.002, 0, [60, 40])
    assert judge(read_records(tmp_path))["figure1-relu-reaches"][0].verdict == "missing"


def test_a_changed_learning_rate_is_not_comparable(tmp_path: Path) -> None:
    thousand = data_record("ilsvrc2010", "", ["x"] * 1000, train=1_261_406, val=50_000, test=150_000)
    write_run(tmp_path, scale="paper", epochs=93, done=3, data=thousand, settings={"lr": 0.02})
    assert "paper scale, lr 0.02" in judge(read_records(tmp_path))["training-speed"][0].reason


def test_rates_that_the_spread_over_seeds_cannot_tell_apart_are_marked(tmp_path: Path) -> None:
    """By hand: the fastest takes 10 to 12 epochs, ln 2.40 ± 0.10; one more run lies within a factor of 1.6 of 10.9."""
    for seed, epochs in enumerate((9, 10, 11, 12)):
        write_course(tmp_path, "cifar-tanh", 0.004, seed, [70] * (epochs - 1) + [25])
    for lr, epochs in ((0.002, 12), (0.001, 25)):
        write_course(tmp_path, "cifar-tanh", lr, 0, [70] * (epochs - 1) + [25])
    build_report(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "tables" / "figure1.csv", keep_default_na=False).set_index("Learning rate")
    assert table["Result"][[0.001, 0.002, 0.004]].tolist() == ["", "within the spread of the fastest", "fastest"]


def test_records_without_weights_do_not_hide_a_seed_that_failed(tmp_path: Path) -> None:
    """As published: no run has weights, none records its end, and one seed of tanh never reaches the error."""
    write_grid(tmp_path, "cifar-relu", 0.002, [60, 24])
    write_grid(tmp_path, "cifar-tanh", 0.001, [70] * 11 + [20])
    write_seeds(tmp_path, [60, 24], [70] * 11 + [20])
    write_course(tmp_path, "cifar-tanh", 0.001, 4, [70] * 16)
    for run in tmp_path.rglob("run.json"):
        (run.parent / "weights.safetensors").unlink()
        record = json.loads(run.read_text(encoding="utf-8"))
        del record["ended"]
        run.write_text(json.dumps(record), encoding="utf-8")
    verdict = ratio(tmp_path)
    assert verdict.measurement
    assert verdict.measurement.bound == 1
    assert verdict.verdict != "match"
