"""The four poolings against PyTorch and finite differences, and against the recordings."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import adaptive_average_pool, average_pool, global_average_pool, max_pool

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .golden.dense import load_recording
from .strategies import arrays, both, int_or_pair, map_shapes, map_sizes, normal


def torch_average_pool(x: torch.Tensor, *, kernel: int | tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)


@st.composite
def pooling_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    batch, height, width, channels = draw(map_shapes())
    kernel = draw(int_or_pair(1, 4))
    shape = (batch, max(height, both(kernel)[0]), max(width, both(kernel)[1]), channels)
    return [draw(arrays(shape))], {"kernel": kernel}


@given(pooling_cases())
def test_average_pool(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    inputs, settings = case
    check_against_torch(average_pool, inputs, settings, torch_average_pool)
    check_finite_differences(average_pool, inputs, settings)
    check_adjoint(average_pool, inputs, settings)


def torch_adaptive_average_pool(x: torch.Tensor, *, size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


@given(map_shapes().flatmap(arrays), map_sizes())
def test_adaptive_average_pool(x: np.ndarray, size: tuple[int, int]) -> None:
    check_against_torch(adaptive_average_pool, [x], {"size": size}, torch_adaptive_average_pool)
    check_finite_differences(adaptive_average_pool, [x], {"size": size})
    check_adjoint(adaptive_average_pool, [x], {"size": size})


def test_adaptive_bins_that_do_not_divide_the_map_overlap() -> None:
    """Five pixels, three bins: 0 to 1, 1 to 3, 3 to 4."""
    output, _ = adaptive_average_pool(np.arange(5.0).reshape(1, 1, 5, 1), size=(1, 3))
    assert_close(output.ravel(), [0.5, 2.0, 3.5], 1e-15, "bins")


def test_one_adaptive_bin_is_the_global_average() -> None:
    x = normal((2, 3, 5, 4), 0)
    assert_close(adaptive_average_pool(x, size=(1, 1))[0][:, 0, 0], global_average_pool(x)[0], 1e-15, "one bin")


@given(map_shapes().flatmap(arrays))
def test_global_average_pool(x: np.ndarray) -> None:
    check_against_torch(global_average_pool, [x], {}, lambda x: x.mean(dim=(1, 2)))
    check_finite_differences(global_average_pool, [x], {})
    check_adjoint(global_average_pool, [x], {})


def test_rows_and_columns_that_fill_no_block_have_no_part() -> None:
    x = np.ones((1, 5, 7, 1))
    x[:, 4:] = x[:, :, 6:] = np.nan
    output, backward = average_pool(x, kernel=(2, 3))
    assert np.array_equal(output, np.ones((1, 2, 2, 1)))
    (d_x,) = backward(np.full((1, 2, 2, 1), 6.0))
    assert np.array_equal(d_x, np.where(np.isnan(x), 0, 1))


@pytest.mark.parametrize(
    ("shape", "kernel", "message"),
    [
        ((1, 2, 5, 1), 3, r"map size: found \(2, 5\), expected at least the kernel, \(3, 3\)"),
        ((1, 2, 5, 1), 0, "kernel: found 0, expected positive"),
        ((2, 5, 1), 2, r"shape of x: found \(2, 5, 1\), expected \(B, H, W, C\)"),
    ],
)
def test_average_pool_names_what_does_not_fit(shape: tuple[int, ...], kernel: int, message: str) -> None:
    with pytest.raises(ShapeError, match=f"average_pool: {message}"):
        average_pool(np.zeros(shape), kernel=kernel)


def test_global_average_pool_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"global_average_pool: shape of x: found \(2, 5, 1\)"):
        global_average_pool(np.zeros((2, 5, 1)))


def test_adaptive_average_pool_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"adaptive_average_pool: size: found \(0, 2\), expected two positive numbers"):
        adaptive_average_pool(np.zeros((1, 2, 2, 1)), size=(0, 2))
    with pytest.raises(ShapeError, match=r"adaptive_average_pool: shape of x: found \(2, 2, 1\)"):
        adaptive_average_pool(np.zeros((2, 2, 1)), size=(1, 2))


@st.composite
def max_pools(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """A map of different numbers, and windows that fit into it: they may overlap, or leave pixels out."""
    kernel, stride = draw(int_or_pair(1, 3)), draw(int_or_pair(1, 3))
    shape = draw(map_shapes(shortest=3))
    return draw(arrays(shape)), {"kernel": kernel, "stride": stride}


@given(max_pools())
def test_max_pool(case: tuple[np.ndarray, dict[str, Any]]) -> None:
    def torch_max_pool(x: torch.Tensor, *, kernel: Any, stride: Any) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(x.permute(0, 3, 1, 2), kernel, stride).permute(0, 2, 3, 1)

    x, settings = case
    check_against_torch(max_pool, [x], settings, torch_max_pool)
    check_finite_differences(max_pool, [x], settings, step=1e-7, relative=1e-5)


def test_max_pool_equals_the_recording() -> None:
    recording = load_recording("ops")
    found, _ = max_pool(recording["interp/x"].transpose(0, 2, 3, 1), kernel=1, stride=2)
    assert np.array_equal(found.transpose(0, 3, 1, 2), recording["interp/maxpool1_s2"])


def test_of_equal_numbers_the_first_gets_the_gradient() -> None:
    output, backward = max_pool(np.zeros((1, 2, 2, 1)), kernel=2, stride=2)
    assert np.array_equal(backward(np.ones_like(output))[0].ravel(), [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 2, 5, 1), (3, 1), r"map size: found \(2, 5\), expected at least the kernel, \(3, 3\)"),
        ((1, 2, 5, 1), (2, 0), r"kernel and stride: found \(2, 0\), expected positive numbers"),
        ((2, 5, 1), (2, 1), r"shape of x: found \(2, 5, 1\), expected \(B, H, W, C\)"),
    ],
)
def test_max_pool_names_what_does_not_fit(shape: tuple[int, ...], settings: tuple[int, int], message: str) -> None:
    with pytest.raises(ShapeError, match=f"max_pool: {message}"):
        max_pool(np.zeros(shape), kernel=settings[0], stride=settings[1])
