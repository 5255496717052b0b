"""Batch normalization, alone and between a convolution and a ReLU, where it usually stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check
from .activation import relu
from .convolution import conv2d

Statistics = tuple[np.ndarray, np.ndarray]


def check_batch_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, statistics: Statistics | None) -> None:
    """Raise ShapeError unless the shapes fit and, without statistics, there are two values a channel."""
    check(x.shape[-1:] == weight.shape, "batch_norm", "last axis of x", x.shape, f"(..., {weight.shape[0]})")
    check(bias.shape == weight.shape, "batch_norm", "bias", bias.shape, weight.shape)
    values = x.size // max(1, x.shape[-1])
    check(values > 1 or statistics is not None, "batch_norm", "values of a channel", values, "at least 2 in training")


def batch_statistics(x: np.ndarray) -> Statistics:
    """Mean and variance of each channel over all pixels of all images, the variance being the biased one.

    x: (..., C) -> mean: (C,), variance: (C,). Raises ShapeError for fewer than two values a channel: standardized by
    themselves they would all be zero.
    """
    pixels = x.reshape(-1, x.shape[-1])
    check(len(pixels) > 1, "batch_norm", "values of a channel", len(pixels), "at least 2 in training")
    return pixels.mean(axis=0), pixels.var(axis=0)


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, statistics: Statistics | None = None, eps: float = 1e-5
) -> tuple[np.ndarray, Any]:
    """Standardize each channel, then scale and shift it: output = (x - mean) / sqrt(variance + eps) * w + b.

    In training mean and variance are the batch's (`batch_statistics`), and move with x. In inference they are fixed,
    `statistics` = (mean, variance), each (C,). x: (..., C), weight: (C,), bias: (C,) -> output: (..., C).
    Raises ShapeError if the last axis of x is not C, or without statistics for fewer than two values a channel.
    Source: arXiv 1502.03167, algorithms 1 and 2; torch.nn.functional.batch_norm.
    """
    check_batch_norm(x, weight, bias, statistics)
    mean, variance = batch_statistics(x) if statistics is None else statistics
    inverse_std = 1 / np.sqrt(variance + x.dtype.type(eps))
    normalized = (x - mean) * inverse_std
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_weight, d_bias = (d_output * normalized).sum(axes), d_output.sum(axes)
        if statistics is not None:
            return d_output * (weight * inverse_std), d_weight, d_bias
        # each x also moves the mean and the variance:
        # d_x = (d - mean(d) - normalized mean(d normalized)) w / std
        d_centered = d_output - d_bias / count - normalized * (d_weight / count)
        return d_centered * (weight * inverse_std), d_weight, d_bias

    return normalized * weight + bias, backward


def conv_norm_relu(
    x: np.ndarray,
    weight: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    *,
    statistics: Statistics,
    padding: int = 0,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Any]:
    """A convolution without bias, batch normalization by fixed statistics, ReLU: relu(batch_norm(conv2d(x, w))).

    With its statistics fixed the norm is a factor and a shift a channel, s = norm_weight / sqrt(variance + eps), so
    that it can be folded: the same as a convolution with the weight s w and the bias norm_bias - s mean.
    x: (B, H, W, C), weight: (D, C, kh, kw), norm_weight: (D,), norm_bias: (D,), statistics: mean and variance, each
    (D,) -> output: (B, H', W', D). Source: `conv2d`, `batch_norm`, `relu`.
    """
    convolved, conv_backward = conv2d(x, weight, None, padding=padding)
    normalized, norm_backward = batch_norm(convolved, norm_weight, norm_bias, statistics=statistics, eps=eps)
    output, relu_backward = relu(normalized)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        d_convolved, d_norm_weight, d_norm_bias = norm_backward(*relu_backward(d_output))
        d_x, d_weight, _ = conv_backward(d_convolved)
        return d_x, d_weight, d_norm_weight, d_norm_bias

    return output, backward
