# minidat exercise: patches
"""Exercise: patch embedding (chapter 1, docs/pages/tutorial/01-patches.md). Write the forward.

An image becomes tokens: it is cut into patches of p x p pixels, and the p * p * C numbers of each patch are multiplied
by a matrix with one row for each of the D features of a token.

    output[b, i, j, d] = bias[d] + sum over y, x, c of  images[b, i p + y, j p + x, c] * weight[d, c, y, x]

Do it without a loop over pixels, patches or features: a reshape, a change of axes, and one matrix product.

Hints
1. images.reshape(B, H // p, p, W // p, p, C) has an axis for each of: image, row of patches, row in the patch, column
   of patches, column in the patch, channel. Bring the two axes of a patch side by side with transpose or swapaxes.
2. The weight has the order (D, C, y, x), as in PyTorch. The numbers of your patches and those of the weight must be in
   the same order before both are flattened.
3. Try it with p = 1 first: then it is a matrix product of the channels and nothing else.

Check it with: minidat grade examples/exercises/patches.py
"""

import numpy as np


def patch_embedding(images: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, patch: int) -> np.ndarray:
    """images (B, H, W, C), weight (D, C, p, p), bias (D,), patch p dividing H and W -> tokens (B, H/p, W/p, D)."""
    raise NotImplementedError
