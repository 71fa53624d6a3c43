"""The paper's own layers against slow, plain references."""

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
    SpatialNorm,
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
    layer = LocalResponseNorm(12, 5, 2.0, alpha, 0.75, towers)
    exact = layer.double()(torch.from_numpy(a)).numpy()
    single = layer.float()(torch.from_numpy(a).float()).numpy()
    # The band was made in float32, so alpha carries its rounding.
    np.testing.assert_allclose(exact, expected, rtol=1e-7)
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_lrn_readings_of_alpha_relate_to_torch_by_n() -> None:
    a = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)) * 80
    torch.testing.assert_close(LocalResponseNorm(16, 5, 2.0, 1e-4 / 5, 0.75)(a), F.local_response_norm(a, 5, 1e-4, k=2))
    torch.testing.assert_close(LocalResponseNorm(16, 5, 2.0, 1e-4, 0.75)(a), F.local_response_norm(a, 5, 5e-4, k=2))


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("towers", [1, 2])
def test_lrn_gradient(towers: int, beta: float) -> None:
    a = torch.randn(2, 8, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer = LocalResponseNorm(8, 3, 2.0, 0.7, beta, towers).double()
    assert torch.autograd.gradcheck(layer, (a,))


def test_lrn_in_bfloat16_stays_within_its_rounding() -> None:
    a = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(0)) * 80
    layer = LocalResponseNorm(16, 5, 2.0, 1e-4, 0.75)
    half = layer(a.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(a), rtol=0.03, atol=0.05)


def test_spatial_norm_is_its_window_sum() -> None:
    a = np.random.default_rng(1).normal(0, 60, (1, 3, 6, 7))
    expected = np.empty_like(a)
    for y in range(6):
        for x in range(7):
            window = a[:, :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            total = (window**2).sum(axis=(2, 3))
            expected[:, :, y, x] = a[:, :, y, x] / (1 + 0.001 / 25 * total) ** 0.75
    np.testing.assert_allclose(SpatialNorm(5, 1.0, 0.001 / 25, 0.75)(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)


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
