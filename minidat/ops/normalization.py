"""Layer normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float = 1e-5) -> tuple[np.ndarray, Any]:
    """Standardize the last axis, then scale and shift it: output = (x - mean) / sqrt(variance + eps) * w + b.

    The variance is the biased one (divided by C). x: (..., C), weight: (C,), bias: (C,) -> output: (..., C).
    Raises ShapeError if the last axis of x is not C. Source: arXiv 1607.06450, Eq. 4; torch.nn.LayerNorm.
    """
    check_layer_norm(x, weight, bias)
    centered = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + eps)
    normalized = centered / std

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = d_output * weight
        projection = (g * normalized).mean(axis=-1, keepdims=True)
        d_x = (g - g.mean(axis=-1, keepdims=True) - normalized * projection) / std
        rows = tuple(range(x.ndim - 1))  # all axes but the last
        return d_x, (d_output * normalized).sum(axis=rows), d_output.sum(axis=rows)

    return normalized * weight + bias, backward


def check_layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> None:
    """Raise ShapeError unless the arguments of `layer_norm` fit each other."""
    check(x.shape[-1:] == weight.shape, "layer_norm", "last axis of x", x.shape, f"(..., {weight.shape[0]})")
    check(bias.shape == weight.shape, "layer_norm", "bias", bias.shape, weight.shape)
