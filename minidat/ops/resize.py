"""Resizing of maps, nearest, bilinear and bicubic, to any size."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError
from ._shapes import check

BICUBIC_A = -0.75  # the free parameter of the cubic kernel, as PyTorch chooses it


def resize(
    x: np.ndarray, *, size: tuple[int, int], method: str = "bilinear", align_corners: bool = False
) -> tuple[np.ndarray, Any]:
    """Resize each channel of a map: output = M_y x M_x^T, one interpolation matrix an axis.

    All methods are separable, so that two matrix products do it and the transposed ones are its backward. With
    `align_corners` the centers of the corner pixels stay in place, else the outer edges of the map do ("nearest" knows
    the edges only). Nothing is smoothed before the map shrinks. x: (B, H, W, C), size: (h, w) -> output: (B, h, w, C).
    Raises ShapeError for another number of axes or an empty map, ConfigError for a `method` other than "nearest",
    "bilinear" or "bicubic".
    Source: torch.nn.functional.interpolate(antialias=False); R. Keys, Cubic convolution interpolation, 1981.
    """
    check(x.ndim == 4 and 0 not in x.shape, "resize", "shape of x", x.shape, "(B, H, W, C), none of them 0")
    check(len(size) == 2 and min(size) >= 1, "resize", "size", size, "two positive numbers")
    batch, height, width, channels = x.shape
    new_height, new_width = size
    along_y = interpolation_matrix(height, new_height, method, align_corners).astype(x.dtype)  # (h, H)
    along_x = interpolation_matrix(width, new_width, method, align_corners).astype(x.dtype)  # (w, W)
    rows = along_y @ x.reshape(batch, height, width * channels)  # (B, h, W C)
    output = along_x @ rows.reshape(batch * new_height, width, channels)  # (B h, w, C)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_rows = along_x.T @ d_output.reshape(batch * new_height, new_width, channels)
        d_x = along_y.T @ d_rows.reshape(batch, new_height, width * channels)
        return (d_x.reshape(batch, height, width, channels),)

    return output.reshape(batch, new_height, new_width, channels), backward


def interpolation_matrix(old: int, new: int, method: str, align_corners: bool) -> np.ndarray:
    """The (new, old) float64 matrix that interpolates `old` samples at `new` places; each row sums to 1."""
    if method not in ("nearest", "bilinear", "bicubic"):
        expected = '"nearest", "bilinear" or "bicubic"'
        raise ConfigError(f"resize: method: found {method!r}, expected {expected}")
    if method == "nearest":
        samples = (np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(int)  # in float32, as PyTorch does
        return np.equal.outer(samples.clip(0, old - 1), np.arange(old)).astype(float)
    if align_corners:
        places = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        places = (np.arange(new) + 0.5) * (old / new) - 0.5
    samples = np.floor(places).astype(int)[:, None] + np.arange(-1, 3)  # (new, 4) neighbors that a kernel can reach
    distances = np.abs(places[:, None] - samples)
    weights = np.maximum(0, 1 - distances) if method == "bilinear" else _cubic(distances)
    matrix = np.zeros((new, old))
    # A sample beyond the border has the value of the border's; several may fall on one column, so they are added up.
    np.add.at(matrix, (np.arange(new)[:, None], samples.clip(0, old - 1)), weights)
    return matrix


def _cubic(distances: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel at non-negative distances; 0 from 2 on."""
    a, t = BICUBIC_A, distances
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
