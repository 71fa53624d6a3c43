"""The paper's own layers against slow, plain references."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from repro.models.layers import (
    DropoutMasks,
    LocallyConnected2d,
    LocalResponseNorm,
    PaperDropout,
    RoundedUpConv2d,
    SpatialNormalization,
    across_maps,
    fused,
    within_maps,
)


def lrn_by_loops(a: np.ndarray, n: int, k: float, alpha: float, beta: float, towers: int) -> np.ndarray:
    """The formula of Sec. 3.3 as it is printed, on float64 [N, maps, H, W]; each tower is a layer of its own."""
    b = np.empty_like(a)
    maps = a.shape[1] // towers
    for tower in range(towers):
        part = a[:, tower * maps : (tower + 1) * maps]
        for i in range(maps):
            total = np.zeros_like(part[:, i])
            for j in range(max(0, i - n // 2), min(maps - 1, i + n // 2) + 1):
                total += part[:, j] ** 2
            b[:, tower * maps + i] = part[:, i] / (k + alpha * total) ** beta
    return b


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("alpha", [1e-4, 1e-4 / 5], ids=["text", "program"])
def test_lrn_is_the_formula_in_both_readings_of_alpha(alpha: float, towers: int) -> None:
    a = np.random.default_rng(0).normal(0, 80, (2, 12, 4, 3))
    expected = lrn_by_loops(a, 5, 2.0, alpha, 0.75, towers)
    layer = LocalResponseNorm(5, 2.0, alpha, 0.75, towers)
    np.testing.assert_allclose(layer(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(layer(torch.from_numpy(a).float()).numpy(), expected, rtol=1e-6)


def test_lrn_readings_of_alpha_relate_to_torch_by_n() -> None:
    a = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)) * 80
    torch.testing.assert_close(LocalResponseNorm(5, 2.0, 1e-4 / 5, 0.75)(a), F.local_response_norm(a, 5, 1e-4, k=2))
    torch.testing.assert_close(LocalResponseNorm(5, 2.0, 1e-4, 0.75)(a), F.local_response_norm(a, 5, 5e-4, k=2))


def test_spatial_norm_is_its_window_sum() -> None:
    a = np.random.default_rng(1).normal(0, 60, (2, 3, 6, 7))
    expected = np.empty_like(a)
    for y in range(6):
        for x in range(7):
            window = a[:, :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            total = (window**2).sum(axis=(2, 3))
            expected[:, :, y, x] = a[:, :, y, x] / (1 + 0.001 / 25 * total) ** 0.75
    layer = SpatialNormalization(5, 1.0, 0.001 / 25, 0.75)
    np.testing.assert_allclose(layer(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(layer(torch.from_numpy(a).float()).numpy(), expected, rtol=1e-6)


NORMALISATIONS = {
    "lrn": LocalResponseNorm(5, 2.0, 1e-2, 0.75),
    "lrn-of-towers": LocalResponseNorm(5, 2.0, 1e-2, 0.75, towers=2),
    "lrn-of-narrow-towers": LocalResponseNorm(9, 1.0, 1e-2, 0.75, towers=6),  # half a window is wider than a tower
    "spatial": SpatialNormalization(5, 1.0, 1e-2, 0.75),
}


@pytest.mark.parametrize("layer", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_the_formulas_derivative_is_that_of_finite_differences(layer: torch.nn.Module) -> None:
    a = torch.randn(2, 12, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(layer, (a,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_the_loops_are_exact_to_rounding_forward_and_backward(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """Against float64 on the same numbers; in bfloat16 only the results are rounded, not what lies between."""
    generator = torch.Generator().manual_seed(0)
    a, grad = (torch.randn(3, 12, 7, 5, generator=generator).mul(20).to(dtype) for _ in range(2))
    exact_in = a.double().requires_grad_()
    exact = layer(exact_in)
    exact.backward(grad.double())
    a.requires_grad_()
    out = layer(a)
    out.backward(grad)
    assert out.dtype == a.grad.dtype == dtype
    rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(out.double(), exact, rtol=rounding, atol=rounding / 100)
    torch.testing.assert_close(a.grad.double(), exact_in.grad, rtol=rounding, atol=20 * 1e-6)


def test_the_loops_results_do_not_depend_on_the_number_of_threads() -> None:
    a = torch.randn(5, 12, 9, 9, generator=torch.Generator().manual_seed(0))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append([layer(a) for layer in NORMALISATIONS.values()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
@pytest.mark.parametrize("layer", [NORMALISATIONS["lrn-of-towers"], NORMALISATIONS["spatial"]])
def test_what_a_gpu_gets_compiled_is_the_formula_too(layer: torch.nn.Module) -> None:
    formula = across_maps if isinstance(layer, LocalResponseNorm) else within_maps
    names = ("towers", "n", "k", "alpha") if formula is across_maps else ("size", "k", "alpha")
    constants = [*(getattr(layer, name) for name in names), 0.75]
    a = torch.randn(3, 12, 7, 5, generator=torch.Generator().manual_seed(0)).mul(20).requires_grad_()
    grad = torch.randn(3, 12, 7, 5, generator=torch.Generator().manual_seed(1))
    results: list[tuple[torch.Tensor, ...]] = []
    for run in (formula, fused(formula)):
        out = run(a, *constants)
        results.append((out.detach(), *torch.autograd.grad(out, a, grad)))
    torch.testing.assert_close(*results)


def test_dropout_does_not_rescale_in_training_and_halves_in_testing() -> None:
    layer = PaperDropout(0.5)
    layer.masks = DropoutMasks(torch.device("cpu"))
    layer.masks.begin(3, 200, slice(0, 200))
    ones = torch.ones(200, 500)
    kept = layer(ones)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(kept.mean().item() - 0.5) < 0.01  # six standard errors of 100,000 coins
    layer.masks.begin(3, 200, slice(50, 70))  # a rank's share of the same update
    assert torch.equal(layer(ones[50:70]), kept[50:70])
    assert torch.equal(layer.eval()(ones), ones / 2)


def test_rounded_up_conv_sees_zeros_beyond_the_right_and_bottom_edge() -> None:
    conv = RoundedUpConv2d(1, 1, 11, 4, 0, bias=False, overhang=3)
    torch.nn.init.ones_(conv.weight)
    image = torch.ones(1, 1, 224, 224)
    out = conv(image)[0, 0]
    assert out.shape == (55, 55)
    assert out[0, 0] == 121
    assert out[0, 54] == 11 * 8  # three columns of the last window lie outside
    assert out[54, 54] == 8 * 8


def test_locally_connected_layer_is_a_different_small_product_at_each_place() -> None:
    layer = LocallyConnected2d(maps=3, kernels=4, size=3, padding=1, positions=5)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    image = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    padded = F.pad(image, (1, 1, 1, 1))
    out = layer(image)
    for y in range(5):
        for x in range(5):
            window = padded[:, :, y : y + 3, x : x + 3].flatten(1)
            place = 5 * y + x
            expected = window @ layer.weight[place].T + layer.bias[:, place]
            torch.testing.assert_close(out[:, :, y, x], expected, rtol=1e-5, atol=1e-5)
