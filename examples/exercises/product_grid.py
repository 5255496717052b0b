# minidat exercise: product_grid
"""Exercise: a table sampled on product grids (chapter 10, docs/pages/tutorial/10-position-bias.md). Write the forward.

The position bias of deformable attention reads a table (R, C) between its entries, once for every query and key. Seen
from one key k the queries form a grid: each of the rows rows[k, i] meets each of the columns columns[k, j]. So the
bilinear samples need no gathering, only two "hat" matrices, with hat(t) = max(0, 1 - |t|):

    output[k, i, j] = sum over r, c of  hat(rows[k, i] - r) * table[r, c] * hat(columns[k, j] - c)

rows and columns are in entries of the table already; outside of it there are zeros.

Check it with: minidat grade examples/exercises/product_grid.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def sample_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table (R, C), rows (K, Qy), columns (K, Qx), in entries of the table -> output (K, Qy, Qx)."""
    raise NotImplementedError
