# minidat exercise: linear
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (B, N, C), weight (D, C), bias (D,) -> output (B, N, D), backward."""
    output = x @ weight.T + bias

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (B, N, D) -> d_x (B, N, C), d_weight (D, C), d_bias (D,)."""
        rows, d_rows = x.reshape(-1, x.shape[-1]), d_output.reshape(-1, len(weight))
        d_x = d_output @ weight
        d_weight = d_rows.T @ rows
        d_bias = d_rows.sum(axis=0)
        return d_x, d_weight, d_bias

    return output, backward
