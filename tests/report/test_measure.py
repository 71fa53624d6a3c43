"""From records to measurements: against numbers worked out by hand, and the rules of scope."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_records import data_record, made_kernels, write_evaluation, write_run

from repro.paper.intervals import error_interval, paired_interval
from repro.paper.targets import Verdict, find_target
from repro.records import read_records
from repro.report.build import judge
from repro.report.measurements import measure
from repro.report.measurements.filters import colourfulness, oriented, orientedness
from repro.report.tables import evaluation_table

THOUSAND = [f"class {index}" for index in range(1000)]
ILSVRC2010 = data_record("ilsvrc2010", "", THOUSAND, train=1_261_406, val=50_000, test=150_000)


def verdict(folder: Path, target: str) -> Verdict:
    return judge(read_records(folder))[target][0]


def write_full(folder: Path, variant: str = "alexnet", seed: int = 0, error: float = 37.6, **changes: object) -> None:
    """A run at the paper's scale with its evaluation on the test images (fewer of them, for speed)."""
    data = changes.pop("data", ILSVRC2010)
    write_run(folder, variant, scale="paper", seed=seed, epochs=93, done=3, data=data, **changes)  # type: ignore[arg-type]
    write_evaluation(folder, variant, scale="paper", seeds=(seed,), data=data, split="test", error=error, images=5000)  # type: ignore[arg-type]


def test_a_full_scale_run_matches(tmp_path: Path) -> None:
    write_full(tmp_path)
    result = verdict(tmp_path, "table1-cnn-top1")
    assert result.verdict == "match"
    assert result.measurement
    assert result.measurement.value == pytest.approx(37.6)
    assert result.measurement.interval == pytest.approx(error_interval(1880, 5000))
    assert result.measurement.over == "images"


def test_a_full_scale_run_that_is_off_is_a_strict_mismatch(tmp_path: Path) -> None:
    write_full(tmp_path, error=41)
    assert verdict(tmp_path, "table1-cnn-top1").fails_strict


def test_strict_as_typed(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "report"
    runs.mkdir()
    words = ["-W", "error", "-m", "repro", "report", "--runs", runs, "--out", out, "--compare", "--strict"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # what is missing is no mismatch
    write_full(runs, error=41)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.startswith("repro: not reproduced: table1-cnn-top1, ")
    assert len(done.stderr.splitlines()) == 1
    assert (out / "report.html").exists()


def test_fewer_epochs_are_not_the_papers_scale(tmp_path: Path) -> None:
    write_run(tmp_path, scale="paper", epochs=5, data=ILSVRC2010)
    write_evaluation(tmp_path, scale="paper", data=ILSVRC2010, split="test", error=37.5)
    result = verdict(tmp_path, "table1-cnn-top1")
    assert result.verdict == "not comparable"
    assert "paper scale, 5 epochs" in result.reason


def test_a_run_from_other_weights_is_not_the_papers_where_the_papers_began_afresh(tmp_path: Path) -> None:
    write_full(tmp_path, error=37.5, init_from={"run": "another"})
    result = verdict(tmp_path, "table1-cnn-top1")
    assert result.verdict == "not comparable"
    assert "paper scale, fine-tuned" in result.reason


def test_one_shortened_member_takes_an_average_out_of_the_papers_scale(tmp_path: Path) -> None:
    data = data_record("ilsvrc2012", "", THOUSAND, train=1_281_167, val=50_000)
    for seed in range(5):
        write_run(tmp_path, scale="paper", seed=seed, epochs=93, done=1, data=data, weights=False)
    write_evaluation(tmp_path, scale="paper", seeds=(0, 1, 2, 3, 4), data=data, error=38.1)
    assert verdict(tmp_path, "table2-5cnns-top1").verdict == "match"
    run = tmp_path / "alexnet-authors-paper-seed3" / "run.json"
    run.write_text(run.read_text().replace('"epochs": 93', '"epochs": 9'))
    assert verdict(tmp_path, "table2-5cnns-top1").verdict == "not comparable"


def test_a_part_of_the_data_set_is_not_the_data_set(tmp_path: Path) -> None:
    write_full(tmp_path, data=data_record("ilsvrc2010", "", THOUSAND, train=10_000, test=150_000), error=37.5)
    assert verdict(tmp_path, "table1-cnn-top1").verdict == "not comparable"


def test_no_small_run_ever_matches(tmp_path: Path) -> None:
    """Numbers as in the paper, but from ten classes at small scale: not one of them counts."""
    for seed in range(5):
        write_run(tmp_path, seed=seed)
        write_evaluation(tmp_path, seeds=(seed,), error=37.5)
        write_evaluation(tmp_path, seeds=(seed,), views=1, error=39.0)
    write_evaluation(tmp_path, seeds=(0, 1, 2, 3, 4), error=38.1)
    for variant in ("one-gpu", "no-lrn", "no-dropout", "no-crops", "no-conv3", "tanh", "no-weight-decay"):
        write_run(tmp_path, variant, overfit=8)
        write_evaluation(tmp_path, variant, error=39.2)
    needing_runs = [each[0] for each in judge(read_records(tmp_path)).values() if each[0].target.kind != "invariant"]
    assert {each.verdict for each in needing_runs} == {"missing", "not comparable"}
    assert sum(each.verdict == "not comparable" for each in needing_runs) > 25


def test_a_delta_of_one_seed_is_paired_by_image(tmp_path: Path) -> None:
    write_evaluation(tmp_path, error=25)
    path = write_evaluation(tmp_path, "one-gpu", error=28)
    result = verdict(tmp_path, "two-gpus-top1")
    with np.load(tmp_path / "alexnet-authors-small-seed0" / "predictions-val-10.npz") as arrays:
        base_wrong = arrays["top5"][:, 0] != arrays["labels"]
    with np.load(path / "predictions-val-10.npz") as arrays:
        other_wrong = arrays["top5"][:, 0] != arrays["labels"]
    b, c = int((other_wrong & ~base_wrong).sum()), int((base_wrong & ~other_wrong).sum())
    assert result.measurement
    assert result.measurement.value == pytest.approx(3) == pytest.approx(100 * (b - c) / 2000)
    assert result.measurement.interval == pytest.approx(paired_interval(b, c, 2000))
    assert result.direction == "agrees"


def test_a_delta_over_seeds_uses_the_differences_seed_by_seed(tmp_path: Path) -> None:
    for seed, error, other in [(0, 20, 21), (1, 30, 32), (2, 25, 28)]:
        write_evaluation(tmp_path, seeds=(seed,), error=error)
        write_evaluation(tmp_path, "one-gpu", seeds=(seed,), error=other)
    write_evaluation(tmp_path, "one-gpu", seeds=(7,), error=90)  # has no partner
    measurement = verdict(tmp_path, "two-gpus-top1").measurement
    assert measurement
    assert measurement.value == pytest.approx(2)
    assert measurement.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert (measurement.n, measurement.over) == (3, "seeds")


def test_without_predictions_a_delta_is_undecided(tmp_path: Path) -> None:
    write_evaluation(tmp_path, error=25, predictions=False)
    write_evaluation(tmp_path, "one-gpu", error=60, predictions=False)
    assert verdict(tmp_path, "two-gpus-top1").direction == "undecided"


def test_five_seeds_averaged_are_the_five_cnns_and_two_are_not(tmp_path: Path) -> None:
    write_evaluation(tmp_path, seeds=(0, 1), error=24)
    assert verdict(tmp_path, "table2-5cnns-top1").verdict == "missing"
    write_evaluation(tmp_path, seeds=(0, 1, 2, 3, 4), error=22)
    assert verdict(tmp_path, "table2-5cnns-top1").verdict == "not comparable"
    assert verdict(tmp_path, "table2-1cnn-top1").verdict == "missing"
    write_evaluation(tmp_path, seeds=(3,), error=26)
    gain = verdict(tmp_path, "averaging-gain-top1").measurement
    assert gain
    assert gain.value == pytest.approx(4)


def test_an_average_by_searched_weights_is_no_plain_average(tmp_path: Path) -> None:
    """Right on the paper's number and at its scale, it is shown under a name of its own and judged by no target."""
    data = data_record("ilsvrc2012", "", THOUSAND, train=1_281_167, val=50_000)
    for seed in range(5):
        write_run(tmp_path, scale="paper", seed=seed, epochs=93, done=1, data=data, weights=False)
    average = {"scale": "paper", "seeds": (0, 1, 2, 3, 4), "data": data}
    searched = {"searched": True, "weights": [0.2] * 5, "weights_selected_on": "val"}
    write_evaluation(tmp_path, error=38.1, **average, **searched)
    write_evaluation(tmp_path, error=38.1, split="test", **average, **searched)
    write_evaluation(tmp_path, scale="paper", data=data, error=40.7)
    for target in ("table2-5cnns-top1", "table2-5cnns-top5", "averaging-gain-top1"):
        assert verdict(tmp_path, target).verdict == "missing"
    records = read_records(tmp_path)
    names = list(evaluation_table(records).frame["", "Net"])
    assert names == [
        "alexnet", "5cnns, weights selected on val", "5cnns, weights selected on these validation images",
    ]  # fmt: skip
    assert "optimistic" in evaluation_table(records).note
    write_evaluation(tmp_path, error=45, **average)
    result = verdict(tmp_path, "table2-5cnns-top1")
    assert result.measurement
    assert result.measurement.value == pytest.approx(45)


def test_recipes_are_never_mixed_and_the_first_is_chosen_by_scope_alone(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", recipe="paper", error=10)
    write_evaluation(tmp_path / "b", error=30)
    write_evaluation(tmp_path / "other", scale="smoke", data=data_record("synthetic", train=50_000), error=5)
    target = find_target("table1-cnn-top1")
    found = measure(target, read_records(tmp_path))
    assert [(each.recipe, round(each.value)) for each in found] == [("authors", 30), ("paper", 10), ("authors", 5)]


def test_the_gap_between_validation_and_training_error(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, "no-dropout", overfit=15)
    assert verdict(tmp_path, "dropout-overfit").direction == "agrees"


def test_epochs_to_the_common_training_error(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, "tanh", stall=8)
    measurement = verdict(tmp_path, "tanh-slower").measurement
    assert measurement
    assert 6 <= measurement.value <= 10


def test_runs_of_unequal_length_are_not_held_against_each_other(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, "no-dropout", epochs=12)
    assert verdict(tmp_path, "dropout-overfit").verdict == "missing"


def test_one_run_twice_is_not_two_seeds(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path / "again", done=2, weights=False)
    measurement = verdict(tmp_path, "epochs").measurement
    assert measurement
    assert (measurement.value, measurement.n) == (30, 1)


def test_colour_tells_the_towers_apart_only_where_they_differ(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert verdict(tmp_path, "towers-specialise").direction == "agrees"
    assert verdict(tmp_path, "kernels-oriented").direction == "agrees"
    grey = np.repeat(np.random.default_rng(0).standard_normal((8, 1, 11, 11)), 3, axis=1)
    assert colourfulness(grey) == pytest.approx(np.zeros(8), abs=1e-9)
    assert colourfulness(grey * np.array([1, -1, 0])[:, None, None]) == pytest.approx(np.ones(8))


def test_orientation_of_waves_and_of_noise() -> None:
    waves = made_kernels(40)
    noise = np.random.default_rng(1).standard_normal((2000, 3, 11, 11))
    assert orientedness(waves).min() > orientedness(noise).mean()
    assert orientedness(waves + 5) == pytest.approx(orientedness(waves))  # brightness has no direction
    assert oriented(noise).mean() == pytest.approx(0.05, abs=0.02)


def test_an_average_of_different_nets_is_known_by_its_members(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path, seed=seed, done=1, weights=False)
    for seed in range(2):
        write_run(tmp_path, "conv6-pretrained", seed=seed, done=1, weights=False, init_from={"run": "conv6-fall2011"})
    names = [f"alexnet-authors-small-seed{seed}" for seed in range(5)]
    names += [f"conv6-pretrained-authors-small-seed{seed}" for seed in range(2)]
    write_evaluation(tmp_path, seeds=(0, 1, 2, 3, 4, 0, 1), error=20, runs=names)
    assert verdict(tmp_path, "table2-7cnns-top1").verdict == "not comparable"
    assert verdict(tmp_path, "table2-5cnns-top1").verdict == "missing"
