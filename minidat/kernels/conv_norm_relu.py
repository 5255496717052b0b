"""A convolution with its normalization folded into the weights, and a ReLU: one pass over the map after it, not four.

With fixed statistics the norm multiplies each output channel by s = norm_weight / sqrt(variance + eps) and adds
norm_bias - s mean. The convolution is linear: s times its weight, and that shift as its bias, give the same. Backward
goes through the folded weights too, by the chain rule.

On one core 1.3 times as fast as the textbook (`minidat bench semantic_fpn_datpp_tiny --plain --threads 1`, at 160 x
224 pixels).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.batch_normalization import Statistics
from ..ops.convolution import check_conv2d
from ..runtime.threads import chunked, empty
from .conv2d import conv2d, dense


def conv_norm_relu(
    x: np.ndarray,
    weight: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    *,
    statistics: Statistics,
    padding: int = 0,
    eps: float = 1e-5,
    keep: bool = True,
) -> tuple[np.ndarray, Any]:
    """`ops.conv_norm_relu`."""
    mean, variance = statistics
    inverse_std = 1 / np.sqrt(variance + x.dtype.type(eps))
    factor = norm_weight * inverse_std  # (D,)
    folded = weight * factor[:, None, None, None]
    shift = norm_bias - factor * mean
    if not keep:
        check_conv2d(x, folded, shift, (1, 1), (padding, padding), 1)
        return dense(x, folded, shift, (1, 1), (padding, padding), rectify=True), None
    convolved, conv_backward = conv2d(x, folded, shift, padding=padding)
    output = empty(convolved.shape, convolved.dtype)

    def rectify(part: slice) -> None:
        np.maximum(convolved[part], 0, out=output[part])

    chunked(rectify, len(output), max(1, output[0].size))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        d_x, d_folded, d_norm_bias = conv_backward(d_output * (output > 0))
        d_factor = (d_folded * weight).sum(axis=(1, 2, 3)) - d_norm_bias * mean
        return d_x, d_folded * factor[:, None, None, None], d_factor * inverse_std, d_norm_bias

    return output, backward
