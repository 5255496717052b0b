"""gelu, relu, sigmoid, tanh, log_spaced and softmax against PyTorch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.ops import gelu, log_spaced, relu, sigmoid, softmax, tanh

from .checks import assert_close, check_against_torch, check_finite_differences
from .strategies import arrays, shapes


@given(shapes(axes=(1, 4)).flatmap(arrays), st.sampled_from([1.0, 5.0]))
def test_gelu(x: np.ndarray, factor: float) -> None:
    check_against_torch(gelu, [x * factor], {}, torch.nn.functional.gelu)
    check_finite_differences(gelu, [x * factor], {})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gelu_far_out_is_x_or_zero(dtype: type) -> None:
    x = np.array([-1e30, -1e4, -200, -0.0, 0.0, 200, 1e4, 1e30], dtype)
    output, backward = gelu(x)
    assert np.array_equal(output, np.maximum(x, 0))
    assert np.allclose(backward(np.ones_like(x))[0], [0, 0, 0, 0.5, 0.5, 1, 1, 1], rtol=0, atol=3e-7)


@given(shapes(axes=(1, 4)).flatmap(arrays), st.sampled_from([1.0, 30.0]))
def test_sigmoid(x: np.ndarray, factor: float) -> None:
    check_against_torch(sigmoid, [x * factor], {}, torch.sigmoid)
    check_finite_differences(sigmoid, [x], {})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sigmoid_does_not_overflow(dtype: type) -> None:
    output, _ = sigmoid(np.array([-1e4, 0, 1e4], dtype))
    assert output.dtype == dtype
    assert np.array_equal(output, [0, 0.5, 1])


@given(shapes(axes=(1, 4)).flatmap(arrays))
def test_tanh(x: np.ndarray) -> None:
    check_against_torch(tanh, [x], {}, torch.tanh)
    check_finite_differences(tanh, [x], {})


@given(shapes(axes=(1, 4)).flatmap(arrays))
def test_relu(x: np.ndarray) -> None:
    check_against_torch(relu, [x], {}, torch.relu)
    check_finite_differences(relu, [x + 0.1 * np.sign(x)], {})  # away from the kink


def test_relu_has_slope_zero_at_zero() -> None:
    check_against_torch(relu, [np.array([-1.0, -0.0, 0.0, 1.0])], {}, torch.relu)


def torch_log_spaced(x: torch.Tensor) -> torch.Tensor:
    return torch.sign(x) * torch.log2(1 + torch.abs(x)) / np.log2(8.0)


@given(shapes(axes=(1, 4)).flatmap(arrays), st.sampled_from([1.0, 4.0]))
def test_log_spaced(x: np.ndarray, factor: float) -> None:
    check_against_torch(log_spaced, [x * factor], {}, torch_log_spaced)
    check_finite_differences(log_spaced, [factor * (x + 0.1 * np.sign(x))], {})


def test_log_spaced_brings_7_to_1_and_has_gradient_zero_at_zero() -> None:
    """As automatic differentiation of the authors' formula has it, though the true slope is 1 / log(8)."""
    assert_close(log_spaced(np.array([-7.0, 0.0, 1.0, 7.0]))[0], np.array([-1, 0, 1 / 3, 1]), 1e-15, "values")
    check_against_torch(log_spaced, [np.array([-1.0, 0.0, 2.0])], {}, torch_log_spaced)


def torch_softmax(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    return torch.softmax(x, dim=axis)


@st.composite
def array_and_axis(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    shape = draw(shapes(axes=(1, 4)))
    return draw(arrays(shape)), {"axis": draw(st.integers(-len(shape), len(shape) - 1))}


@given(array_and_axis())
def test_softmax(case: tuple[np.ndarray, dict[str, Any]]) -> None:
    x, settings = case
    check_against_torch(softmax, [x], settings, torch_softmax)
    check_finite_differences(softmax, [x], settings)
    total = softmax(x, **settings)[0].sum(axis=settings["axis"])
    assert np.allclose(total, 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_softmax_of_huge_scores_does_not_overflow(dtype: type) -> None:
    x = np.array([[1e30, -1e30, 1e30], [-3e4, -3e4 - 1, -3e4]], dtype)
    output, backward = softmax(x)
    e = np.exp(-1.0)
    assert np.allclose(output, [[0.5, 0, 0.5], [1 / (2 + e), e / (2 + e), 1 / (2 + e)]], rtol=1e-6)
    assert np.isfinite(backward(np.array([[1, 2, 3], [4, 5, 6]], dtype))[0]).all()
