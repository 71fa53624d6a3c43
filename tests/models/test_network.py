"""Every net of the paper: its counts, shapes, towers and initial weights, and its use through timm."""

import copy
import dataclasses
import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from helpers import picture
from PIL import Image
from torchvision.models.feature_extraction import create_feature_extractor

import repro
from repro.errors import ReproError
from repro.models import registry
from repro.models.network import AlexNet, build_model
from repro.paper.arithmetic import count, parameters
from repro.paper.networks import Conv, Pool
from repro.paper.recipes import RECIPES
from repro.paper.scales import SCALES
from repro.paper.variants import VARIANTS, configure
from repro.preparation.preprocess import to_square

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
def test_every_variant_has_the_counted_shapes_and_gradients(variant: str, recipe: str) -> None:
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
def test_one_gpu_net_has_the_kernels_of_the_authors_program(recipe: str) -> None:
    layers = configure("one-gpu", recipe).network.layers
    assert [layer.kernels for layer in layers if isinstance(layer, Conv)] == [48, 128, 192, 192, 256]
    assert all(layer.towers == 1 for layer in layers if isinstance(layer, Conv))


def test_cifar_nets_match_the_authors_program() -> None:
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


@pytest.mark.parametrize("recipe", ["authors", "paper"])
@pytest.mark.parametrize("scale", SCALES)
def test_pooling_without_overlap_keeps_the_sizes_and_parameters(scale: str, recipe: str) -> None:
    """Otherwise its effect would be that of a smaller net."""
    base, network = (configure(variant, recipe, scale).network for variant in ("alexnet", "no-overlap"))
    before, after = ({row.layer.name: row for row in count(each)} for each in (base, network))
    assert all(after[name].size == before[name].size for name in ("pool2", "conv3", "conv4", "pool5"))
    assert parameters(network) == parameters(base)
    assert all(row.layer.size == row.layer.stride for row in after.values() if isinstance(row.layer, Pool))
    if scale == "paper":  # the authors' net 147
        assert [row.layer.padding for row in after.values() if isinstance(row.layer, Conv)] == [0, 1, 1, 1, 0]


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
def test_unknown_names_are_reported_with_the_nearest(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ReproError, match=message):
        configure(*arguments)


def test_nets_are_registered_with_timm() -> None:
    model = timm.create_model("repro_no_lrn", recipe="paper", num_classes=12)
    assert isinstance(model, AlexNet)
    assert model.num_classes == 12
    registered = set(timm.list_models("repro_*")) - {"repro_run"}  # that of an exported run, once one was loaded
    assert registered == {f"repro_{name.replace('-', '_')}" for name in VARIANTS}
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 12)
    model.reset_classifier(0)
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 4096)


def test_timm_prepares_images_as_the_nets_expect_them() -> None:
    """timm's own transform of an image, against the image that `repro prepare` stores less the same mean."""
    model = timm.create_model("repro_alexnet", scale="smoke")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    encoded = picture(width=300, height=200, format="PNG")
    square = to_square(encoded, 64).astype(np.float32)
    expected = square[4:60, 4:60] - 255 * np.array(timm.data.IMAGENET_DEFAULT_MEAN, np.float32)
    made = transform(Image.open(io.BytesIO(encoded)))
    assert made.shape == (3, 56, 56)
    np.testing.assert_allclose(made.permute(1, 2, 0).numpy(), expected, atol=1.01)  # a grey level


@pytest.mark.parametrize(("variant", "recipe"), COMBINATIONS)
@pytest.mark.parametrize("scale", ["paper", "small", "smoke"])
def test_timm_configuration_of_every_net(variant: str, recipe: str, scale: str) -> None:
    configuration = configure(variant, recipe, scale)
    made = registry.preprocessing(configuration)
    assert made["input_size"] == (3, configuration.network.input_size, configuration.network.input_size)
    assert math.floor(made["input_size"][1] / made["crop_pct"]) == configuration.scale.image_size  # as timm resizes
    assert made["std"] == (configuration.recipe.augmentation.inputs_divided_by / 255,) * 3


def test_nets_have_the_methods_of_timm_models() -> None:
    model = timm.create_model("repro_conv6", scale="smoke", num_classes=7).eval()
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 60
    features = model.forward_features(images)
    assert features.shape == (2, model.num_features)
    assert torch.equal(model.forward_head(features, pre_logits=True), features)
    assert torch.equal(model.forward_head(features), model(images))
    model.double().reset_classifier(3, "avg")
    assert model.get_classifier().weight.dtype == torch.float64
    assert model(images.double()).shape == (2, 3)
    with pytest.raises(ValueError, match="global_pool is 'lse'"):
        model.reset_classifier(3, "lse")


def test_timm_keywords() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'drop_rate'"):
        timm.create_model("repro_alexnet", scale="smoke", drop_rate=0.1)
    with pytest.raises(ReproError, match="unknown scale 'tiny'"):
        timm.create_model("repro_alexnet", scale="tiny")
    with pytest.raises(RuntimeError, match="No pretrained weights exist for repro_alexnet"):
        timm.create_model("repro_alexnet", scale="smoke", pretrained=True)
    other = timm.create_model("repro_alexnet", scale="smoke", pretrained_cfg_overlay={"mean": (0.5, 0.5, 0.5)})
    assert timm.data.resolve_model_data_config(other)["mean"] == (0.5, 0.5, 0.5)


def test_timm_loads_the_weights_of_a_run_at_any_scale(tmp_path: Path) -> None:
    configuration = configure("alexnet", "paper", "smoke", classes=7)
    trained = AlexNet(configuration.network).initialise(configuration.recipe.initialisation).eval()
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    loaded = timm.create_model(
        "repro_alexnet", recipe="paper", scale="smoke", num_classes=7, checkpoint_path=tmp_path / "weights.safetensors"
    )
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 60
    assert torch.equal(loaded.eval()(images), trained(images))


@pytest.mark.parametrize(("variant", "recipe"), COMBINATIONS)
def test_nets_can_be_copied_and_pickled_and_take_any_batch(variant: str, recipe: str) -> None:
    configuration = configure(variant, recipe, "smoke", classes=7)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation).eval()
    size = configuration.network.input_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 60
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(images), model(images))
    assert model(images[:0]).shape == (0, 7)
    images.requires_grad_()
    model(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # torch's own
def test_nets_work_with_feature_extractors_and_quantization() -> None:
    configuration = configure("alexnet", "paper", "smoke", classes=7)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation).eval()
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 60
    extractor = create_feature_extractor(model, {"relu7": "fc7", "fc8": "logits"})
    for training in (True, False):
        model.train(training)
        found = extractor.train(training)(images)
        assert found["fc7"].shape == (2, model.num_features)
    assert torch.equal(found["logits"], model(images))
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    assert quantized(images).shape == (2, 7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_gradient_penalty_has_the_gradients_of_float64(recipe: str) -> None:
    configuration = configure("alexnet", recipe, "smoke", classes=7)
    generator = torch.Generator().manual_seed(0)
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation, generator).eval()
    images = torch.randn(1, 3, 56, 56, generator=generator) * 60

    def gradients(net: AlexNet, views: torch.Tensor) -> dict[str, torch.Tensor]:
        views = views.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(views).square().sum(), views, create_graph=True)
        gradient.square().sum().backward()
        return {name: weight.grad.double() for name, weight in net.named_parameters() if name.endswith("weight")}

    single, double = gradients(model, images), gradients(copy.deepcopy(model).double(), images.double())
    for name, expected in double.items():
        assert (single[name] - expected).norm() < 0.02 * expected.norm(), name


def test_fan_in_initialisation_has_standard_deviation_one_over_root_of_inputs() -> None:
    configuration = configure("cifar-relu", "fan-in")
    model = AlexNet(configuration.network).initialise(configuration.recipe.initialisation)
    for name, inputs in (("conv1", 3 * 25), ("conv2", 32 * 25), ("conv3", 32 * 25), ("fc10", 64 * 16)):
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(inputs**-0.5, rel=0.05)
        assert not layer.bias.any()
