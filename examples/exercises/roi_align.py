# minidat exercise: roi_align
"""Exercise: RoIAlign (chapter 20, docs/pages/tutorial/20-regions.md). Write the forward and the backward by the map.

Each box is cut out of the map, whatever its size, and becomes size x size numbers a channel. The box is divided into
size x size equal bins. A bin of h x w pixels has ceil(h) x ceil(w) samples, in the centers of as many equal parts; its
output is the mean of the map there, read between the pixels as bilinear sampling does.

Boxes are (x1, y1, x2, y2) in pixels and lie inside the map, of which the first pixel reaches from 0 to 1. So its center
is at 0.5, and the bilinear place of a sample is its coordinate minus 0.5. A place beyond the center of a border pixel
takes the border's value.

Check it with: minidat grade examples/exercises/roi_align.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np


def roi_align(
    x: np.ndarray, boxes: np.ndarray, *, size: int
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    """x (H, W, C), boxes (N, 4) -> output (N, size, size, C), backward.

    backward: d_output (N, size, size, C) -> (d_x,) with d_x (H, W, C). Boxes get no gradient.
    """
    raise NotImplementedError
