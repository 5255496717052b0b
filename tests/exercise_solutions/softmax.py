# minidat exercise: softmax
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np


def softmax(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    """x (N, K) -> p (N, K), whose rows have the sum 1, and backward."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        """d_output (N, K) -> (d_x,) with d_x (N, K). Return a tuple, as every backward does: `return (d_x,)`."""
        d_x = p * (d_output - (p * d_output).sum(axis=-1, keepdims=True))
        return (d_x,)

    return p, backward
