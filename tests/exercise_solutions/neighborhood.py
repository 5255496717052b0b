# minidat exercise: neighborhood
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def neighborhood(height: int, width: int, *, kernel: int) -> np.ndarray:
    """height H and width W, at least the odd number kernel k -> indices (H, W, k * k), integers."""

    def windows(size: int) -> np.ndarray:
        first = np.clip(np.arange(size) - kernel // 2, 0, size - kernel)
        return first[:, None] + np.arange(kernel)

    rows = windows(height)[:, None, :, None]
    columns = windows(width)[None, :, None, :]
    return (rows * width + columns).reshape(height, width, kernel * kernel)
