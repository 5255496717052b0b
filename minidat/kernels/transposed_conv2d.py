"""A transposed convolution whose kernels lie side by side, as one matrix product instead of one for each entry.

Where the stride is the kernel's side, nothing overlaps: every pixel becomes its own block of kh x kw pixels, a linear
layer whose outputs are put in place by a transposed copy. Other strides are left to the textbook.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..runtime.threads import contiguous, product


def transposed_conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, *, stride: int
) -> tuple[np.ndarray, Any]:
    """`ops.transposed_conv2d`."""
    fits = x.ndim == 4 and weight.shape[:1] == x.shape[3:] and (bias is None or bias.shape == weight.shape[1:2])
    if not fits or weight.shape[2:] != (stride, stride):  # the textbook says what is wrong
        return ops.transposed_conv2d(x, weight, bias, stride=stride)
    batch, height, width, channels = x.shape
    outputs = weight.shape[1]
    pixels = np.ascontiguousarray(x).reshape(-1, channels)
    matrix = weight.transpose(0, 2, 3, 1).reshape(channels, -1)  # (C, kh kw D)
    blocks = product(pixels, matrix, None if bias is None else np.tile(bias, stride**2))
    blocks = blocks.reshape(batch, height, width, stride, stride, outputs).transpose(0, 1, 3, 2, 4, 5)
    output = contiguous(blocks).reshape(batch, height * stride, width * stride, outputs)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_blocks = d_output.reshape(batch, height, stride, width, stride, outputs).transpose(0, 1, 3, 2, 4, 5)
        d_rows = contiguous(d_blocks).reshape(len(pixels), -1)
        d_matrix = product(pixels.T, d_rows).reshape(channels, stride, stride, outputs)
        d_bias = None if bias is None else d_rows.reshape(-1, outputs).sum(axis=0)
        return product(d_rows, matrix.T).reshape(x.shape), d_matrix.transpose(0, 3, 1, 2), d_bias

    return output, backward
