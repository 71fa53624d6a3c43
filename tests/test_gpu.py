"""What only an Nvidia GPU can show: numbers against float64, equal bits, no waiting, NCCL (`nox -s gpu`)."""

from __future__ import annotations

import copy
import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers import repro
from torch import Tensor

from repro.data.reader import Request, read_ahead
from repro.data.store import Store
from repro.errors import ReproError, Stopped
from repro.evaluation.predictions import predict
from repro.models.devices import autocast, compiles_kernels, find_devices, float32_products
from repro.models.layers import DropoutMasks, LocalResponseNorm, SpatialNormalization, splitmix64, use_dropout_masks
from repro.models.network import AlexNet
from repro.paper.variants import configure
from repro.preparation.prepare import prepare
from repro.training.distributed import GradientBuckets, ProcessGroup
from repro.training.loop import train_epochs
from repro.training.optim import PaperSGD
from repro.training.settings import Settings
from repro.training.state import prepare_training
from repro.training.train import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no Nvidia GPU")]

CPU = torch.device("cpu")
SMOKE = Settings("alexnet", "authors", "smoke", seed=1, epochs=2, devices="cuda:0")


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    """The first GPU, set up as for a training."""
    (device,) = find_devices("cuda:0")
    return device


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three batches an epoch, the last one smaller."""
    return prepare("synthetic", tmp_path_factory.mktemp("stores") / "synthetic", limit_per_class=30)


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference relative to the norm of `other`, in float64."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return ((one - other).norm() / other.norm()).item()


def new_net(variant: str = "alexnet", recipe: str = "authors") -> AlexNet:
    """Return a net of scale `small` with the authors' initial weights."""
    authors, network = (
        configure(variant, "authors", "small", 10).recipe,
        configure(variant, recipe, "small", 10).network,
    )
    net = AlexNet(network).initialise(authors.initialisation, torch.Generator().manual_seed(0))
    return net.to(memory_format=torch.channels_last)


def batch() -> tuple[Tensor, Tensor]:
    """Return 32 images of noise, and labels."""
    pixels = torch.randn(32, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 60
    return pixels.contiguous(memory_format=torch.channels_last), torch.arange(32) % 10


def outputs_and_gradients(model: AlexNet, inputs: Tensor, labels: Tensor, precision: str) -> list[Tensor]:
    """Return the logits of a training step with fixed masks, and the gradients of conv1, conv3 and fc8."""
    device = inputs.device
    masks = DropoutMasks(device)
    masks.counted = True  # the same masks on the CPU
    use_dropout_masks(model.train(), masks)
    masks.begin(7, len(inputs), slice(None))
    with autocast(device, precision), float32_products(precision):
        logits = model(inputs)
    with float32_products(precision):
        F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), labels).backward()
    gradients = [model.get_parameter(f"{name}.weight").grad for name in ("conv1", "conv3", "fc8")]
    return [logits, *(each for each in gradients if each is not None)]


@pytest.mark.parametrize(
    # Of logits and fc8's gradient, and of conv layers' gradients: where two values in a pooling window almost agree,
    # rounding decides which one receives the gradient.
    ("precision", "last_layer", "conv_layers"),
    [("fp32", 1e-5, 2e-2), ("tf32", 3e-3, 2e-1), ("bf16", 2e-2, 5e-1), ("fp16", 3e-3, 2e-1)],
)
@pytest.mark.parametrize(("variant", "recipe"), [("alexnet", "authors"), ("alexnet", "paper"), ("one-gpu", "authors")])
def test_a_step_computes_what_float64_does(
    gpu: torch.device, variant: str, recipe: str, precision: str, last_layer: float, conv_layers: float
) -> None:
    model = new_net(variant, recipe)
    inputs, labels = batch()
    expected = outputs_and_gradients(copy.deepcopy(model).double(), inputs.double(), labels, "fp32")
    found = outputs_and_gradients(model.to(gpu), inputs.to(gpu), labels.to(gpu), precision)
    distances = [distance(*pair) for pair in zip(found, expected, strict=True)]
    print(f"{variant} {recipe} {precision}: " + " ".join(f"{each:.1e}" for each in distances))
    logits, conv1, conv3, fc8 = distances
    assert max(logits, fc8) < last_layer
    assert max(conv1, conv3) < conv_layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "layer",
    [
        LocalResponseNorm(5, 2.0, 1e-4, 0.75),
        LocalResponseNorm(5, 2.0, 1e-4, 0.75, towers=2),
        SpatialNormalization(5, 1.0, 0.001 / 25, 0.75),
    ],
    ids=["lrn", "lrn-of-towers", "spatial"],
)
def test_compiled_normalizations_match_float64_to_rounding(
    gpu: torch.device, layer: torch.nn.Module, dtype: torch.dtype
) -> None:
    assert compiles_kernels(gpu)
    for shape in ((16, 96, 55, 55), (3, 48, 27, 13)):
        generator = torch.Generator().manual_seed(0)
        a, grad = (torch.randn(shape, generator=generator).mul(40).to(dtype) for _ in range(2))
        exact_in = a.double().requires_grad_()
        exact = layer(exact_in)
        exact.backward(grad.double())
        on_gpu = a.to(gpu).contiguous(memory_format=torch.channels_last).requires_grad_()
        out = layer(on_gpu)
        out.backward(grad.to(gpu))
        assert out.dtype == dtype
        rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
        torch.testing.assert_close(out.cpu().double(), exact, rtol=rounding, atol=rounding / 100)
        assert on_gpu.grad is not None
        torch.testing.assert_close(on_gpu.grad.cpu().double(), exact_in.grad, rtol=rounding, atol=40 * rounding)


def test_dropout_masks_are_those_of_any_other_device(gpu: torch.device) -> None:
    assert torch.equal(splitmix64(5, 10, 100_000, gpu).cpu(), splitmix64(5, 10, 100_000, CPU))
    masks, counted = DropoutMasks(gpu), DropoutMasks(CPU)
    counted.counted = True
    for each in (masks, counted):
        each.begin(3, 128, slice(32, 96))
    for neurons in (4096, 2048):
        assert torch.equal(masks.draw(neurons, 0.5).cpu(), counted.draw(neurons, 0.5))


def test_the_compiled_update_matches_float64(gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(96, 3, 11, 11), (96,), (512, 1024), (512,)]
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(gpu)) for shape in shapes]
    exact = [torch.nn.Parameter(weight.detach().cpu().double()) for weight in weights]
    rules = [PaperSGD([{"params": [each]} for each in group], 0.01, 0.9, 0.0005) for group in (weights, exact)]
    for step in range(4):
        for rule in rules:
            rule.param_groups[1]["lr"] = 0.02 / 10 ** (step // 2)
        for weight, reference in zip(weights, exact, strict=True):
            gradient = torch.randn(weight.shape, generator=generator)
            weight.grad, reference.grad = gradient.to(gpu), gradient.double()
        for rule in rules:
            rule.step()
    for weight, reference in zip(weights, exact, strict=True):
        torch.testing.assert_close(weight.cpu().double(), reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("devices", ["cuda:0", "cuda:0,cuda:0"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_training_repeats_its_bits_also_when_it_was_stopped(
    store: Store, tmp_path: Path, precision: str, devices: str
) -> None:
    """Twice from the start, and once stopped three times and resumed."""
    settings = replace(SMOKE, precision=precision, devices=devices)
    for name in ("one", "other"):
        list(train(settings, store.path, tmp_path / name))
    asked = count()

    def stop_signal() -> int | None:
        return signal.SIGTERM if next(asked) in (0, 2, 8) else None

    for _ in range(3):
        with pytest.raises(Stopped):
            list(train(settings, store.path, tmp_path / "parts", resume=True, stop_signal=stop_signal))
    list(train(settings, store.path, tmp_path / "parts", resume=True, stop_signal=stop_signal))
    whole, again, parts = (
        next((tmp_path / name).glob("*/weights.safetensors")).read_bytes() for name in ("one", "other", "parts")
    )
    assert whole == again
    assert whole == parts


def test_two_towers_on_a_gpu_learn_what_one_net_does(store: Store) -> None:
    tensors = []
    for devices in ("cuda:0", "cuda:0,cuda:0"):
        training = prepare_training(replace(SMOKE, devices=devices), store)
        list(train_epochs(training))
        tensors.append(training.tensors())
    one, two = tensors
    assert max(distance(two[name], one[name]) for name in one) < 1e-4


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_never_waits_for_the_gpu(store: Store, precision: str) -> None:
    """torch raises an error where it would wait. The first update is not checked: it compiles."""
    training = prepare_training(replace(SMOKE, precision=precision), store)
    events = train_epochs(training)
    next(events)
    try:
        torch.cuda.set_sync_debug_mode("error")
        next(events)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.pending is not None
    list(events)


def test_a_loss_that_is_nan_is_an_error_before_anything_is_saved(store: Store) -> None:
    training = prepare_training(SMOKE, store)
    events = train_epochs(training)
    next(events)
    with torch.no_grad():
        training.model.get_parameter("fc8.bias").fill_(torch.nan)
    next(events)
    with pytest.raises(ReproError, match=r"diverged at learning rate .* the loss is nan before update 2"):
        training.check_finite()


def test_the_feed_delivers_the_images_while_the_gpu_computes(store: Store, gpu: torch.device) -> None:
    train_split = store.splits["train"]
    generator = np.random.default_rng(0)
    indices = [generator.integers(0, len(train_split), generator.integers(1, 129)) for _ in range(200)]
    requests = [Request(index, {"labels": train_split.labels[index]}) for index in indices]
    busy = torch.randn(2048, 2048, device=gpu)
    for index, delivered in zip(indices, read_ahead(train_split, requests, (gpu,)), strict=True):
        for _ in range(3):  # the copy of the next batch runs beside it
            busy = (busy @ busy).clamp(-1, 1)
        assert torch.equal(delivered.images.cpu(), torch.from_numpy(train_split.images(index)))
        assert torch.equal(delivered.columns["labels"].cpu(), torch.from_numpy(train_split.labels[index]))


@pytest.mark.parametrize("views", [1, 10])
def test_predictions_are_those_of_the_cpu(store: Store, views: int) -> None:
    """Of a net with random weights, whose classes differ little."""
    predictions = []
    for devices in ("cpu", "cuda:0"):
        training = prepare_training(replace(SMOKE, devices=devices), store)
        predictions.append(predict([training.model], training.views, store.splits["test"], views))
    expected, found = predictions
    np.testing.assert_allclose(found.top5_probabilities, expected.top5_probabilities, rtol=1e-4)
    np.testing.assert_allclose(found.label_probabilities, expected.label_probabilities, rtol=1e-4)
    assert (found.top5[:, 0] == expected.top5[:, 0]).mean() > 0.98


@pytest.fixture
def nccl() -> Iterator[None]:
    """A process group of this process alone, with NCCL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dist.init_process_group("cpu:gloo,cuda:nccl", f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("nccl")
def test_buckets_over_nccl_hold_the_gradients(gpu: torch.device) -> None:
    """A single rank shows that the order of streams is right, not that ranks agree."""
    model = new_net().to(gpu).eval()
    inputs, labels = (each.to(gpu) for each in batch())
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(inputs), labels).backward()
    buckets = GradientBuckets(ProcessGroup(0, 2), model.parameters(), 2, gpu)
    for step in range(5):
        model.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        sums = buckets.backward(loss, torch.stack((loss.detach(), torch.full_like(loss, step))))
        assert sums.tolist() == [loss.item(), step]
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert torch.equal(one.grad, other.grad)


def test_commands_use_the_gpu_without_being_told(store: Store, tmp_path: Path) -> None:
    words: list[tuple[object, ...]] = [
        ("train", "--variant", "alexnet", "--data", store.path, "--scale", "smoke", "--epochs", 1, "--out", tmp_path),
        ("evaluate", tmp_path / "alexnet-authors-smoke-seed0", "--data", store.path, "--views", 10),
        ("retrieve", tmp_path / "alexnet-authors-smoke-seed0", "--data", store.path),
        ("verify", tmp_path / "alexnet-authors-smoke-seed0"),
    ]
    for each in words:
        done = repro(*each)
        assert done.returncode == 0, done.stderr
    machine = json.loads((tmp_path / "alexnet-authors-smoke-seed0" / "run.json").read_text(encoding="utf-8"))
    text = json.dumps(machine)
    assert torch.cuda.get_device_name(0) in text
    assert "compiled_kernels True" in text
    assert '"nvidia driver"' in text


def test_processes_share_a_gpu(tmp_path: Path) -> None:
    """`run --parallel` with a GPU named four times."""
    folders = ("--stores", tmp_path / "stores", "--out", tmp_path / "runs")
    words = ("run", "cifar-lrn", "--scale", "smoke", "--epochs", 1, *folders, "--parallel", "--devices")
    done = repro(*words, ",".join(["cuda:0"] * 4))
    assert done.returncode == 0, done.stderr
    trained = [*(tmp_path / "runs").glob("**/weights.safetensors")]
    assert len(trained) == len([*(tmp_path / "runs").glob("**/run.json")]) > 4
