"""layer_norm against PyTorch and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import layer_norm

from .checks import check_against_torch, check_finite_differences
from .strategies import arrays, normal, shapes


def torch_layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


@st.composite
def layer_norm_arrays(draw: st.DrawFn) -> list[np.ndarray]:
    shape = (*draw(shapes(axes=(0, 3))), draw(st.integers(1, 12)))
    return [draw(arrays(shape)), draw(arrays(shape[-1:])), draw(arrays(shape[-1:]))]


@given(layer_norm_arrays(), st.sampled_from([1e-5, 1e-6, 0.1]))
def test_layer_norm(inputs: list[np.ndarray], eps: float) -> None:
    # Two channels that happen to be nearly equal are divided by their small difference; steps must be smaller still.
    if inputs[0].shape[-1] < 4:
        eps = 0.1
    check_against_torch(layer_norm, inputs, {"eps": eps}, torch_layer_norm)
    check_finite_differences(layer_norm, inputs, {"eps": eps}, relative=1e-5)


@pytest.mark.parametrize("channels", [2, 96])
def test_layer_norm_of_numbers_far_from_zero(channels: int) -> None:
    """The variance comes from differences to the mean: mean(x^2) - mean^2 would be
    noise here."""
    x = normal((5, channels), 3) + 1e3
    inputs = [x, normal((channels,), 4), normal((channels,), 5)]
    check_against_torch(layer_norm, inputs, {"eps": 1e-5}, torch_layer_norm, relative=1e-8, float32_relative=1e-2)


def test_layer_norm_of_equal_numbers_is_the_bias() -> None:
    bias = normal((4,), 0)
    assert np.allclose(layer_norm(np.full((2, 4), 7.0), normal((4,), 1), bias)[0], bias, rtol=0, atol=1e-12)


def test_layer_norm_names_the_shape_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"layer_norm: last axis of x: found \(2, 3\)"):
        layer_norm(np.zeros((2, 3)), np.zeros(4), np.zeros(4))
