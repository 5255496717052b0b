# minidat exercise: residual_block
"""Exercise: a block of the network (chapter 11, docs/pages/tutorial/11-network.md). Write the backward.

A block has two branches, each with a norm in front, and each added to what it came from:

    x = x + attention(norm1(x))
    x = x + mlp(norm2(x))

The four parts are given as functions that return (output, backward), and their backwards take the gradient of their
output and return that of their input. You need not know what is inside.

Check it with: minidat grade examples/exercises/residual_block.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

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
        raise NotImplementedError

    return output, backward
