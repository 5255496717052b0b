"""transposed_conv2d against PyTorch, finite differences, and the convolution it is the transpose of."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import conv2d, transposed_conv2d

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, map_shapes, normal, optional_arrays


def torch_transposed_conv2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, stride: int
) -> torch.Tensor:
    return torch.nn.functional.conv_transpose2d(x.permute(0, 3, 1, 2), weight, bias, stride).permute(0, 2, 3, 1)


@st.composite
def transposed_cases(draw: st.DrawFn) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    shape = draw(map_shapes(longest=5, channels=3))
    outputs, kh, kw = (draw(st.integers(1, 3)) for _ in range(3))
    inputs = [draw(arrays(shape)), draw(arrays((shape[3], outputs, kh, kw))), draw(optional_arrays((outputs,)))]
    return inputs, {"stride": kh if kh == kw and draw(st.booleans()) else draw(st.integers(1, 3))}


@given(transposed_cases())
def test_transposed_conv2d(case: tuple[list[np.ndarray | None], dict[str, Any]]) -> None:
    inputs, settings = case
    check_against_torch(transposed_conv2d, inputs, settings, torch_transposed_conv2d)
    check_finite_differences(transposed_conv2d, inputs, settings)
    check_adjoint(transposed_conv2d, [*inputs[:2], None], settings)


def test_it_is_the_backward_of_the_convolution() -> None:
    x, weight = normal((2, 7, 9, 3), 0), normal((4, 3, 3, 3), 1)
    output, backward = conv2d(x, weight, None, stride=2)
    d_output = normal(output.shape, 2)
    assert_close(transposed_conv2d(d_output, weight, None, stride=2)[0], backward(d_output)[0], 1e-12, "d_x")


@pytest.mark.parametrize(
    ("x", "weight", "bias", "stride", "message"),
    [
        ((4, 5, 2), (2, 3, 2, 2), 3, 2, r"shape of x: found \(4, 5, 2\)"),
        ((1, 4, 5, 2), (3, 2, 2, 2), 2, 2, r"shape of weight: found \(3, 2, 2, 2\), expected \(2, out, kh, kw\)"),
        ((1, 4, 5, 2), (2, 3, 2, 2), 2, 2, r"bias: found \(2,\), expected \(3,\)"),
        ((1, 4, 5, 2), (2, 3, 2, 2), 3, 0, "stride: found 0, expected at least 1"),
    ],
)
def test_transposed_conv2d_names_what_does_not_fit(
    x: tuple[int, ...], weight: tuple[int, ...], bias: int, stride: int, message: str
) -> None:
    with pytest.raises(ShapeError, match=f"transposed_conv2d: {message}"):
        transposed_conv2d(np.zeros(x), np.zeros(weight), np.zeros(bias), stride=stride)
