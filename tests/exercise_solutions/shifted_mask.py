# minidat exercise: shifted_mask
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def shifted_window_mask(height: int, width: int, *, window: int, shift: int) -> np.ndarray:
    """height H and width W of the map, multiples of the window w; 0 < shift < w -> mask (H/w * W/w, w * w, w * w)."""

    def regions(size: int) -> np.ndarray:
        line = np.zeros(size)
        line[-window:-shift] = 1
        line[-shift:] = 2
        return line

    numbers = 3 * regions(height)[:, None] + regions(width)
    numbers = numbers.reshape(height // window, window, width // window, window)
    numbers = numbers.swapaxes(1, 2).reshape(-1, window * window)
    return np.where(numbers[:, :, None] == numbers[:, None, :], 0.0, -100.0)
