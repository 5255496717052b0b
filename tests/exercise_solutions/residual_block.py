# minidat exercise: residual_block
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Backward = Callable[[np.ndarray], np.ndarray]
Layer = Callable[[np.ndarray], tuple[np.ndarray, Backward]]


def residual_block(
    x: np.ndarray, *, norm1: Layer, attention: Layer, norm2: Layer, mlp: Layer
) -> tuple[np.ndarray, Backward]:
    """x (N, C) -> output (N, C), backward."""
    normed, norm1_backward = norm1(x)
    branch, attention_backward = attention(normed)
    x = x + branch
    normed, norm2_backward = norm2(x)
    branch, mlp_backward = mlp(normed)
    output = x + branch

    def backward(d_output: np.ndarray) -> np.ndarray:
        """d_output (N, C) -> d_x (N, C), alone: a module's backward returns the gradient of its one input."""
        d_x = d_output + norm2_backward(mlp_backward(d_output))
        d_x = d_x + norm1_backward(attention_backward(d_x))
        return d_x

    return output, backward
