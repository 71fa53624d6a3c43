"""Every net of the paper: its counts, its shapes, its towers, its initial weights."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import repro
from repro.errors import ReproError
from repro.models.network import AlexNet, build_model
from repro.paper.arithmetic import count, parameters
from repro.paper.networks import Conv, Pool
from repro.paper.recipes import RECIPES
from repro.paper.variants import VARIANTS, configure

COMBINATIONS = [(name, recipe) for name, variant in VARIANTS.items() for recipe in variant.family.recipes]


@pytest.fixture(scope="module", params=RECIPES)
def alexnet(request: pytest.FixtureRequest) -> AlexNet:
    return repro.build_model("alexnet", recipe=request.param)


def test_parameters_of_each_layer(alexnet: AlexNet) -> None:
    counts = {
        name: module.weight.numel() + module.bias.numel()
        for name, module in alexnet.named_children()
        if hasattr(module, "weight")
    }
    assert counts == {
        "conv1": 96 * (11 * 11 * 3 + 1),
        "conv2": 256 * (5 * 5 * 48 + 1),
        "conv3": 384 * (3 * 3 * 256 + 1),
        "conv4": 384 * (3 * 3 * 192 + 1),
        "conv5": 256 * (3 * 3 * 192 + 1),
        "fc6": 4096 * (6 * 6 * 256 + 1),
        "fc7": 4096 * (4096 + 1),
        "fc8": 1000 * (4096 + 1),
    }
    assert sum(counts.values()) == sum(p.numel() for p in alexnet.parameters()) == 60_965_224


def test_map_sizes_of_each_layer(alexnet: AlexNet) -> None:
    sizes = {}
    x = torch.zeros(1, 3, 224, 224)
    with torch.no_grad():
        for name, module in alexnet.named_children():
            x = module(x.flatten(1)) if name == "fc6" else module(x)
            sizes[name] = tuple(x.shape[1:])
    expected = {
        "conv1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }
    assert {name: sizes[name] for name in expected} == expected


@pytest.mark.parametrize(("variant", "recipe"), COMBINATIONS)
def test_every_variant_runs_forward_and_backward_as_counted(variant: str, recipe: str) -> None:
    configuration = configure(variant, recipe, "smoke", classes=7)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
    size = configuration.scale.crop_size
    shapes = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: out.shape[1:]}))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 60
    F.cross_entropy(model(images), torch.tensor([1, 6])).backward()
    for row in count(configuration.network):
        expected = (row.maps, row.size, row.size) if row.size > 1 or len(shapes[row.layer.name]) > 1 else (row.maps,)
        assert tuple(shapes[row.layer.name]) == expected
    assert sum(p.numel() for p in model.parameters()) == parameters(configuration.network)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_gpu_net_has_the_program_s_kernels(recipe: str) -> None:
    layers = configure("one-gpu", recipe).network.layers
    assert [layer.kernels for layer in layers if isinstance(layer, Conv)] == [48, 128, 192, 192, 256]
    assert all(layer.towers == 1 for layer in layers if isinstance(layer, Conv))


def test_cifar_nets_are_the_program_s() -> None:
    def sizes(variant: str) -> dict[str, tuple[int, int]]:
        network = configure(variant, "authors", "paper", 10).network
        return {row.layer.name: (row.maps, row.size) for row in count(network) if not row.layer.name.startswith("relu")}

    four = {"conv1": (32, 32), "pool1": (32, 16), "conv2": (32, 16), "pool2": (32, 8), "conv3": (64, 8)}
    assert sizes("cifar-relu") == sizes("cifar-tanh") == four | {"pool3": (64, 4), "fc10": (10, 1)}
    local = {"conv1": (64, 24), "pool1": (64, 12), "conv2": (64, 12), "pool2": (64, 6)}
    assert sizes("cifar-no-lrn") == local | {"local3": (32, 6), "local4": (32, 6), "fc10": (10, 1)}
    normalised = {"lrn1": (64, 12), "lrn2": (64, 12), "local3": (64, 6), "local4": (32, 6), "fc10": (10, 1)}
    assert sizes("cifar-lrn") == local | normalised
    with pytest.raises(ReproError, match="'cifar-relu' has no recipe 'paper'"):
        configure("cifar-relu", "paper")


def test_pooling_without_overlap_keeps_the_size_of_the_last_map() -> None:
    rows = {row.layer.name: row for row in count(configure("no-overlap").network)}
    assert (rows["pool2"].size, rows["pool5"].size) == (13, 6)
    assert all(row.layer.size == row.layer.stride for row in rows.values() if isinstance(row.layer, Pool))


def test_the_grouped_net_is_two_towers_with_the_cross_links_written_out() -> None:
    """Sec. 3.2 by hand: two half nets, conv3 and the fully-connected layers seeing both halves."""
    network = configure("alexnet", "authors", "small", 5).network
    model = AlexNet(network).initialise(RECIPES["authors"].initialisation).eval().double()
    images = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 60
    maps = {name: dict(model.named_children())[name] for name in ("conv1", "conv2", "conv3", "conv4", "conv5")}

    def conv(name: str, tower: int, x: torch.Tensor, padding: int, stride: int = 1) -> torch.Tensor:
        weights, biases = maps[name].weight.chunk(2)[tower], maps[name].bias.chunk(2)[tower]
        return F.conv2d(x, weights, biases, stride, padding)

    def lrn(x: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    edged = F.pad(images, (0, 3, 0, 3))
    towers = [pool(lrn(conv("conv1", t, edged, 0, 4))).relu() for t in (0, 1)]
    towers = [lrn(conv("conv2", t, towers[t], 2).relu()) for t in (0, 1)]
    towers = [pool(model.get_submodule("spatial2")(x)) for x in towers]
    both = torch.cat(towers, dim=1)
    towers = [conv("conv3", t, both, 1).relu() for t in (0, 1)]  # the cross link
    towers = [conv("conv4", t, towers[t], 1).relu() for t in (0, 1)]
    towers = [pool(conv("conv5", t, towers[t], 1).relu()) for t in (0, 1)]
    x = torch.cat(towers, dim=1).flatten(1)
    for name in ("fc6", "fc7"):
        x = model.get_submodule(name)(x).relu() / 2
    torch.testing.assert_close(model(images), model.get_submodule("fc8")(x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("recipe", "middle"), [("paper", 0.01), ("authors", 0.03)])
def test_initial_weights_and_biases(recipe: str, middle: float) -> None:
    model = build_model("alexnet", recipe, num_classes=10)
    for name, module in model.named_children():
        if not hasattr(module, "weight"):
            continue
        std = middle if name in ("conv3", "conv4", "conv5") else 0.01
        assert module.weight.std().item() == pytest.approx(std, rel=0.03)
        assert module.weight.mean().item() == pytest.approx(0, abs=0.03 * std)
        assert module.bias.unique().tolist() == [1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0]


def test_the_order_of_the_first_blocks_is_the_recipe_s() -> None:
    first = [layer.name for layer in configure("alexnet", "paper").network.layers[:8]]
    assert first == ["conv1", "relu1", "lrn1", "pool1", "conv2", "relu2", "lrn2", "pool2"]
    first = [layer.name for layer in configure("alexnet", "authors").network.layers[:9]]
    assert first == ["conv1", "lrn1", "pool1", "relu1", "conv2", "relu2", "lrn2", "spatial2", "pool2"]


def test_scaling_keeps_the_two_towers_and_the_classes() -> None:
    network = configure("alexnet", "authors", "small", 13).network
    assert network.classes == 13
    assert all(layer.kernels % 2 == 0 for layer in network.layers if isinstance(layer, Conv))
    assert dataclasses.replace(network.layers[0], kernels=96) == configure("alexnet").network.layers[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alexnt",), r"unknown variant 'alexnt': did you mean alexnet\?"),
        (("alexnet", "author"), r"unknown recipe 'author': did you mean authors\?"),
        (("alexnet", "paper", "tiny"), "unknown scale 'tiny': choose from paper, small, smoke"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ReproError, match=message):
        configure(*arguments)


def test_the_nets_are_found_through_timm() -> None:
    timm = pytest.importorskip("timm")
    import repro.models.registry  # noqa: F401

    model = timm.create_model("repro_no_lrn", recipe="paper", num_classes=12)
    assert isinstance(model, AlexNet)
    assert model.num_classes == 12
    assert set(timm.list_models("repro_*")) == {f"repro_{name.replace('-', '_')}" for name in VARIANTS}
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 12)
    model.reset_classifier(0)
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 4096)


def test_by_fan_in_a_layer_s_spread_is_one_over_the_root_of_its_inputs() -> None:
    configuration = configure("cifar-relu", "fan-in")
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
    for name, inputs in (("conv1", 3 * 25), ("conv2", 32 * 25), ("conv3", 32 * 25), ("fc10", 64 * 16)):
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(inputs**-0.5, rel=0.05)
        assert not layer.bias.any()
