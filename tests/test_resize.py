"""resize against PyTorch and finite differences: up and down, on one axis and on both; and the recordings."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ConfigError, ShapeError
from minidat.ops import resize

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .golden.dense import load_recording
from .strategies import arrays, map_shapes, map_sizes, normal

METHODS = pytest.mark.parametrize(
    "method",
    [
        {"method": "nearest"},
        {"method": "bilinear", "align_corners": False},
        {"method": "bilinear", "align_corners": True},
        {"method": "bicubic", "align_corners": False},
        {"method": "bicubic", "align_corners": True},
    ],
)


def torch_resize(
    x: torch.Tensor, *, size: tuple[int, int], method: str, align_corners: bool | None = None
) -> torch.Tensor:
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


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(18, 22), (17, 23), (40, 31), (5, 7), (9, 11), (1, 1)])
def test_resize_equals_the_recording(method: str, size: tuple[int, int]) -> None:
    recording = load_recording("ops")
    found, _ = resize(recording["interp/x"].transpose(0, 2, 3, 1), size=size, method=method)
    expected = recording[f"interp/{method}_{size[0]}x{size[1]}"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@given(st.integers(1, 200), st.integers(1, 400))
def test_nearest_is_the_pixel_that_pytorch_takes(old: int, new: int) -> None:
    x = np.arange(old, dtype=np.float32)[None, None, :, None]
    found, _ = resize(x, size=(1, new), method="nearest")
    assert np.array_equal(found, torch_resize(torch.tensor(x), size=(1, new), method="nearest"))


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
    with pytest.raises(ConfigError, match='method: found \'area\', expected "nearest", "bilinear" or "bicubic"'):
        resize(x, size=(4, 4), method="area")
    with pytest.raises(ShapeError, match=r"resize: size: found \(0, 4\), expected two positive numbers"):
        resize(x, size=(0, 4))
    with pytest.raises(ShapeError, match=r"resize: shape of x: found \(2, 3, 1\)"):
        resize(x[0], size=(4, 4))
