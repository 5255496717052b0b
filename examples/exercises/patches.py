# minidat exercise: patches
"""Exercise: patch embedding (chapter 1, docs/pages/tutorial/01-patches.md). Write the forward.

An image becomes tokens: it is cut into patches of p x p pixels, and the p * p * C numbers of each patch are multiplied
by a matrix with one row for each of the D features of a token.

    output[b, i, j, d] = bias[d] + sum over y, x, c of  images[b, i p + y, j p + x, c] * weight[d, c, y, x]

Do it without a loop over pixels, patches or features: a reshape, a change of axes, and one matrix product.

Check it with: minidat grade examples/exercises/patches.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def patch_embedding(images: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, patch: int) -> np.ndarray:
    """images (B, H, W, C), weight (D, C, p, p), bias (D,), patch p dividing H and W -> tokens (B, H/p, W/p, D)."""
    raise NotImplementedError
