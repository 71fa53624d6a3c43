"""The check for values that are not finite, against torch's own."""

import pytest
import torch

from repro.models.finite import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_single_value_anywhere_is_found(dtype: torch.dtype) -> None:
    for size in (1, 7, 64, 1031):
        values = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
        assert all_finite(values)
        for place in {0, size // 2, size - 1}:
            for value in (float("nan"), float("inf"), -float("inf")):
                changed = values.clone()
                changed[place] = value
                assert not all_finite(changed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_values_are_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    assert all_finite(torch.tensor([[largest, 0], [-largest, 1]], dtype=dtype).t())


@pytest.mark.parametrize("values", [torch.zeros(0), torch.arange(3), torch.tensor(True), torch.tensor(1j)])
def test_other_tensors(values: torch.Tensor) -> None:
    assert all_finite(values)


def test_complex_values() -> None:
    assert not all_finite(torch.tensor([1, complex(0, float("inf"))]))
