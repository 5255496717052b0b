# minidat exercise: softmax
"""Exercise: softmax (chapter 4, docs/pages/tutorial/04-attention.md). Write the backward; the forward is given.

    p[k] = exp(x[k]) / sum over j of exp(x[j])          each row on its own

Given d_output, the gradient by p, find the gradient by x.

Check it with: minidat grade examples/exercises/softmax.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np


def softmax(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    """x (N, K) -> p (N, K), whose rows have the sum 1, and backward."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        """d_output (N, K) -> (d_x,) with d_x (N, K). Return a tuple, as every backward does: `return (d_x,)`."""
        raise NotImplementedError

    return p, backward
