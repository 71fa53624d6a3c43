"""`repro.build_model` in the places where people use a torch module."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import repro
from repro.models.network import AlexNet


@pytest.fixture(scope="module")
def model() -> AlexNet:
    """A net whose outputs differ between images: with the initial weights the logits are almost constant."""
    torch.manual_seed(0)
    net = repro.build_model("alexnet", num_classes=10).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight"):
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return net


@pytest.fixture(scope="module")
def images() -> Tensor:
    return 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def logits(model: AlexNet, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(images)
    assert (found[0] - found[1]).abs().max() > 0.01
    return found.clone()


def test_it_can_be_exported(model: AlexNet, images: Tensor, logits: Tensor) -> None:
    program = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(program(images), logits, rtol=1e-4, atol=1e-4)


def test_it_can_be_compiled(model: AlexNet, images: Tensor, logits: Tensor) -> None:
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), logits, rtol=1e-4, atol=1e-4)


def test_its_gradient_by_functional_transforms_is_that_of_autograd(model: AlexNet, images: Tensor) -> None:
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, weights, (images,)).square().sum()

    found = torch.func.grad(loss)(weights)["conv1.weight"]
    model.zero_grad()
    model(images).square().sum().backward()
    expected = model.get_parameter("conv1.weight").grad
    assert expected is not None
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    model.zero_grad()


def test_half_precision_is_close(model: AlexNet, images: Tensor, logits: Tensor) -> None:
    """bfloat16 has 8 bits: errors of a few percent of the largest logit after eight layers."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model(images[:1])
    assert found.dtype == torch.bfloat16
    assert (found - logits[:1]).abs().max() < 0.05 * logits.abs().max()


def test_inputs_have_gradients(model: AlexNet, images: Tensor) -> None:
    inputs = images[:1].clone().requires_grad_()
    model(inputs).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().max() > 0


def test_one_thread_computes_the_same(model: AlexNet, images: Tensor, logits: Tensor) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(threads)


class Predicted(Dataset[Tensor]):
    """A dataset whose items are computed by a net: what a worker process of a DataLoader then runs."""

    def __init__(self, model: AlexNet, images: Tensor) -> None:
        self.model, self.images = model, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        with torch.inference_mode():
            predicted: Tensor = self.model(self.images[index : index + 1])[0]
        return predicted.clone()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # of Python 3.12 and later
def test_forked_workers_of_a_data_loader_use_a_net_that_has_been_used(
    model: AlexNet, images: Tensor, logits: Tensor
) -> None:
    loader = DataLoader(Predicted(model, images), num_workers=1, multiprocessing_context="fork", timeout=300)
    torch.testing.assert_close(torch.cat(list(loader)), logits, rtol=1e-4, atol=1e-4)
