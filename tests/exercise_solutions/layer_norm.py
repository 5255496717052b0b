# minidat exercise: layer_norm
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (N, C), weight (C,), bias (C,) -> output (N, C), backward."""
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)  # (N, 1)
    normalized = (x - x.mean(axis=-1, keepdims=True)) / std
    output = normalized * weight + bias

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (N, C) -> d_x (N, C), d_weight (C,), d_bias (C,)."""
        g = d_output * weight
        d_x = g - g.mean(axis=-1, keepdims=True)
        d_x -= normalized * (g * normalized).mean(axis=-1, keepdims=True)
        d_x /= std
        d_weight = (d_output * normalized).sum(axis=0)
        d_bias = d_output.sum(axis=0)
        return d_x, d_weight, d_bias

    return output, backward
