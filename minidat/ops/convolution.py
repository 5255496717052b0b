"""Two-dimensional convolution on channels-last maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ._shapes import check, pair

Pair = tuple[int, int]


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> tuple[np.ndarray, Any]:
    """Cross-correlate x with a kernel: output[y, x, d] = b[d] + sum_ijc w[d, c, i, j] x[y s + i - p, x s + j - p, c].

    x: (B, H, W, C), weight: (D, C / groups, kh, kw), bias: (D,) or None -> output: (B, H', W', D) with
    H' = (H + 2 padding - kh) // stride + 1. `stride` and `padding` (zeros) are one int or a (y, x) pair. Group g of the
    output channels sees group g of the input channels only. Raises ShapeError if channels, groups and kernel do not
    fit. Source: torch.nn.functional.conv2d.
    """
    (sy, sx), (py, px) = stride, padding = pair(stride), pair(padding)
    check_conv2d(x, weight, bias, stride, padding, groups)
    outputs, group_channels, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), (py, py), (px, px), (0, 0)))

    # 1. a group's patch of an output pixel becomes a row, its kernel a matrix (im2col)
    windows = sliding_window_view(padded, (kh, kw), axis=(1, 2))
    patches = windows[:, ::sy, ::sx]  # (B, H', W', C, kh, kw)
    batch, height, width = patches.shape[:3]
    length = group_channels * kh * kw
    rows = patches.reshape(batch * height * width, groups, length).swapaxes(0, 1)
    matrices = weight.reshape(groups, outputs // groups, length)
    # 2. one matrix product a group
    output = (rows @ matrices.swapaxes(1, 2)).swapaxes(0, 1)  # (B H' W', g, D / g)
    output = output.reshape(batch, height, width, outputs)
    if bias is not None:
        output = output + bias

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_bias = None if bias is None else d_output.sum(axis=(0, 1, 2))
        d_rows = d_output.reshape(batch * height * width, groups, -1).swapaxes(0, 1)
        d_weight = (d_rows.swapaxes(1, 2) @ rows).reshape(weight.shape)  # 2
        d_patches = (d_rows @ matrices).swapaxes(0, 1).reshape(patches.shape)
        d_padded = np.zeros_like(padded)  # 1: a pixel is in many patches
        for i, j in np.ndindex(kh, kw):
            d_padded[:, i : i + sy * height : sy, j : j + sx * width : sx] += d_patches[..., i, j]
        return d_padded[:, py : py + x.shape[1], px : px + x.shape[2]], d_weight, d_bias

    return output, backward


def check_conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair, padding: Pair, groups: int
) -> None:
    """Raise ShapeError unless the arguments of `conv2d` fit each other."""
    check(x.ndim == 4, "conv2d", "x", x.shape, "(batch, height, width, channels)")
    check(weight.ndim == 4, "conv2d", "weight", weight.shape, "(out, in / groups, height, width)")
    check(min(*stride, groups) >= 1, "conv2d", "stride and groups", (*stride, groups), "at least 1")
    check(min(padding) >= 0, "conv2d", "padding", padding, "at least 0")
    outputs, group_channels, kernel = weight.shape[0], weight.shape[1], weight.shape[2:]
    check(x.shape[-1] == group_channels * groups, "conv2d", "channels of x", x.shape[-1], group_channels * groups)
    check(outputs % groups == 0, "conv2d", "output channels", outputs, f"a multiple of groups ({groups})")
    if bias is not None:
        check(bias.shape == (outputs,), "conv2d", "bias", bias.shape, (outputs,))
    padded = (x.shape[1] + 2 * padding[0], x.shape[2] + 2 * padding[1])
    check(padded[0] >= kernel[0] and padded[1] >= kernel[1], "conv2d", "padded map", padded, f"at least {kernel}")


def local_perception(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
    """Let neighbors exchange something: output = x + conv(x), each channel with its own k x k kernel (odd k).

    x: (B, H, W, C), weight: (C, 1, k, k), bias: (C,) -> output: (B, H, W, C). Raises ShapeError for an even kernel.
    Source: DAT++, section 3.4 (its local perception unit, from CMT, arXiv 2107.06263, Eq. 2).
    """
    kernel = weight.shape[-1]
    check(kernel % 2 == 1, "local_perception", "kernel", kernel, "an odd number")
    local, conv_backward = conv2d(x, weight, bias, padding=kernel // 2, groups=x.shape[-1])

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_x, d_weight, d_bias = conv_backward(d_output)
        return d_output + d_x, d_weight, d_bias

    return x + local, backward
