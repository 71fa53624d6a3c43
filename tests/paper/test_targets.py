from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from repro.errors import ReproError
from repro.paper.recipes import RECIPES
from repro.paper.targets import (
    KINDS,
    Measurement,
    Needed,
    Scope,
    Target,
    compare,
    compute,
    find_target,
    load_deviations,
    load_targets,
)
from repro.report.measurements import MEASURES

TARGETS = load_targets()
OURS = [target for target in TARGETS if not target.published_by_others]
NEED_A_RUN = [target for target in OURS if target.kind != "invariant"]


def names(targets: list[Target]) -> list[str]:
    return [target.id for target in targets]


def perfect(target: Target, **changes: object) -> Measurement:
    """What a run would measure that reproduces the claim."""
    value = target.value + (target.side if target.kind == "direction" else 0)
    measurement = Measurement(value, (value - 1e-6, value + 1e-6), 3, "seeds", target.scope, "authors", runs=("run",))
    return replace(measurement, **changes)  # type: ignore[arg-type]


def test_the_paper_is_covered() -> None:
    assert len(TARGETS) >= 50
    assert set(Counter(target.kind for target in TARGETS)) == set(KINDS)
    sections = {target.section for target in TARGETS}
    assert sections >= {"1", "2", "3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "5", "6", "6.1", "7"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table1-cnn-top1", 37.5), ("table1-cnn-top5", 17.0), ("one-view-top1", 39.0), ("one-view-top5", 18.3),
        ("table1-sparse-coding-top1", 47.1), ("table1-sift-fv-top5", 25.7), ("table2-sift-fv-top5-test", 26.2),
        ("table2-1cnn-top1", 40.7), ("table2-1cnn-top5", 18.2), ("table2-5cnns-top1", 38.1),
        ("table2-5cnns-top5-test", 16.4), ("table2-1cnn-pretrained-top1", 39.0), ("table2-7cnns-top1", 36.7),
        ("table2-7cnns-top5-test", 15.3), ("fall2009-top1", 67.4), ("fall2009-top5", 40.9),
        ("fall2009-previous-top1", 78.1), ("two-gpus-top1", 1.7), ("two-gpus-top5", 1.2), ("lrn-top1", 1.4),
        ("lrn-top5", 1.2), ("overlap-top1", 0.4), ("overlap-top5", 0.3), ("figure1-relu-speed", 6.0),
        ("dropout-iterations", 2.0), ("cifar-no-lrn", 13.0), ("cifar-lrn", 11.0),
    ],
)  # fmt: skip
def test_the_papers_numbers(name: str, value: float) -> None:
    assert find_target(name).value == value


def test_every_measure_is_one_that_the_report_knows() -> None:
    assert {target.measure for target in NEED_A_RUN} <= set(MEASURES)


def test_differences_of_the_authors_numbers_agree_with_their_levels() -> None:
    """The delta targets' six digits against those of the levels they come from."""
    alexnet, centre = find_target("table1-cnn-top1").authors, find_target("one-view-top1").authors
    pretrained = find_target("table2-1cnn-pretrained-top5").authors
    assert alexnet
    assert centre
    assert pretrained
    assert find_target("ten-views-gain-top1").authors == pytest.approx(centre - alexnet)
    assert find_target("two-gpus-top1").authors == pytest.approx(39.1680 - alexnet)
    assert find_target("pretraining-gain-top5").authors == pytest.approx(18.21 - pretrained)


def test_no_tolerance_admits_the_absence_of_the_effect() -> None:
    for target in OURS:
        if target.kind in ("delta", "ratio"):
            assert target.no_effect is not None
            no_effect = target.no_effect
            measured = perfect(target, value=no_effect, interval=(no_effect - 0.1, no_effect + 0.1))

            assert compare(target, measured).verdict != "match", target.id


def test_the_authors_own_runs_match_what_they_published() -> None:
    for target in NEED_A_RUN:
        if target.authors is not None:
            assert compare(target, perfect(target, value=target.authors)).verdict == "match", target.id


@pytest.mark.parametrize("target", NEED_A_RUN, ids=names(NEED_A_RUN))
@pytest.mark.parametrize("wrong", ["dataset", "split", "views", "scale"])
def test_a_measurement_out_of_scope_never_matches(target: Target, wrong: str) -> None:
    assert target.scope
    assert compare(target, perfect(target)).verdict == "match"
    other = {"dataset": "imagenette", "split": "train", "views": 5, "scale": "small"}[wrong]
    verdict = compare(target, perfect(target, scope=replace(target.scope, **{wrong: other})))
    assert verdict.verdict == "not comparable"
    assert verdict.direction == ("undecided" if target.kind == "value" else "agrees")


@pytest.mark.parametrize(
    ("interval", "direction"),
    [((0.1, 3), "agrees"), ((-3, -0.1), "disagrees"), ((-0.1, 3), "undecided"), (None, "undecided")],
)
def test_direction_of_a_delta_elsewhere(interval: tuple[float, float] | None, direction: str) -> None:
    target = find_target("lrn-top1")
    small = Measurement(1.4, interval, 3, "seeds", Scope("folder", "val", 10, "small"))
    assert compare(target, small).direction == direction


def test_direction_of_a_claim_that_something_is_lower() -> None:
    target = find_target("retrieval-not-pixels")
    verdict = compare(target, perfect(target, value=80.0, interval=(75.0, 85.0)))
    assert verdict.verdict == "mismatch"


def test_an_undecided_effect_at_full_scale_is_missing_and_says_what_would_decide() -> None:
    target = find_target("dropout-overfit")
    undecided = compare(target, perfect(target, interval=(-1.0, 3.0), deviation=1.0))
    assert (undecided.verdict, undecided.direction) == ("missing", "undecided")
    # With 7 seeds t(6) = 2.45 and the half-width is 2.45/√7 = 0.92 points, less than the measured 1; with 6 it is 1.05.
    assert undecided.needed == Needed(7, "seeds")
    assert "the interval includes 0, no effect; undecided with fewer than 7 seeds of each net" in undecided.reason
    assert compare(target, perfect(target, interval=(-3.0, -1.0))).verdict == "mismatch"


def test_more_seeds_are_needed_than_were_measured() -> None:
    """Two seeds with gains of 1.0 and 1.3: t(1) = 12.7 makes that 1.15 ± 1.9 points."""
    target = find_target("ten-views-gain-top1")
    measured = perfect(target, value=1.15, interval=(-0.77, 3.07), n=2, over="seeds", deviation=0.212)
    assert compare(target, measured).needed == Needed(3, "seeds")


def test_a_value_matches_up_to_its_tolerance_and_no_further() -> None:
    target = find_target("table1-cnn-top1")
    assert target.tolerance == 0.65
    assert compare(target, perfect(target, value=38.15)).verdict == "match"
    assert compare(target, perfect(target, value=36.85)).verdict == "match"
    failed = compare(target, perfect(target, value=38.16))
    assert failed.verdict == "mismatch"
    assert failed.fails_strict


@pytest.mark.parametrize(
    ("value", "interval", "verdict", "direction"),
    [
        (1.4, (0.2, 2.6), "match", None),
        (1.4, (-0.2, 3.0), "missing", "undecided"),
        (0.7, (-0.5, 1.9), "missing", "undecided"),
        (3.0, (-1.0, 7.0), "mismatch", None),
        (-1.0, (-2.0, -0.1), "mismatch", None),
    ],
)
def test_a_delta_matches_only_with_evidence_of_an_effect(
    value: float, interval: tuple[float, float], verdict: str, direction: str | None
) -> None:
    target = find_target("lrn-top1")
    found = compare(target, perfect(target, value=value, interval=interval))
    assert (found.verdict, found.direction) == (verdict, direction)


@pytest.mark.parametrize(("n", "over"), [(2, "seeds"), (50_000, "images")])
def test_an_effect_of_an_ingredient_needs_three_seeds(n: int, over: str) -> None:
    target = find_target("lrn-top1")
    found = compare(target, perfect(target, n=n, over=over))
    assert (found.verdict, found.direction) == ("missing", "undecided")
    assert found.needed == Needed(3, "seeds")
    elsewhere = compare(target, perfect(target, n=n, over=over, scope=Scope("folder", "val", 10, "small")))
    assert (elsewhere.verdict, elsewhere.direction) == ("not comparable", "undecided")


def test_effects_within_one_net_are_decided_by_images() -> None:
    for name in ("ten-views-gain-top1", "averaging-gain-top1"):
        target = find_target(name)
        assert compare(target, perfect(target, n=50_000, over="images")).verdict == "match"
    undecided = compare(target, perfect(target, n=50_000, over="images", value=2.0, interval=(-1.0, 5.0)))
    assert undecided.needed == Needed(112_500, "images")  # (3/2)² times as many


def test_tolerances_of_errors_are_derived_from_their_variation() -> None:
    """By hand: 0.2 points over seeds; 0.2 of the images differ between two nets; the paper's one run and ours."""
    one = 0.2**2 + 1e4 * 0.2 / (2 * 150_000)
    assert find_target("table1-cnn-top1").tolerance == round(1.959964 * (2 * one) ** 0.5 + 0.05, 2)
    pair = 2 * (0.2**2 + 1e4 * 0.2 / (2 * 50_000))
    assert find_target("lrn-top1").tolerance == round(1.959964 * (pair + pair / 3) ** 0.5 + 0.05, 2)
    assert find_target("overlap-top1").tolerance == find_target("lrn-top1").tolerance
    for target in OURS:
        derived = target.measure in ("top1_error", "top5_error") and target.kind != "direction"
        if derived and not target.id.startswith(("beats", "without-conv")):
            assert target.rounding is not None, target.id


def test_claims_that_a_run_cannot_fail_need_no_run() -> None:
    """Numbers of images, epochs and drops follow from the release and the recipe."""
    for name in ("data-train-images", "data-val-images", "data-test-images", "epochs", "rate-drops"):
        assert find_target(name).kind == "invariant"


def test_a_bound_may_be_passed_by_any_distance() -> None:
    target = find_target("colour-top1")
    assert compare(target, perfect(target, value=5.0)).verdict == "match"
    assert compare(target, perfect(target, value=0.4)).verdict == "mismatch"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_missing(value: float) -> None:
    target = find_target("table1-cnn-top1")
    assert compare(target, perfect(target, value=value)).verdict == "missing"
    assert compare(target, None).verdict == "missing"


@pytest.mark.parametrize(
    ("name", "computed"),
    [
        ("conv1-neurons", 290_400), ("conv1-positions", 54.25), ("training-patches", 2178),
        ("conv3-share", 100 * 885_120 / 60_965_224), ("conv4-share", 100 * 663_936 / 60_965_224),
    ],
)  # fmt: skip
def test_the_papers_contradictions_come_out_as_explained_mismatches(name: str, computed: float) -> None:
    target = find_target(name)
    verdict = compare(target, compute(target))
    assert verdict.measurement
    assert verdict.measurement.value == pytest.approx(computed)
    assert verdict.verdict == "mismatch"
    assert verdict.reason == target.explanation
    assert not verdict.fails_strict


def test_all_other_invariants_match() -> None:
    for target in OURS:
        if target.kind == "invariant" and not target.known_contradiction:
            verdict = compare(target, compute(target))
            assert verdict.verdict == "match", (target.id, verdict.reason)


def test_what_others_published_is_never_judged() -> None:
    with pytest.raises(ValueError, match="never measured"):
        compare(find_target("table1-sift-fv-top1"), None)


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ReproError, match="table1-cnn-top1"):
        find_target("table1-cn-top1")


GOOD = """
[[target]]
id = "a"
section = "1"
quantity = "q"
kind = "value"
measure = "top1_error"
dataset = "ilsvrc2010"
value = 1.0
tolerance = 0.1
tolerance_reason = "r"
source = "s"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "tolerence = 1\n", "tolerence"),
        (GOOD.replace('source = "s"', ""), "source must be given"),
        (GOOD.replace("value = 1.0", 'value = "1"'), "value = '1' has the wrong type"),
        (GOOD.replace("value = 1.0", "value = true"), "wrong type"),
        (GOOD + GOOD, "'a' is used twice"),
        (GOOD.replace('kind = "value"', 'kind = "level"'), "kind 'level'"),
        (GOOD.replace('kind = "value"', 'kind = "delta"'), "needs a baseline"),
        (GOOD.replace('kind = "value"', 'kind = "direction"'), "'at least' or 'at most'"),
        (GOOD.replace("tolerance = 0.1", ""), "tolerance must be given"),
        (GOOD.replace('tolerance_reason = "r"', ""), "tolerance_reason must be given"),
        (GOOD.replace('dataset = "ilsvrc2010"', ""), "dataset must be given"),
        (GOOD + 'split = "val"\n', "split and views"),
        (GOOD + "known_contradiction = true\n", "needs an explanation"),
        (GOOD.replace("[[target]]", "[[targets]]"), "unknown table 'targets'"),
        ("id = [", "cannot be read"),
    ],
)
def test_faulty_targets_are_refused_by_file_and_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ReproError, match=r"mine\.toml") as error:
        load_targets(tmp_path)
    assert message in str(error.value)


def test_defaults_of_a_file_are_shared_by_its_targets(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[defaults]\nunit = "%"\n' + GOOD)
    assert load_targets(tmp_path)[0].unit == "%"


def test_the_ledger_says_what_each_recipe_does() -> None:
    deviations = load_deviations()
    assert len({deviation.id for deviation in deviations}) == len(deviations) >= 20
    for deviation in deviations:
        assert set(deviation.repro) in ({"both"}, set(RECIPES)), deviation.id
