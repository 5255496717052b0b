# minidat exercise: neighborhood
"""Exercise: neighborhoods (chapter 14, docs/pages/tutorial/14-datpp.md). Write which keys each query sees.

In neighborhood attention a query sees the kernel x kernel keys around it. At the border of the map the window does not
lose keys: it slides inward until it is inside. On an axis of n = 6 places with kernel = 3:

    place     0      1      2      3      4      5
    window   0 1 2  0 1 2  1 2 3  2 3 4  3 4 5  3 4 5

In two dimensions the keys are all pairs of a row and a column from the windows of y and of x, listed row by row. A key
is named by the number of its pixel: pixel (y, x) of the map is number y * W + x.

Check it with: minidat grade examples/exercises/neighborhood.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def neighborhood(height: int, width: int, *, kernel: int) -> np.ndarray:
    """height H and width W, at least the odd number kernel k -> indices (H, W, k * k), integers."""
    raise NotImplementedError
