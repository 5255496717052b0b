# minidat exercise: shifted_mask
"""Exercise: the mask of shifted windows (chapter 6, docs/pages/tutorial/06-shifted-windows.md). Write the mask.

Before a shifted window block cuts its map into windows, it rolls the map up and to the left by `shift`. The first rows
come to the end, and so do the first columns. Windows there hold tokens that were never neighbors. On each axis of the
rolled map there are up to three regions,

    [0, n - w)        [n - w, n - shift)        [n - shift, n)
    whole windows     rest of the last window   rolled around

and two tokens of a window may look at each other only if they come from the same region, on both axes. The mask is
added to their score: 0 if they may, -100 if they may not.

Check it with: minidat grade examples/exercises/shifted_mask.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def shifted_window_mask(height: int, width: int, *, window: int, shift: int) -> np.ndarray:
    """height H and width W of the map, multiples of the window w; 0 < shift < w -> mask (H/w * W/w, w * w, w * w)."""
    raise NotImplementedError
