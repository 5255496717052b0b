# minidat exercise: softmax
"""Exercise: softmax (chapter 4, docs/pages/tutorial/04-attention.md). Write the backward; the forward is given.

    p[k] = exp(x[k]) / sum over j of exp(x[j])          each row on its own

Given d_output, the gradient by p, find the gradient by x.

Hints
1. The derivative of p[k] by x[j] is p[k] (1 - p[k]) for j = k, and - p[k] p[j] for j != k: a score raises its own
   probability and lowers all others.
2. Sum d_output[k] times that derivative over k. The result needs no K x K matrix:

       d_x = p * (d_output - sum(p * d_output))

   with the sum over the row.
3. A check of your own: softmax(x + 1) = softmax(x), so the numbers of each row of d_x must add up to 0.

Check it with: minidat grade examples/exercises/softmax.py
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
