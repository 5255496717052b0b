# minidat exercise: bilinear_backward
"""Exercise: the two gradients of bilinear sampling (chapter 7, docs/pages/tutorial/07-bilinear-sampling.md).

Write the backward; the forward is given. Every sample is

    output[n] = sum over four corners of  weight_y * weight_x * x[row, column]

It depends on the map, which is easy, and on the positions, through the weights: that is how a network learns where to
look.

Check it with: minidat grade examples/exercises/bilinear_backward.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

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
        raise NotImplementedError

    return output, backward
