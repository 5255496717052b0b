# minidat exercise: windows
"""Exercise: windows (chapter 5, docs/pages/tutorial/05-windows.md). Write two functions, one the inverse of the other.

`window_partition` cuts a map into windows of w x w tokens. The windows are listed row by row, as one reads: all those
of the first image, then those of the second. So are the tokens of each window. For a map of 4 x 4 tokens and w = 2:

     0  1 |  2  3
     4  5 |  6  7           windows[0] =  0  1  4  5
    ------+------           windows[1] =  2  3  6  7
     8  9 | 10 11           windows[2] =  8  9 12 13
    12 13 | 14 15           windows[3] = 10 11 14 15

`window_reverse` puts them back. Both are a reshape, a swap of two axes, and a reshape.

Check it with: minidat grade examples/exercises/windows.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def window_partition(x: np.ndarray, *, window: int) -> np.ndarray:
    """x (B, H, W, C), window w dividing H and W -> windows (B * H/w * W/w, w * w, C)."""
    raise NotImplementedError


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    """windows (B * H/w * W/w, w * w, C) -> x (B, H, W, C)."""
    raise NotImplementedError
