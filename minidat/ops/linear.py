"""The linear layer and the per-channel factor: what mixes channels at one place."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """Map the last axis of x by a matrix: output = x W^T + b.

    x: (..., C), weight: (D, C), bias: (D,) or None -> output: (..., D).
    Raises ShapeError if the last axis of x is not C. Source: DAT, Eq. 1 and 3 (its W_q, W_k, W_v; W_o).
    """
    check_linear(x, weight, bias)
    output = x @ weight.T if bias is None else x @ weight.T + bias

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        rows = x.reshape(-1, x.shape[-1])  # (N, C)
        d_rows = d_output.reshape(-1, len(weight))  # (N, D)
        d_bias = None if bias is None else d_rows.sum(axis=0)
        return d_output @ weight, d_rows.T @ rows, d_bias

    return output, backward


def check_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Raise ShapeError unless the arguments of `linear` fit each other."""
    check(x.shape[-1] == weight.shape[1], "linear", "last axis of x", x.shape, f"(..., {weight.shape[1]})")
    if bias is not None:
        check(bias.shape == weight.shape[:1], "linear", "bias", bias.shape, weight.shape[:1])


def scale_channels(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """Multiply each channel by its own factor: output = x * w.

    x: (..., C), weight: (C,) -> output: (..., C). Raises ShapeError if the last axis of x is not C.
    Source: LayerScale, arXiv 2103.17239, Eq. 3.
    """
    check(x.shape[-1:] == weight.shape, "scale_channels", "last axis of x", x.shape, f"(..., {weight.shape[0]})")

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_weight = np.einsum("nc,nc->c", d_output.reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1]))
        return d_output * weight, d_weight

    return x * weight, backward
