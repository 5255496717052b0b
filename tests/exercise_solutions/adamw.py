# minidat exercise: adamw
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def adamw_step(
    weight: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    *,
    step: int,
    learning_rate: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weight, gradient, mean and square of one shape, step t >= 1 -> new weight, new mean, new square."""
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    corrected_mean = mean / (1 - beta1**step)
    corrected_square = square / (1 - beta2**step)
    weight = weight - learning_rate * weight_decay * weight
    weight = weight - learning_rate * corrected_mean / (np.sqrt(corrected_square) + eps)
    return weight, mean, square
