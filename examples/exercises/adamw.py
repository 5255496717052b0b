# minidat exercise: adamw
"""Exercise: AdamW (chapter 13, docs/pages/tutorial/13-training.md). Write one step.

AdamW keeps two running means for each weight, of its gradient and of the gradient's square:

    mean   = beta1 * mean   + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient^2

Both start at 0, and are too small in the first steps. For use they are corrected, in step t = 1, 2, ...:

    mean / (1 - beta1^t),        square / (1 - beta2^t)

Then the weight shrinks a little, and moves:

    weight = weight - learning_rate * weight_decay * weight
    weight = weight - learning_rate * corrected mean / (sqrt(corrected square) + eps)

Check it with: minidat grade examples/exercises/adamw.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

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
    raise NotImplementedError
