# minidat exercise: attention
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, *, scale: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """query (heads, Q, d), key (heads, K, d), value (heads, K, d) -> output (heads, Q, d), backward.

    backward: d_output (heads, Q, d) -> d_query, d_key, d_value, each of its argument's shape.
    """
    scores = scale * query @ key.swapaxes(-1, -2)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)
    output = p @ value

    def backward(d_output: np.ndarray) -> Gradients:
        d_value = p.swapaxes(-1, -2) @ d_output
        d_p = d_output @ value.swapaxes(-1, -2)
        d_scores = p * (d_p - (p * d_p).sum(axis=-1, keepdims=True))
        d_query = scale * d_scores @ key
        d_key = scale * d_scores.swapaxes(-1, -2) @ query
        return d_query, d_key, d_value

    return output, backward
