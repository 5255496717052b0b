# minidat exercise: deformable
"""The reference solution of this exercise; the task is in examples/exercises."""

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
    height, width, channels = x.shape
    sampled = bilinear(x, positions)
    query = x.reshape(-1, channels) @ query_weight.T
    key = sampled @ key_weight.T
    value = sampled @ value_weight.T

    def split(tokens: np.ndarray) -> np.ndarray:
        return tokens.reshape(len(tokens), heads, channels // heads).swapaxes(0, 1)

    query, key, value = split(query), split(key), split(value)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(channels // heads)
    mixed = softmax(scores) @ value  # (heads, H * W, d)
    merged = mixed.swapaxes(0, 1).reshape(height, width, channels)
    return merged @ output_weight.T


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
