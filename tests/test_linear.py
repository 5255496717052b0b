"""linear and scale_channels against PyTorch and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import linear, scale_channels

from .checks import check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, optional_arrays, shapes


@st.composite
def linear_arrays(draw: st.DrawFn) -> list[np.ndarray | None]:
    shape, outputs = draw(shapes(axes=(1, 4))), draw(st.integers(1, 6))
    return [draw(arrays(shape)), draw(arrays((outputs, shape[-1]))), draw(optional_arrays((outputs,)))]


@given(linear_arrays())
def test_linear(inputs: list[np.ndarray | None]) -> None:
    check_against_torch(linear, inputs, {}, torch.nn.functional.linear)
    check_finite_differences(linear, inputs, {})
    check_adjoint(linear, [*inputs[:2], None], {})


def test_linear_names_the_shape_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"linear: last axis of x: found \(2, 3\), expected \(\.\.\., 4\)"):
        linear(np.zeros((2, 3)), np.zeros((5, 4)), None)


@given(shapes(axes=(1, 4)).flatmap(lambda shape: st.tuples(arrays(shape), arrays(shape[-1:]))))
def test_scale_channels(inputs: tuple[np.ndarray, np.ndarray]) -> None:
    check_against_torch(scale_channels, inputs, {}, torch.mul)
    check_finite_differences(scale_channels, inputs, {})


def test_scale_channels_names_the_shape_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"scale_channels: .*\(2, 3\)"):
        scale_channels(np.zeros((2, 3)), np.zeros(1))
