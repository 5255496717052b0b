# minidat exercise: batch_norm
"""Exercise: batch normalization (chapter 21, docs/pages/tutorial/21-upernet.md). Write two functions.

In training each channel is normalized by its mean and its variance over the whole batch, all n = B H W pixels of it:

    normalized = (x - mean) / std,     std = sqrt(variance + eps),     the variance being divided by n
    output = normalized * weight + bias

In inference there may be one picture only, so the network remembers: after each batch its mean and variance move, by a
part `momentum` of the way, toward those of the batch. The variance to move to is the unbiased one, divided by n - 1.

Check it with: minidat grade examples/exercises/batch_norm.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (B, H, W, C), weight (C,), bias (C,) -> output (B, H, W, C), backward.

    backward: d_output (B, H, W, C) -> d_x (B, H, W, C), d_weight (C,), d_bias (C,).
    """
    raise NotImplementedError


def update_statistics(
    x: np.ndarray, mean: np.ndarray, variance: np.ndarray, *, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, H, W, C), mean (C,) and variance (C,) so far -> new mean (C,), new variance (C,)."""
    raise NotImplementedError
