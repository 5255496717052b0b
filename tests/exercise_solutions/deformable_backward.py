# minidat exercise: deformable_backward
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def deformable_attention(
    x: np.ndarray,
    positions: np.ndarray,
    query_weight: np.ndarray,
    key_weight: np.ndarray,
    value_weight: np.ndarray,
    output_weight: np.ndarray,
    *,
    heads: int,
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1], four weights (C, C), heads dividing C -> output, backward.

    backward: d_output (H, W, C) -> the gradients of x, positions and the four weights, in this order.
    """
    channels = x.shape[-1]
    tokens = x.reshape(-1, channels)  # (H * W, C)
    sampled, sample_backward = bilinear(x, positions)  # (N, C)
    query = tokens @ query_weight.T
    key = sampled @ key_weight.T
    value = sampled @ value_weight.T
    parts = [split_heads(part, heads) for part in (query, key, value)]
    mixed, attention_backward = attention(*parts, scale=1 / np.sqrt(channels // heads))
    merged = merge_heads(mixed)  # (H * W, C)
    output = (merged @ output_weight.T).reshape(x.shape)

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (H, W, C) -> d_x, d_positions, d_query_weight, d_key_weight, d_value_weight, d_output_weight."""
        d_rows = d_output.reshape(-1, channels)
        d_merged = d_rows @ output_weight
        parts = attention_backward(split_heads(d_merged, heads))
        d_query, d_key, d_value = (merge_heads(part) for part in parts)
        d_sampled = d_key @ key_weight + d_value @ value_weight
        d_x, d_positions = sample_backward(d_sampled)
        d_x = d_x + (d_query @ query_weight).reshape(x.shape)
        d_weights = d_query.T @ tokens, d_key.T @ sampled, d_value.T @ sampled, d_rows.T @ merged
        return d_x, d_positions, *d_weights

    return output, backward


# --- given ------------------------------------------------------------------------------------------------------------


def split_heads(tokens: np.ndarray, heads: int) -> np.ndarray:
    """(N, heads * d) -> (heads, N, d)."""
    return tokens.reshape(len(tokens), heads, -1).swapaxes(0, 1)


def merge_heads(tokens: np.ndarray) -> np.ndarray:
    """(heads, N, d) -> (N, heads * d)."""
    return tokens.swapaxes(0, 1).reshape(tokens.shape[1], -1)


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, *, scale: float) -> tuple[np.ndarray, Callable]:
    """query (heads, Q, d), key (heads, K, d), value (heads, K, d) -> output (heads, Q, d), backward.

    backward: d_output (heads, Q, d) -> d_query, d_key, d_value.
    """
    scores = scale * query @ key.swapaxes(-1, -2)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_p = d_output @ value.swapaxes(-1, -2)
        d_scores = scale * p * (d_p - (p * d_p).sum(axis=-1, keepdims=True))
        return d_scores @ key, d_scores.swapaxes(-1, -2) @ query, p.swapaxes(-1, -2) @ d_output

    return p @ value, backward


def bilinear(x: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, Callable]:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C), zeros outside of the map; backward.

    backward: d_output (N, C) -> d_x (H, W, C), d_positions (N, 2).
    """
    hats, slopes = [], []  # of rows (N, H) and columns (N, W), and their derivatives by the position
    for axis, size in enumerate(x.shape[:2]):
        distance = (positions[:, axis, None] + 1) / 2 * (size - 1) - np.arange(size)
        hats.append(np.maximum(0, 1 - np.abs(distance)))
        slopes.append(np.where(np.abs(distance) < 1, -np.sign(distance), 0) * (size - 1) / 2)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_x = np.einsum("ny,nx,nc->yxc", *hats, d_output)
        d_y = np.einsum("ny,nx,yxc,nc->n", slopes[0], hats[1], x, d_output)
        d_column = np.einsum("ny,nx,yxc,nc->n", hats[0], slopes[1], x, d_output)
        return d_x, np.stack([d_y, d_column], axis=-1)

    return np.einsum("ny,nx,yxc->nc", *hats, x), backward
