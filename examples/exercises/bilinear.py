# minidat exercise: bilinear
"""Exercise: bilinear sampling (chapter 7, docs/pages/tutorial/07-bilinear-sampling.md). Write the forward.

A map is read at points between its pixels. A position (y, x) has coordinates in [-1, 1]: -1 is the center of the first
pixel of the axis, 1 that of the last. In pixels that is

    p = (position + 1) / 2 * (n - 1)            n = H for y, W for x

The four pixels around p have weights that fall from 1 to 0 with the distance: with the fraction f = p - floor(p), the
lower pixel has 1 - f and the upper one f, and the weight of a corner is the product of those of y and x. Pixels outside
of the map count as zeros.

Hints
1. For each of the four corners (dy, dx) of 0 and 1: the pixel is (floor(py) + dy, floor(px) + dx).
2. x[rows, columns] with two arrays of N integers gives N pixels, (N, C). Weights (N,) need another axis: w[:, None].
3. For a pixel outside, clip its index, so that it can be read, and set its weight to 0.

Check it with: minidat grade examples/exercises/bilinear.py
"""

import numpy as np


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C)."""
    raise NotImplementedError
