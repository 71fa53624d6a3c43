"""The estimated cost against counts by hand."""

import pytest

from repro.errors import ReproError
from repro.paper.networks import ALEXNET_TEXT
from repro.workflow import plan as module
from repro.workflow.plan import operations_per_image, plan


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measured_speed", lambda *_: 100.0)


def test_operations_of_the_net_in_the_text() -> None:
    products = (
        55 * 55 * 96 * 363 + 27 * 27 * 256 * 1200 + 169 * 384 * 2304 + 169 * 384 * 1728 + 169 * 256 * 1728
        + 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    )  # fmt: skip
    assert operations_per_image(ALEXNET_TEXT) == 6 * products
    assert 4.2e9 < 6 * products < 4.4e9


def test_table1_at_the_scale_and_speed_of_the_paper() -> None:
    paper = plan("table1", paper_speed=229.0)[0]
    assert paper.scale == "paper"
    assert paper.runs == 1
    assert paper.store_bytes == (1_261_406 + 200_000) * 256 * 256 * 3
    assert paper.hours == pytest.approx(93 * 1_261_406 / 229 / 3600)
    assert 5 < paper.hours / 24 < 6.1  # "five to six days" (Sec. 5) implies this speed


def test_runs_are_counted_once_with_their_pretraining() -> None:
    # Five seeds of alexnet, chains of three stages on three of them, and one net that has not seen Fall 2011.
    assert plan("table2")[0].runs == 5 + 3 * 3 + 1
    # Two nets by two recipes, each at five learning rates and from three more seeds at one.
    assert plan("figure1")[0].runs == 2 * 2 * (5 + 3)
    # Three seeds from random weights, three fine-tuned, and the three nets that those begin from.
    assert plan("catsdogs")[0].runs == 3 + 3 + 3
    assert plan("catsdogs")[0].store_bytes == (1_281_167 + 50_000 + 20_000 + 5_000) * 256 * 256 * 3


def test_baselines_are_counted_with_the_disk_space_of_their_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "seconds_per_image", lambda *_: 0.5)
    monkeypatch.setattr(module, "available_processors", lambda: 4)
    paper, small, _ = plan("contest")
    # Three methods on ILSVRC-2010, one on ILSVRC-2012, and the net on both; at scale small the methods share a store.
    assert paper.runs == 3 + 1 + 2
    assert small.runs == 3 + 2
    images = 1_261_406 + 50_000, 1_281_167 + 50_000
    fisher, coded = 2 * 2 * 4 * 2 * 64 * 256, 2 * 2 * 8 * 8192  # bytes of two channels in float16
    assert paper.feature_bytes == sum(images) * fisher + images[0] * (coded + 2 * 3 * 32 * 32)
    assert paper.feature_hours == pytest.approx((3 * images[0] + images[1]) * 0.5 / 4 / 3600)
    assert plan("table1")[0].feature_bytes == 0


def test_unknown_experiment() -> None:
    with pytest.raises(ReproError, match="unknown experiment 'table3'"):
        plan("table3")
