"""The net on two devices against the one-device net: outputs, gradients, dropout masks and communicated bytes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from repro.errors import ReproError
from repro.models import layers
from repro.models.layers import DropoutMasks, use_dropout_masks
from repro.models.network import AlexNet
from repro.models.towers import Towers, gather, named_shards, scatter, to_devices
from repro.paper.communication import Transfer, has_towers, transfers
from repro.paper.networks import Network
from repro.paper.recipes import AUTHORS, RECIPES
from repro.paper.variants import VARIANTS, configure

CPU = torch.device("cpu")
# Every net of the paper by one of its names, on small images, with few neurons and an odd number of classes.
NETS = {
    configure(name, recipe).network.scaled(56, 1 / 16, 7): f"{name}-{recipe}"
    for name, variant in reversed(VARIANTS.items())
    for recipe in variant.family.recipes
}
WITH_TOWERS = [pytest.param(network, id=name) for network, name in NETS.items() if has_towers(network)]
WITHOUT = [pytest.param(network, id=name) for network, name in NETS.items() if not has_towers(network)]
ALEXNET = {recipe: configure("alexnet", recipe).network.scaled(56, 1 / 16, 7) for recipe in RECIPES}


def pair(network: Network) -> tuple[AlexNet, Towers]:
    """Return the same net on one device and on two."""
    one = AlexNet(network).initialise(AUTHORS.initialisation, torch.Generator().manual_seed(0))
    two = to_devices(one, [CPU, CPU])
    assert isinstance(two, Towers)
    return one, two


def images(net: nn.Module, count: int) -> torch.Tensor:
    size = net.network.input_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 60


def step(net: nn.Module, views: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a training step's logits, and its gradients by the one-device net's names."""
    masks = DropoutMasks(CPU)
    masks.begin(5, len(views), slice(0, len(views)))
    use_dropout_masks(net.train(), masks)
    net.zero_grad()
    logits = net(views)
    F.cross_entropy(logits, torch.arange(len(views)) % logits.shape[1]).backward()
    gradients = {name: gather([shard.grad for shard in shards]) for name, shards in named_shards(net).items()}
    return gradients | {"logits": logits.detach()}


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any tensor, relative to that tensor's largest value."""
    assert one.keys() == two.keys()
    return max(((one[name] - two[name]).abs().max() / one[name].abs().max()).item() for name in one)


@pytest.mark.parametrize("network", WITH_TOWERS)
def test_outputs_and_gradients_equal_those_on_one_device(network: Network) -> None:
    one, two = (net.double() for net in pair(network))
    views = images(one, 3).double()
    assert difference(step(one, views), step(two, views)) < 1e-12
    with torch.no_grad():
        torch.testing.assert_close(two.eval()(views), one.eval()(views), rtol=1e-12, atol=0)


def test_paper_scale() -> None:
    """In float32 only the outputs: two nearly equal values in a pooling window can send a gradient elsewhere."""
    one, two = pair(configure("alexnet", "paper").network)
    views = images(one, 2)
    single = difference({"logits": step(one, views)["logits"]}, {"logits": step(two, views)["logits"]})
    assert single < 1e-5
    assert two.transferred() == tuple(Transfer(row.layer, 2 * row.forward, 2 * row.backward) for row in PAPER_SIZE)
    one, two = one.double(), two.double()
    double = difference(step(one, views.double()), step(two, views.double()))
    assert double < 1e-12
    print(f"relative difference: {single:.1e} (float32, outputs), {double:.1e} (float64, outputs and gradients)")


PAPER_SIZE = [  # Sec. 3.2 by hand, in floats of four bytes: maps × height × width, forward and backward
    Transfer("images", 4 * 3 * 224 * 224, 0),
    Transfer("lrn1", *(4 * (2 + 2) * 55 * 55,) * 2),  # two maps each way at the border between the towers
    Transfer("lrn2", *(4 * (2 + 2) * 27 * 27,) * 2),
    Transfer("conv3", *(4 * 256 * 13 * 13,) * 2),
    Transfer("fc6", *(4 * 256 * 6 * 6,) * 2),
    Transfer("drop6", 2048, 0),  # half of the mask, a byte each
    Transfer("fc7", *(4 * 4096,) * 2),
    Transfer("drop7", 2048, 0),
    Transfer("fc8", *(4 * 4096,) * 2),
    Transfer("softmax", *(4 * 500,) * 2),
]


def test_communication_at_paper_scale() -> None:
    assert list(transfers(configure("alexnet", "paper").network)) == PAPER_SIZE
    # In the authors' program LRN stays within a tower.
    within = [row for row in PAPER_SIZE if not row.layer.startswith("lrn")]
    assert list(transfers(configure("alexnet", "authors").network)) == within


def test_communication_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")
    documented = [line.split(" | ")[:3] for line in text.splitlines() if line.count("|") == 5]
    assert documented[2:] == [[f"| {row.layer}", f"{row.forward:,}", f"{row.backward:,}"] for row in PAPER_SIZE]


@pytest.mark.parametrize("network", WITH_TOWERS)
def test_communication_is_as_computed(network: Network) -> None:
    _, two = pair(network)
    step(two, images(two, 1))
    assert two.transferred() == transfers(network)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_tensor_is_on_its_device(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fake tensors, which have a device and a shape but no values, because there may not be two GPUs."""
    monkeypatch.setattr(layers, "compiles_kernels", lambda device: False)  # nothing to compile for
    _, two = pair(ALEXNET[recipe])
    with FakeTensorMode():
        two.devices = (torch.device("cuda:0"), torch.device("cuda:1"))
        for halves in two.children():
            for half, device in zip(halves.children(), two.devices, strict=True):
                for name, value in [*half.named_parameters(recurse=False), *half.named_buffers(recurse=False)]:
                    fake = torch.empty(value.shape, device=device)
                    setattr(half, name, nn.Parameter(fake) if isinstance(value, nn.Parameter) else fake)
        logits = two.train()(torch.empty(3, 3, 56, 56, device="cuda:0"))
    assert (logits.device, logits.shape) == (torch.device("cuda:0"), (3, 7))


def test_each_tower_holds_half_of_each_parameter() -> None:
    one, two = pair(ALEXNET["authors"])
    names = [f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
             for kind in ("weight", "bias")]  # fmt: skip
    assert list(named_shards(two)) == names == list(named_shards(one))
    for name, shards in named_shards(two).items():
        full = one.get_parameter(name)
        assert torch.equal(gather(shards), full)
        assert [len(shard) for shard in shards] == [(len(full) + 1) // 2, len(full) // 2]
        assert all(shard.shape[1:] == full.shape[1:] for shard in shards)
        scatter(shards, 2 * full)
        assert torch.equal(gather(shards), 2 * full)
    assert two.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("network", WITHOUT)
def test_net_without_towers_needs_one_device(network: Network) -> None:
    net = AlexNet(network)
    with pytest.raises(ReproError, match=r"--devices cpu,cpu would take a tower each, .* name one device") as error:
        to_devices(net, [CPU, CPU])
    assert "\n" not in str(error.value)
    assert to_devices(net, [CPU]) is net


def test_which_nets_have_towers() -> None:
    assert has_towers(configure("alexnet").network)
    assert not has_towers(configure("one-gpu").network)
