"""The paper's own layers against slow, plain references."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

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
    TowerLinear,
    splitmix64,
)


def lrn_by_loops(a: np.ndarray, n: int, k: float, alpha: float, beta: float, towers: int) -> np.ndarray:
    """The formula of Sec. 3.3 as printed, on float64 [N, maps, H, W], in each tower separately."""
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
def test_lrn_matches_the_formula_in_both_readings_of_alpha(alpha: float, towers: int) -> None:
    a = np.random.default_rng(0).normal(0, 80, (2, 12, 4, 3))
    expected = lrn_by_loops(a, 5, 2.0, alpha, 0.75, towers)
    layer = LocalResponseNorm(5, 2.0, alpha, 0.75, towers)
    np.testing.assert_allclose(layer(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(layer(torch.from_numpy(a).float()).numpy(), expected, rtol=1e-6)


def test_lrn_readings_of_alpha_relate_to_torch_by_n() -> None:
    a = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)) * 80
    torch.testing.assert_close(LocalResponseNorm(5, 2.0, 1e-4 / 5, 0.75)(a), F.local_response_norm(a, 5, 1e-4, k=2))
    torch.testing.assert_close(LocalResponseNorm(5, 2.0, 1e-4, 0.75)(a), F.local_response_norm(a, 5, 5e-4, k=2))


def test_spatial_normalization_matches_its_window_sum() -> None:
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


NORMALIZATIONS = {
    "lrn": LocalResponseNorm(5, 2.0, 1e-2, 0.75),
    "lrn-of-towers": LocalResponseNorm(5, 2.0, 1e-2, 0.75, towers=2),
    "lrn-of-narrow-towers": LocalResponseNorm(9, 1.0, 1e-2, 0.75, towers=6),  # half a window is wider than a tower
    "spatial": SpatialNormalization(5, 1.0, 1e-2, 0.75),
}


@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_gradients_match_finite_differences(layer: torch.nn.Module) -> None:
    a = torch.randn(2, 12, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(layer, (a,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_loops_match_float64_to_rounding_forward_and_backward(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """In bfloat16 only the results are rounded, not the intermediate values."""
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


def test_loops_do_not_depend_on_the_number_of_threads() -> None:
    a = torch.randn(5, 12, 9, 9, generator=torch.Generator().manual_seed(0))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append([layer(a) for layer in NORMALIZATIONS.values()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def penalised_gradient(layer: torch.nn.Module, a: torch.Tensor) -> torch.Tensor:
    """The gradient of the squared norm of the gradient of a loss: a second derivative."""
    a = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(a).pow(2).sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.pow(2).sum(), a)
    return second


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_second_derivatives_match_float64(layer: torch.nn.Module, memory_format: torch.memory_format) -> None:
    a = torch.randn(2, 12, 5, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)
    torch.testing.assert_close(
        penalised_gradient(layer, a).double(), penalised_gradient(layer, a.double()), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_gradients_of_gradients_match_finite_differences(layer: torch.nn.Module) -> None:
    """Of the formula in float64, and of the gradient that the loops' layers record for a second derivative."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 12, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (a,))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_transforms_of_torch_func_see_the_formula(layer: torch.nn.Module) -> None:
    a, tangent = torch.randn(2, 3, 12, 3, 4, generator=torch.Generator().manual_seed(0))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return layer(x).pow(2).sum()

    exact = torch.func.grad(loss)(a.double())
    torch.testing.assert_close(torch.func.grad(loss)(a).double(), exact, rtol=1e-5, atol=1e-6)
    of_each = torch.func.vmap(torch.func.grad(lambda image: loss(image[None])))(a)
    torch.testing.assert_close(of_each.double(), exact, rtol=1e-5, atol=1e-6)
    slope = (exact * tangent).sum()
    torch.testing.assert_close(torch.func.jvp(loss, (a,), (tangent,))[1].double(), slope, rtol=1e-4, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(a, tangent)
        torch.testing.assert_close(
            torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent.double(), slope, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_batched_gradients_and_hessians(layer: torch.nn.Module) -> None:
    a = torch.randn(1, 12, 2, 1, generator=torch.Generator().manual_seed(0))
    batched = torch.autograd.functional.jacobian(layer, a, vectorize=True)
    torch.testing.assert_close(
        batched.double(), torch.autograd.functional.jacobian(layer, a.double()), rtol=1e-5, atol=1e-6
    )

    def loss(x: torch.Tensor) -> torch.Tensor:
        return layer(x).pow(2).sum()

    exact = torch.autograd.functional.hessian(loss, a.double())
    for vectorize in (True, False):
        hessian = torch.autograd.functional.hessian(loss, a, vectorize=vectorize)
        torch.testing.assert_close(hessian.double(), exact, rtol=1e-4, atol=1e-5)


def exported(layer: torch.nn.Module, a: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.export.export(layer, (a,)).module()


CAPTURES = {
    "trace": lambda layer, a: torch.jit.trace(layer, a, check_trace=False),
    "compile": lambda layer, a: torch.compile(layer, backend="aot_eager", fullgraph=True),
    "export": exported,
    "fx": lambda layer, a: torch.fx.symbolic_trace(layer),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize("name", ["lrn-of-towers", "spatial"])
def test_captured_graphs_compute_on_their_input(name: str, capture: Callable[..., Callable[..., torch.Tensor]]) -> None:
    """A graph that held the loops' result as a constant would give the same output for any input."""
    layer = NORMALIZATIONS[name]
    first, second = torch.randn(2, 3, 12, 5, 4, generator=torch.Generator().manual_seed(0)) * 20
    graph = capture(layer, first)
    for a in (first, second):
        torch.testing.assert_close(graph(a), layer(a), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_layers_can_be_copied_and_pickled(layer: torch.nn.Module) -> None:
    a = torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(0))
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(a), layer(a))


@pytest.mark.parametrize("shape", [(0, 12, 3, 4), (1, 12, 3, 4), (2, 12, 1, 1), (1, 12, 1, 1)])
@pytest.mark.parametrize("layer", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_any_batch_and_any_strides(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    a = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    transposed = a.transpose(2, 3).contiguous().transpose(2, 3)
    for each in (a, transposed, a.to(memory_format=torch.channels_last), a[:, :, :, :1].expand(*shape)):
        each = each.detach().requires_grad_()
        out = layer(each)
        out.sum().backward()
        torch.testing.assert_close(out.double(), layer(each.detach().double()), rtol=1e-5, atol=1e-6)
        assert each.grad is not None
        assert each.grad.shape == torch.Size(shape)


CHECK = """
import os, sys, threading, torch
from repro.models.layers import LocalResponseNorm, SpatialNormalization
layers = LocalResponseNorm(5, 2.0, 1e-2, 0.75, towers=2), SpatialNormalization(5, 1.0, 1e-2, 0.75)
def check():
    for layer in layers:
        a = torch.randn(3, 12, 5, 4, generator=torch.Generator().manual_seed(0))
        results = []
        for dtype in (torch.float32, torch.float64):
            x = a.to(dtype).requires_grad_()
            out = layer(x)
            results.append((out.detach().double(), torch.autograd.grad(out.pow(2).sum(), x)[0].double()))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
"""
FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 about forks of processes with threads
torch.set_num_threads(2)
conv, image = torch.nn.Conv2d(3, 64, 5), torch.randn(16, 3, 64, 64)
conv(image)
check()
child = os.fork()
if not child:
    check()
    conv(image)  # torch's threads do not survive a fork either
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
THREADS = """
threads = [threading.Thread(target=lambda: [check() for _ in range(20)]) for _ in range(4)]
[each.start() for each in threads], [each.join() for each in threads]
"""


SINGLE = """
torch.set_num_threads(1)
check()
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""


def run_check(program: str, before: str = "", **environment: str) -> str:
    """Run the check above in a process; returns what it logs."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + CHECK + program],
        env=os.environ | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_formula_replaces_loops_that_cannot_be_compiled() -> None:
    """With a note, once, and never an uninitialised result."""
    switched_off = run_check("check()", NUMBA_DISABLE_JIT="1")
    assert switched_off.count("\n") == 1
    assert switched_off.startswith("NUMBA_DISABLE_JIT is set: operators of torch and NumPy replace the compiled loops")
    failing = "from repro.models import normalization_kernels as k\nk.numba.njit = lambda **_: 1 / 0\ncheck()"
    log = run_check(failing)
    assert log.count("\n") == 1
    assert "Numba fails (ZeroDivisionError" in log
    missing = run_check("check()", before="import sys\nsys.modules['numba'] = None\n")
    assert missing.count("\n") == 1
    assert missing.startswith("Numba cannot be imported")


@pytest.mark.parametrize("where", ["nowhere", "full disk"])
def test_loops_without_a_writable_cache(where: str) -> None:
    """Compiled in the process, with a note: in a read-only installation without a home directory, on a full disk."""
    break_cache = {
        "nowhere": "import numba.core.caching as c; c.CompileResultCacheImpl._locator_classes = []",
        "full disk": "import numba.core.caching as c\ndef full(*_): raise OSError(28, 'No space left')\n"
        "c.IndexDataCacheFile.save = full; c.IndexDataCacheFile.load = lambda *_: None",
    }
    # One pass of one layer, because compiling takes seconds.
    compared = "layers[0](a).double(), layers[0](a.double()), rtol=1e-5, atol=1e-6"
    log = run_check(f"{break_cache[where]}\na = torch.randn(3, 12, 5, 4)\ntorch.testing.assert_close({compared})")
    assert log.count("\n") == 1
    assert log.startswith("Numba cannot cache its machine code and compiles it in each process")


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_loops_with_any_threading_layer(layer: str) -> None:
    """In several threads of the process at once; where a layer is not installed the formula is used.

    Starting Numba's threads does not change the number that torch uses.
    """
    log = run_check(SINGLE + THREADS, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert log == "" or "No threading layer could be loaded" in log


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_forked_children_of_a_process_that_has_used_the_loops(layer: str) -> None:
    run_check(FORK, NUMBA_THREADING_LAYER=layer)


def test_dropout_does_not_rescale_in_training_and_halves_in_testing() -> None:
    layer = PaperDropout(0.5)
    layer.masks = DropoutMasks(torch.device("cpu"))
    layer.masks.begin(3, 200, slice(0, 200))
    ones = torch.ones(200, 500)
    kept = layer(ones)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(kept.mean().item() - 0.5) < 0.01  # six standard errors of 100,000 coins
    layer.masks.begin(3, 200, slice(50, 70))  # the rows of one rank in the same update
    assert torch.equal(layer(ones[50:70]), kept[50:70])
    assert torch.equal(layer.eval()(ones), ones / 2)


def splitmix64_by_hand(seed: int, count: int) -> list[int]:
    """Steele, Lea and Flood's generator in Python's integers."""
    numbers, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


def test_numbers_of_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of the seed 1234567
    assert splitmix64_by_hand(1234567, 3) == published
    for seed in (0, 1234567, 2**63 - 1):
        expected = [number >> 1 for number in splitmix64_by_hand(seed, 200)]
        assert splitmix64(seed, 0, 200, torch.device("cpu")).tolist() == expected
        assert splitmix64(seed, 150, 200, torch.device("cpu")).tolist() == expected[150:]


def test_dropout_masks_of_an_accelerator_depend_on_seed_and_position_alone() -> None:
    masks = DropoutMasks(torch.device("cpu"))
    masks.counted = True  # as on an accelerator
    drawn: dict[object, list[torch.Tensor]] = {}
    for rows in (slice(0, 200), slice(50, 70), slice(20, 20)):
        masks.begin(5, 200, rows)
        drawn[rows.start, rows.stop] = [masks.draw(300, 0.5), masks.draw(100, 0.2)]
    whole = drawn[0, 200]
    assert [mask.shape for mask in whole] == [(200, 300), (200, 100)]
    assert all(torch.equal(part, mask[50:70]) for part, mask in zip(drawn[50, 70], whole, strict=True))
    assert [mask.shape for mask in drawn[20, 20]] == [(0, 300), (0, 100)]
    assert abs(whole[0].double().mean() - 0.5) < 0.013  # six standard errors of 60,000 coins
    assert abs(whole[1].double().mean() - 0.8) < 0.017
    masks.begin(6, 200, slice(0, 200))
    assert abs((masks.draw(300, 0.5) == whole[0]).double().mean() - 0.5) < 0.013


def test_rounded_up_conv_sees_zeros_beyond_the_right_and_bottom_edge() -> None:
    conv = RoundedUpConv2d(1, 1, 11, 4, 0, bias=False, overhang=3)
    torch.nn.init.ones_(conv.weight)
    image = torch.ones(1, 1, 224, 224)
    out = conv(image)[0, 0]
    assert out.shape == (55, 55)
    assert out[0, 0] == 121
    assert out[0, 54] == 11 * 8  # three columns of the last window lie outside
    assert out[54, 54] == 8 * 8


def test_locally_connected_layer_is_a_different_small_product_at_each_position() -> None:
    layer = LocallyConnected2d(maps=3, kernels=4, size=3, padding=1, positions=5)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    image = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    padded = F.pad(image, (1, 1, 1, 1))
    out = layer(image)
    for y in range(5):
        for x in range(5):
            window = padded[:, :, y : y + 3, x : x + 3].flatten(1)
            position = 5 * y + x
            expected = window @ layer.weight[position].T + layer.bias[:, position]
            torch.testing.assert_close(out[:, :, y, x], expected, rtol=1e-5, atol=1e-5)


def test_a_tower_layer_is_two_layers_side_by_side() -> None:
    layer = TowerLinear(3, 4)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    with torch.no_grad():
        for half, rows in ((first, slice(0, 2)), (second, slice(2, 4))):
            half.weight.copy_(layer.weight[rows])
            half.bias.copy_(layer.bias[rows])
    x = torch.randn(5, 6)
    torch.testing.assert_close(layer(x), torch.cat((first(x[:, :3]), second(x[:, 3:])), dim=1))


@pytest.mark.parametrize("images", [4, 5])
def test_a_convolution_in_parts_has_the_same_output_and_gradients(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = RoundedUpConv2d(3, 8, 11, 4, 0, overhang=3).to(memory_format=torch.channels_last)
    x = torch.randn(images, 3, 24, 24).contiguous(memory_format=torch.channels_last).requires_grad_()

    def run(conv: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        out = conv(x)
        loss = (out * torch.arange(out.numel(), dtype=x.dtype).cos().reshape(out.shape)).sum()
        return [out.detach(), *torch.autograd.grad(loss, [x, *conv.parameters()])]

    expected = run(copy.deepcopy(conv).double(), x.detach().double().requires_grad_())
    whole = run(conv, x)
    monkeypatch.setattr("repro.models.layers.MAX_INPUT_BYTES", 2 * 3 * 27 * 27 * 4)  # two images
    calls = []
    convolution = torch.nn.functional.conv2d
    monkeypatch.setattr("torch.nn.functional.conv2d", lambda x, *rest: calls.append(len(x)) or convolution(x, *rest))
    in_parts = run(conv, x)
    assert calls == {4: [2, 2], 5: [2, 2, 1]}[images]
    assert in_parts[0].is_contiguous(memory_format=torch.channels_last)
    for each in (whole, in_parts):
        for found, reference in zip(each, expected, strict=True):
            torch.testing.assert_close(found.double(), reference, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(conv(x), in_parts[0])
    assert calls[-1] == images
