"""The second half of a block, and the sum that closes either half: compositions of other operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check
from .activation import gelu
from .convolution import local_perception
from .linear import linear, scale_channels


def mlp(
    x: np.ndarray, weight1: np.ndarray, bias1: np.ndarray, weight2: np.ndarray, bias2: np.ndarray
) -> tuple[np.ndarray, Any]:
    """A multilayer perceptron at each place: output = W2 gelu(W1 x + b1) + b2.

    x: (..., C), weight1: (hidden, C), bias1: (hidden,), weight2: (C, hidden), bias2: (C,) -> output: (..., C).
    Raises ShapeError if the layers do not fit. Source: DAT, Fig. 3; arXiv 2010.11929, Eq. 3.
    """
    h, linear1_backward = linear(x, weight1, bias1)
    g, gelu_backward = gelu(h)
    output, linear2_backward = linear(g, weight2, bias2)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_g, d_weight2, d_bias2 = linear2_backward(d_output)
        (d_h,) = gelu_backward(d_g)
        return *linear1_backward(d_h), d_weight2, d_bias2

    return output, backward


def convolutional_mlp(
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    kernel: np.ndarray,
    kernel_bias: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
) -> tuple[np.ndarray, Any]:
    """A perceptron whose hidden units see their neighbors: output = W2 gelu(h + conv(h)) + b2, h = W1 x + b1.

    x: (B, H, W, C), weight1: (hidden, C), bias1: (hidden,), kernel: (hidden, 1, k, k), kernel_bias: (hidden,),
    weight2: (C, hidden), bias2: (C,) -> output: (B, H, W, C). Raises ShapeError if the layers do not fit.
    Source: DAT++, section 3.4.
    """
    h, linear1_backward = linear(x, weight1, bias1)
    local, local_backward = local_perception(h, kernel, kernel_bias)
    g, gelu_backward = gelu(local)
    output, linear2_backward = linear(g, weight2, bias2)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_g, d_weight2, d_bias2 = linear2_backward(d_output)
        d_h, d_kernel, d_kernel_bias = local_backward(*gelu_backward(d_g))
        return *linear1_backward(d_h), d_kernel, d_kernel_bias, d_weight2, d_bias2

    return output, backward


def residual(x: np.ndarray, branch: np.ndarray, factors: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """Add a branch to what it started from: output = x + factors * branch, one factor a channel (layer scale) or none.

    x: (..., C), branch: (..., C), factors: (C,) or None -> output: (..., C). Raises ShapeError for another branch.
    Source: DAT, Eq. 4 and 5; LayerScale, arXiv 2103.17239, Eq. 3.
    """
    check(branch.shape == x.shape, "residual", "branch", branch.shape, x.shape)
    if factors is None:
        return x + branch, lambda d_output: (d_output, d_output, None)
    scaled, scale_backward = scale_channels(branch, factors)
    return x + scaled, lambda d_output: (d_output, *scale_backward(d_output))
