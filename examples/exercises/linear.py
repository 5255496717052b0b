# minidat exercise: linear
"""Exercise: the linear layer (chapter 2, docs/pages/tutorial/02-linear.md). Write the backward; the forward is given.

    output = x W^T + b          every row of x on its own

Given d_output, the gradient of the loss by the output, find those by x, by the weight and by the bias.

Hints
1. Begin with one row: output[d] = sum over c of weight[d, c] * x[c], plus bias[d]. What is the derivative of
   output[d] by x[c]? By weight[d, c]? By bias[d]?
2. By the chain rule, the gradient of x[c] collects d_output[d] times that derivative over all d: a matrix product.
3. One weight serves all rows, those of all B images: its gradient is a sum over all of them. So is that of the bias.
4. A gradient has the shape of the array it belongs to. If a product does not give that shape, it is the wrong product.

Check it with: minidat grade examples/exercises/linear.py
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
