# minidat exercise: layer_norm
"""Exercise: layer norm (chapter 3, docs/pages/tutorial/03-layer-norm.md). Write the backward; the forward is given.

    normalized = (x - mean(x)) / std,   std = sqrt(variance(x) + eps)
    output = normalized * weight + bias

Mean and variance are those of each row of C channels. Given d_output, find the gradients by x, weight and bias.

Check it with: minidat grade examples/exercises/layer_norm.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

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
        raise NotImplementedError

    return output, backward
