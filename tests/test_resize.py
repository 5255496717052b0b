"""resize against PyTorch and finite differences: up and down, on one axis and on both, bilinear and bicubic."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from minidat.errors import ConfigError, ShapeError
from minidat.ops import resize

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, map_shapes, map_sizes, normal

METHODS = pytest.mark.parametrize(
    "method",
    [
        {"method": "bilinear", "align_corners": False},
        {"method": "bilinear", "align_corners": True},
        {"method": "bicubic", "align_corners": False},
        {"method": "bicubic", "align_corners": True},
    ],
)


def torch_resize(x: torch.Tensor, *, size: tuple[int, int], method: str, align_corners: bool) -> torch.Tensor:
    maps = x.permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(maps, size, mode=method, align_corners=align_corners).permute(0, 2, 3, 1)


@METHODS
@given(map_shapes().flatmap(arrays), map_sizes(longest=20))
def test_resize(method: dict[str, Any], x: np.ndarray, size: tuple[int, int]) -> None:
    settings = {"size": size, **method}
    check_against_torch(resize, [x], settings, torch_resize)
    check_finite_differences(resize, [x], settings)
    check_adjoint(resize, [x], settings)


@METHODS
@given(map_shapes().flatmap(arrays))
def test_the_same_size_changes_nothing(method: dict[str, Any], x: np.ndarray) -> None:
    assert_close(resize(x, size=x.shape[1:3], **method)[0], x, 1e-15, "same size")


@METHODS
@given(map_sizes(), map_sizes(longest=20))
def test_a_constant_map_stays_constant(
    method: dict[str, Any], size: tuple[int, int], new_size: tuple[int, int]
) -> None:
    output, _ = resize(np.full((1, *size, 1), 3.0), size=new_size, **method)
    assert_close(output, np.full((1, *new_size, 1), 3.0), 1e-14, "constant")


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_with_aligned_corners_the_corners_stay(method: str) -> None:
    x = normal((2, 5, 4, 3), 0)
    output, _ = resize(x, size=(9, 11), method=method, align_corners=True)
    assert_close(output[:, :: 9 - 1, :: 11 - 1], x[:, :: 5 - 1, :: 4 - 1], 1e-14, "corners")


def test_a_ramp_stays_a_ramp_inside() -> None:
    ramp = np.arange(8.0)[None, None, :, None]
    output, _ = resize(ramp, size=(1, 16), method="bilinear")
    assert_close(output[0, 0, 1:-1, 0], np.arange(0.25, 7, 0.5), 1e-14, "ramp")


def test_resize_names_what_does_not_fit() -> None:
    x = np.zeros((1, 2, 3, 1))
    with pytest.raises(ConfigError, match='resize: method: found \'nearest\', expected "bilinear" or "bicubic"'):
        resize(x, size=(4, 4), method="nearest")
    with pytest.raises(ShapeError, match=r"resize: size: found \(0, 4\), expected two positive numbers"):
        resize(x, size=(0, 4))
    with pytest.raises(ShapeError, match=r"resize: shape of x: found \(2, 3, 1\)"):
        resize(x[0], size=(4, 4))
