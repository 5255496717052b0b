# minidat exercise: linear
"""Exercise: the linear layer (chapter 2, docs/pages/tutorial/02-linear.md). Write the backward; the forward is given.

    output = x W^T + b          every row of x on its own

Given d_output, the gradient of the loss by the output, find those by x, by the weight and by the bias.

Check it with: minidat grade examples/exercises/linear.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (B, N, C), weight (D, C), bias (D,) -> output (B, N, D), backward."""
    output = x @ weight.T + bias

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (B, N, D) -> d_x (B, N, C), d_weight (D, C), d_bias (D,)."""
        raise NotImplementedError

    return output, backward
