"""Transposed convolution: every pixel paints its kernel onto a larger map."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def transposed_conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, *, stride: int
) -> tuple[np.ndarray, Any]:
    """Add up the kernel, times each pixel, at `stride` times its place: the transpose of a strided convolution.

        output[y s + i, x s + j, d] = b[d] + sum_c w[c, d, i, j] x[y, x, c],   summed over all (y, i) and (x, j) that
                                                                               meet there

    x: (B, H, W, C), weight: (C, D, kh, kw), bias: (D,) or None -> output: (B, (H - 1) s + kh, (W - 1) s + kw, D).
    Raises ShapeError if the channels do not fit. Source: torch.nn.functional.conv_transpose2d.
    """
    check(x.ndim == 4, "transposed_conv2d", "shape of x", x.shape, "(B, H, W, C)")
    fits = weight.ndim == 4 and weight.shape[0] == x.shape[3]
    check(fits, "transposed_conv2d", "shape of weight", weight.shape, f"({x.shape[3]}, out, kh, kw)")
    _, outputs, kh, kw = weight.shape
    if bias is not None:
        check(bias.shape == (outputs,), "transposed_conv2d", "bias", bias.shape, (outputs,))
    check(stride >= 1, "transposed_conv2d", "stride", stride, "at least 1")
    batch, height, width, _ = x.shape
    rows, columns = (height - 1) * stride, (width - 1) * stride  # where the last pixel's kernel begins

    def tap(array: np.ndarray, i: int, j: int) -> np.ndarray:
        """The view (B, H, W, D) of the large map that entry (i, j) of every pixel's kernel falls on."""
        return array[:, i : i + rows + 1 : stride, j : j + columns + 1 : stride]

    output = np.zeros((batch, rows + kh, columns + kw, outputs), x.dtype)
    for i, j in np.ndindex(kh, kw):
        tap(output, i, j)[...] += x @ weight[:, :, i, j]
    if bias is not None:
        output += bias

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_x, d_weight = np.zeros_like(x), np.empty_like(weight)
        for i, j in np.ndindex(kh, kw):
            d_tap = tap(d_output, i, j)
            d_x += d_tap @ weight[:, :, i, j].T
            d_weight[:, :, i, j] = np.tensordot(x, d_tap, axes=((0, 1, 2), (0, 1, 2)))
        return d_x, d_weight, None if bias is None else d_output.sum(axis=(0, 1, 2))

    return output, backward
