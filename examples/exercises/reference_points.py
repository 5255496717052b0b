# minidat exercise: reference_points
"""Exercise: reference points and offsets (chapter 8, docs/pages/tutorial/08-reference-points.md). Write two functions.

Deformable attention looks at points of a regular grid, each moved a little. The grid divides [-1, 1] x [-1, 1] into
H x W equal cells; its points are their centers, (y, x):

    points[i, j] = ((i + 0.5) / H * 2 - 1,  (j + 0.5) / W * 2 - 1)

The network predicts an offset for each point, any two numbers. A tanh brings them into (-1, 1), and range_factor, which
is counted in half cells, says how far that is:

    positions = points + tanh(offsets) * range_factor / (H, W)

Check it with: minidat grade examples/exercises/reference_points.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def reference_points(height: int, width: int) -> np.ndarray:
    """height H, width W -> points (H, W, 2) as (y, x) in [-1, 1]."""
    raise NotImplementedError


def sampling_points(offsets: np.ndarray, *, range_factor: float) -> np.ndarray:
    """offsets (H, W, 2), any numbers -> positions (H, W, 2) as (y, x)."""
    raise NotImplementedError
