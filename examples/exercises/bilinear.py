# minidat exercise: bilinear
"""Exercise: bilinear sampling (chapter 7, docs/pages/tutorial/07-bilinear-sampling.md). Write the forward.

A map is read at points between its pixels. A position (y, x) has coordinates in [-1, 1]: -1 is the center of the first
pixel of the axis, 1 that of the last. In pixels that is

    p = (position + 1) / 2 * (n - 1)            n = H for y, W for x

The four pixels around p have weights that fall from 1 to 0 with the distance: with the fraction f = p - floor(p), the
lower pixel has 1 - f and the upper one f, and the weight of a corner is the product of those of y and x. Pixels outside
of the map count as zeros.

Check it with: minidat grade examples/exercises/bilinear.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C)."""
    raise NotImplementedError
