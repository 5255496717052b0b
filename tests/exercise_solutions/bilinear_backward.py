# minidat exercise: bilinear_backward
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray]


def bilinear(x: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C), backward."""
    height, width, channels = x.shape
    py = (positions[:, 0] + 1) / 2 * (height - 1)
    px = (positions[:, 1] + 1) / 2 * (width - 1)
    y0, x0 = np.floor(py).astype(int), np.floor(px).astype(int)
    fy, fx = py - y0, px - x0

    corners = []  # (rows, columns, inside, weight_y, weight_x, slope_y, slope_x), the slopes being -1 or 1
    output = np.zeros((len(positions), channels))
    for dy, weight_y, slope_y in ((0, 1 - fy, -1), (1, fy, 1)):
        for dx, weight_x, slope_x in ((0, 1 - fx, -1), (1, fx, 1)):
            rows, columns = y0 + dy, x0 + dx
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)  # where they are not, they weigh 0
            output += (weight_y * weight_x * inside)[:, None] * x[rows, columns]
            corners.append((rows, columns, inside, weight_y, weight_x, slope_y, slope_x))

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (N, C) -> d_x (H, W, C), d_positions (N, 2)."""
        d_x = np.zeros_like(x)
        d_positions = np.zeros_like(positions)
        for rows, columns, inside, weight_y, weight_x, slope_y, slope_x in corners:
            np.add.at(d_x, (rows, columns), (weight_y * weight_x * inside)[:, None] * d_output)
            agreement = (d_output * x[rows, columns]).sum(axis=1) * inside
            d_positions[:, 0] += agreement * slope_y * weight_x
            d_positions[:, 1] += agreement * slope_x * weight_y
        d_positions *= np.array([height - 1, width - 1]) / 2
        return d_x, d_positions

    return output, backward
