# minidat exercise: neighborhood
"""Exercise: neighborhoods (chapter 14, docs/pages/tutorial/14-datpp.md). Write which keys each query sees.

In neighborhood attention a query sees the kernel x kernel keys around it. At the border of the map the window does not
lose keys: it slides inward until it is inside. On an axis of n = 6 places with kernel = 3:

    place     0      1      2      3      4      5
    window   0 1 2  0 1 2  1 2 3  2 3 4  3 4 5  3 4 5

In two dimensions the keys are all pairs of a row and a column from the windows of y and of x, listed row by row. A key
is named by the number of its pixel: pixel (y, x) of the map is number y * W + x.

Hints
1. Begin with one axis. The window of place i would begin at i - kernel // 2; which beginnings are allowed?
2. An array of beginnings (n, 1) plus np.arange(kernel) gives all windows of an axis: (n, kernel).
3. For two axes, rows (H, 1, kernel, 1) and columns (1, W, 1, kernel) broadcast to (H, W, kernel, kernel).

Check it with: minidat grade examples/exercises/neighborhood.py
"""

import numpy as np


def neighborhood(height: int, width: int, *, kernel: int) -> np.ndarray:
    """height H and width W, at least the odd number kernel k -> indices (H, W, k * k), integers."""
    raise NotImplementedError
