"""The update rule against hand-computed steps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro.data.store import Store
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.training.optim import PaperSGD, build_optimiser


def test_three_steps_by_hand_across_a_drop_of_the_learning_rate() -> None:
    w = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    rule = PaperSGD([w], lr=0.01, momentum=0.9, weight_decay=0.0005)

    def step(gradient: float) -> float:
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        rule.step()
        return w.item()

    # v = -0.0005·0.01·2 - 0.01·3 = -0.03001
    assert step(3.0) == pytest.approx(1.96999, abs=1e-15)
    # v = 0.9·(-0.03001) - 0.0005·0.01·1.96999 - 0.01·(-1) = -0.01701884995
    assert step(-1.0) == pytest.approx(1.95297115005, abs=1e-13)
    rule.param_groups[0]["lr"] = 0.001
    # Earlier velocity keeps its size: v = 0.9·(-0.01701884995) - 0.0005·0.001·1.95297115005 - 0.001·2
    assert step(2.0) == pytest.approx(1.95297115005 - 0.015316964955 - 0.000000976485575 - 0.002, abs=1e-13)


def test_equals_torch_sgd_until_the_learning_rate_drops() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    rule = PaperSGD([ours], lr=0.1, momentum=0.9, weight_decay=0.01)
    torch_rule = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(6):
        if step == 4:
            torch.testing.assert_close(ours, theirs)
            for optimizer in (rule, torch_rule):
                optimizer.param_groups[0]["lr"] = 0.01
        for weight, optimizer in ((ours, rule), (theirs, torch_rule)):
            weight.grad = torch.sin(weight.detach() * (step + 1))
            optimizer.step()
    assert not torch.allclose(ours, theirs)


def test_a_training_starts_without_torch_s_compiler(synthetic_store: Store, tmp_path: Path) -> None:
    """`torch._dynamo` takes a second to import."""
    words = ["train", "--variant", "alexnet", "--data", str(synthetic_store.path), "--scale", "smoke", "--epochs", "1"]
    program = (
        "import sys; from repro.cli.main import run; assert run(sys.argv[1:]) == 0; "
        "print({'torch._dynamo'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program, *words, "--devices", "cpu", "--out", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1] == "set()"


def test_a_frozen_parameter_is_not_updated_at_all() -> None:
    frozen, free = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    rule = PaperSGD([{"params": [frozen]}, {"params": [free]}], lr=0.1, momentum=0.9, weight_decay=0.1)
    for weight in (frozen, free):
        weight.grad = torch.ones(2)
    rule.step()
    assert torch.equal(frozen, free)
    before, velocity = frozen.detach().clone(), rule.state[frozen]["velocity"].clone()
    rule.param_groups[0]["lr"] = 0.0
    rule.step()
    assert torch.equal(frozen, before)  # its velocity does not carry it on
    assert torch.equal(rule.state[frozen]["velocity"], velocity)
    assert not torch.equal(free, before)


@pytest.mark.parametrize(("recipe", "on_biases"), [("paper", 0.0005), ("authors", 0.0)])
def test_weight_decay_on_weights_and_biases(recipe: str, on_biases: float) -> None:
    configuration = configure("alexnet", recipe, "smoke", 2)
    for group in build_optimiser(AlexNet(configuration.network), configuration.recipe).param_groups:
        assert group["weight_decay"] == (on_biases if group["name"].endswith("bias") else 0.0005)
