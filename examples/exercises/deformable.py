# minidat exercise: deformable
"""Exercise: deformable attention (chapter 9, docs/pages/tutorial/09-deformable-attention.md). Write the forward.

One image, one group of points, the positions already known (the exercise before this one makes them):

    sampled = x read at the positions                           (N, C)
    query   = every pixel of x  times  query_weight^T           (H * W, C)
    key     = sampled  times  key_weight^T                      (N, C)
    value   = sampled  times  value_weight^T                    (N, C)
    output  = attention(query, key, value)  times  output_weight^T

Attention works in heads: head 0 has the first d = C / heads channels of query, key and value, head 1 the next d, and so
on. Scores are divided by sqrt(d). At the end the heads' channels lie side by side again.

Check it with: minidat grade examples/exercises/deformable.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def deformable_attention(
    x: np.ndarray,
    positions: np.ndarray,
    query_weight: np.ndarray,
    key_weight: np.ndarray,
    value_weight: np.ndarray,
    output_weight: np.ndarray,
    *,
    heads: int,
) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1], four weights (C, C), heads dividing C -> output (H, W, C)."""
    raise NotImplementedError


# --- given ------------------------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """scores (..., K) -> probabilities (..., K), of sum 1 along the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C); zeros outside of the map."""
    sizes = np.array(x.shape[:2])
    pixels = (positions + 1) / 2 * (sizes - 1)  # (N, 2)
    rows, columns = (np.maximum(0, 1 - np.abs(pixels[:, axis, None] - np.arange(sizes[axis]))) for axis in (0, 1))
    return np.einsum("ny,nx,yxc->nc", rows, columns, x)
