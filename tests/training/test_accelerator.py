"""Training on a simulated accelerator, in a separate process: placement, copies and launches, but not speed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.utils.backend_registration

from repro.preparation.prepare import prepare

TESTS = Path(__file__).parents[1]
LAUNCHES = 177  # of an update whose normalizations and update rule are not compiled, the copies of the batch included


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `simulated_training.py` prints, for a store with two batches an epoch."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot register a backend from Python")
    folder = tmp_path_factory.mktemp("simulated")
    prepare("synthetic", folder / "store", limit_per_class=20)
    command = [sys.executable, "-W", "error", TESTS / "training" / "simulated_training.py", folder / "store", folder]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(params=["pretend:0", "pretend:0,pretend:1"])
def run(request: pytest.FixtureRequest, measured: dict[str, Any]) -> dict[str, Any]:
    """Measurements of an epoch on one device, and on two with a tower each; no tensor was on a wrong one."""
    found: dict[str, Any] = measured["runs"][request.param]
    return found


def test_the_program_never_waits_for_the_device_within_a_step(run: dict[str, Any]) -> None:
    """The loss of the first update is in the totals, that of the second is still on its way when that has returned."""
    assert run["counts"]["reads"] == []
    assert run["counts"]["waits"] == []
    assert run["late"]
    assert run["images"] == 128


def test_an_epoch_gives_the_results_of_the_cpu(measured: dict[str, Any], run: dict[str, Any]) -> None:
    expected = measured["runs"]["cpu"]
    assert not expected["late"]
    for name in ("train_loss", "train_top1_error", "val_top1_error", "val_top5_error", "step", "lr"):
        assert run["record"][name] == pytest.approx(expected["record"][name], rel=1e-6), name
    assert run["difference"] < 1e-5
    assert run["difference of ten views"] < 1e-6


def test_tensors_of_a_checkpoint_are_on_the_cpu(run: dict[str, Any]) -> None:
    assert run["plain"]


def test_number_of_launches_of_a_step(measured: dict[str, Any]) -> None:
    """More of them slow down every GPU that is faster than the program."""
    assert len(measured["runs"]["pretend:0"]["counts"]["launches"]) <= LAUNCHES


def test_ten_views_are_one_batch(measured: dict[str, Any]) -> None:
    assert measured["runs"]["pretend:0"]["convolutions"] == 5


def test_a_loss_that_is_nan_is_an_error_before_anything_is_saved(measured: dict[str, Any]) -> None:
    """It is read after its update, so the weights are not finite either, which the next check finds."""
    first, second = measured["diverging"]
    assert first.startswith("the training diverged at learning rate 0.01: the loss is nan before update 2 (epoch 1)")
    assert len(first.rpartition(": ")[2].split(", ")) == 72  # the images of the second batch
    assert "is not finite after update 2" in second


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(measured: dict[str, Any]) -> None:
    assert measured["resumed"]
