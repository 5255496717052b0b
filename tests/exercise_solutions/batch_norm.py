# minidat exercise: batch_norm
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (B, H, W, C), weight (C,), bias (C,) -> output (B, H, W, C), backward.

    backward: d_output (B, H, W, C) -> d_x (B, H, W, C), d_weight (C,), d_bias (C,).
    """
    pixels = (0, 1, 2)
    std = np.sqrt(x.var(axis=pixels) + eps)
    normalized = (x - x.mean(axis=pixels)) / std

    def backward(d_output: np.ndarray) -> Gradients:
        g = d_output * weight
        d_x = g - g.mean(axis=pixels)
        d_x -= normalized * (g * normalized).mean(axis=pixels)
        d_x /= std
        return d_x, (d_output * normalized).sum(axis=pixels), d_output.sum(axis=pixels)

    return normalized * weight + bias, backward


def update_statistics(
    x: np.ndarray, mean: np.ndarray, variance: np.ndarray, *, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, H, W, C), mean (C,) and variance (C,) so far -> new mean (C,), new variance (C,)."""
    new_mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 1, 2))
    new_variance = (1 - momentum) * variance + momentum * x.var(axis=(0, 1, 2), ddof=1)
    return new_mean, new_variance
