# minidat exercise: bilinear
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C)."""
    height, width, channels = x.shape
    py = (positions[:, 0] + 1) / 2 * (height - 1)
    px = (positions[:, 1] + 1) / 2 * (width - 1)
    y0, x0 = np.floor(py), np.floor(px)
    fy, fx = py - y0, px - x0
    output = np.zeros((len(positions), channels))
    for dy, weight_y in ((0, 1 - fy), (1, fy)):
        for dx, weight_x in ((0, 1 - fx), (1, fx)):
            row, column = y0.astype(int) + dy, x0.astype(int) + dx
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            pixel = x[row.clip(0, height - 1), column.clip(0, width - 1)]
            output += (weight_y * weight_x * inside)[:, None] * pixel
    return output
