"""Pooling: averages over blocks, a grid of bins or the whole of a map, and the largest number of each window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check, pair


def average_pool(x: np.ndarray, *, kernel: int | tuple[int, int]) -> tuple[np.ndarray, Any]:
    """Average over blocks of kernel = (ky, kx) pixels that do not overlap; an int means a square.

    x: (B, H, W, C) -> output: (B, H // ky, W // kx, C). Rows and columns that fill no block are left out.
    Raises ShapeError if not even one block fits.
    Source: torch.nn.functional.avg_pool2d; DAT++ with its offsets switched off pools so.
    """
    ky, kx = pair(kernel)
    check(x.ndim == 4, "average_pool", "shape of x", x.shape, "(B, H, W, C)")
    batch, height, width, channels = x.shape
    check(min(ky, kx) >= 1, "average_pool", "kernel", kernel, "positive numbers")
    check(height >= ky and width >= kx, "average_pool", "map size", (height, width), f"at least the kernel, {(ky, kx)}")
    rows, columns = height // ky, width // kx
    blocks = x[:, : rows * ky, : columns * kx].reshape(batch, rows, ky, columns, kx, channels)
    output = blocks.mean(axis=(2, 4))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_x = np.zeros((batch, height, width, channels), d_output.dtype)
        d_pixel = d_output / (ky * kx)
        d_x[:, : rows * ky, : columns * kx] = d_pixel.repeat(ky, axis=1).repeat(kx, axis=2)
        return (d_x,)

    return output, backward


def adaptive_average_pool(x: np.ndarray, *, size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """Average over a grid of size = (h, w) bins that cover the map: output = A_y x A_x^T, one matrix an axis.

    Bin i of n on an axis of N pixels goes from floor(i N / n) up to, not including, ceil((i + 1) N / n): where n does
    not divide N, neighboring bins share pixels, and a map smaller than the grid is repeated.
    x: (B, H, W, C) -> output: (B, h, w, C). Raises ShapeError for another number of axes, an empty map or grid.
    Source: torch.nn.functional.adaptive_avg_pool2d; pyramid pooling, arXiv 1612.01105, section 3.2.
    """
    check(x.ndim == 4 and 0 not in x.shape, "adaptive_average_pool", "shape of x", x.shape, "(B, H, W, C), none 0")
    check(len(size) == 2 and min(size) >= 1, "adaptive_average_pool", "size", size, "two positive numbers")
    along_y = averaging_matrix(x.shape[1], size[0]).astype(x.dtype)  # (h, H)
    along_x = averaging_matrix(x.shape[2], size[1]).astype(x.dtype)  # (w, W)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (np.einsum("ih,jw,bijc->bhwc", along_y, along_x, d_output, optimize=True),)

    return np.einsum("ih,jw,bhwc->bijc", along_y, along_x, x, optimize=True), backward


def averaging_matrix(old: int, new: int) -> np.ndarray:
    """The (new, old) float64 matrix whose row i averages the pixels of bin i; each row sums to 1."""
    bins, pixels = np.arange(new)[:, None], np.arange(old)
    starts, ends = bins * old // new, -(-(bins + 1) * old // new)
    return ((starts <= pixels) & (pixels < ends)) / (ends - starts)


def global_average_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Average over the whole map, channel by channel.

    x: (B, H, W, C) -> output: (B, C). Raises ShapeError for another number of axes.
    Source: the classification head of DAT, as in Swin and ResNet (arXiv 1512.03385).
    """
    check(x.ndim == 4, "global_average_pool", "shape of x", x.shape, "(B, H, W, C)")
    shape = batch, height, width, channels = x.shape

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_pixel = d_output / (height * width)
        return (np.broadcast_to(d_pixel.reshape(batch, 1, 1, channels), shape).copy(),)

    return x.mean(axis=(1, 2)), backward


def max_pool(x: np.ndarray, *, kernel: int | tuple[int, int], stride: int | tuple[int, int]) -> tuple[np.ndarray, Any]:
    """The largest number of each window of kernel = (ky, kx) pixels, the windows `stride` apart; an int means a square.

    x: (B, H, W, C) -> output: (B, (H - ky) // sy + 1, (W - kx) // sx + 1, C). The gradient goes to the first of equals.
    Raises ShapeError if not even one window fits.
    Source: torch.nn.functional.max_pool2d; the coarsest level of Cascade Mask R-CNN's pyramid, with a kernel of 1.
    """
    (ky, kx), (sy, sx) = pair(kernel), pair(stride)
    check(x.ndim == 4, "max_pool", "shape of x", x.shape, "(B, H, W, C)")
    check(min(ky, kx, sy, sx) >= 1, "max_pool", "kernel and stride", (kernel, stride), "positive numbers")
    check(x.shape[1] >= ky and x.shape[2] >= kx, "max_pool", "map size", x.shape[1:3], f"at least the kernel, {ky, kx}")
    windows = np.lib.stride_tricks.sliding_window_view(x, (ky, kx), axis=(1, 2))[
        :, ::sy, ::sx
    ]  # (B, H', W', C, ky, kx)
    output = windows.max(axis=(4, 5))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        flat = windows.reshape(*output.shape, ky * kx)
        row, column = np.divmod(flat.argmax(axis=-1), kx)  # of the largest, within its window
        image, y, x_, channel = np.indices(output.shape, sparse=True)
        d_x = np.zeros(x.shape, d_output.dtype)
        np.add.at(d_x, (image, y * sy + row, x_ * sx + column, channel), d_output)
        return (d_x,)

    return output, backward
