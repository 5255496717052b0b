"""Neighborhood attention: every query attends to the kernel x kernel keys around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check
from .attention import attention, attention_probabilities


def neighborhood_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, kernel: int, scale: float
) -> tuple[np.ndarray, Any]:
    """Attend from every query to the kernel x kernel keys around it; at a border the window stays full, sliding inward.

    output[i] = sum_j softmax_j(scale * query[i] . key[j] + bias[j - i + kernel - 1]) value[j], over the `kernel` keys j
    from clip(i - kernel // 2, 0, n - kernel) on, along both axes (n is the map's length there).

    query: (B, H, W, heads, d), key: (B, H, W, heads, d), value: (B, H, W, heads, d), views of any strides,
    bias: (heads, 2 kernel - 1, 2 kernel - 1) -> output: (B, H, W, heads, d).
    Raises ShapeError for an even kernel, for H or W below kernel, and for shapes that do not fit each other.
    Source: arXiv 2204.07143, Eq. 1-4, with the borders of NATTEN 0.14.6.
    """
    check_neighborhood(query, key, value, bias, kernel)
    batch, height, width, heads, d = query.shape
    tokens = neighborhood_tokens(height, width, kernel=kernel)  # (Q, K, 2)
    entries = _table_entries(tokens, width, kernel)
    # 1. gather: each query's own keys, values and biases
    near = _gather(key, tokens), _gather(value, tokens)  # (B, Q, heads, K, d) each
    near_bias = bias[:, *entries].transpose(1, 0, 2)[..., None]  # (Q, heads, K, 1)
    # 2. attention of each query, alone, to its keys
    queries = query.reshape(batch, height * width, heads, 1, d)
    mixed, attention_backward = attention(queries, *near, near_bias, scale=scale)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        d_mixed = d_output.reshape(queries.shape)
        d_queries, *d_near, d_near_bias = attention_backward(d_mixed)  # 2
        d_key, d_value = (_scatter(d, tokens, key.shape) for d in d_near)  # 1
        d_bias = np.zeros_like(bias)
        places: Any = (slice(None), *entries)
        np.add.at(d_bias, places, d_near_bias[..., 0].swapaxes(0, 1))
        return d_queries.reshape(query.shape), d_key, d_value, d_bias

    return mixed.reshape(query.shape), backward


def _gather(x: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """What each query sees of a map: x (B, H, W, heads, d) at tokens (Q, K, 2) -> (B, Q, heads, K, d)."""
    return x[:, tokens[..., 0], tokens[..., 1]].swapaxes(2, 3)


def _scatter(d_near: np.ndarray, tokens: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of `_gather`: a key's gradient is the sum over all queries that see it."""
    d_x = np.zeros(shape, d_near.dtype)
    places = slice(None), tokens[..., 0], tokens[..., 1]
    np.add.at(d_x, places, d_near.swapaxes(2, 3))  # type: ignore[arg-type]  # an index as any other
    return d_x


def _table_entries(tokens: np.ndarray, width: int, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the bias table for each query and key, key - query + kernel - 1: (Q, K) each."""
    own_row, own_column = np.divmod(np.arange(len(tokens)), width)
    return tokens[..., 0] - own_row[:, None] + kernel - 1, tokens[..., 1] - own_column[:, None] + kernel - 1


def neighborhood_tokens(height: int, width: int, *, kernel: int) -> np.ndarray:
    """The tokens that `neighborhood_attention` lets each query of a map see: those of the window around it.

    -> (H W queries, kernel^2 keys, 2) of int, (row, column) of each, both in row-major order. Raises ShapeError for an
    even kernel and for a map that is smaller.
    """
    op = "neighborhood_tokens"
    check(kernel >= 1 and kernel % 2 == 1, op, "kernel", kernel, "an odd number")
    size = height, width
    check(min(size) >= kernel, op, "map", size, f"at least {kernel} x {kernel}")
    rows, columns = _window(height, kernel), _window(width, kernel)
    # each (H, W, kernel, kernel)
    grid = np.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :])
    return np.stack(grid, axis=-1).reshape(height * width, kernel * kernel, 2)


def _window(n: int, kernel: int) -> np.ndarray:
    """The keys of each query of an axis: (n, kernel)."""
    first = np.clip(np.arange(n) - kernel // 2, 0, n - kernel)
    return first[:, None] + np.arange(kernel)


def neighborhood_probabilities(
    query: np.ndarray, key: np.ndarray, bias: np.ndarray, *, kernel: int, scale: float
) -> np.ndarray:
    """What `neighborhood_attention` mixes the values with, for pictures.

    query: (B, H, W, heads, d), key: (B, H, W, heads, d), bias: (heads, 2 kernel - 1, 2 kernel - 1)
    -> output: (B, heads, kernel^2 keys, H W queries), the keys in the order of `neighborhood_tokens`.
    Raises ShapeError as `neighborhood_attention` does.
    """
    check_neighborhood(query, key, key, bias, kernel)
    batch, height, width, heads, d = query.shape
    tokens = neighborhood_tokens(height, width, kernel=kernel)
    near_bias = bias[:, *_table_entries(tokens, width, kernel)].transpose(1, 0, 2)[..., None]
    queries = query.reshape(batch, height * width, heads, 1, d)
    probabilities = attention_probabilities(queries, _gather(key, tokens), near_bias, scale=scale)
    return probabilities[..., 0].transpose(0, 2, 3, 1)  # from (B, Q, heads, K, 1)


def check_neighborhood(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, kernel: int) -> None:
    """Raise ShapeError unless the arguments of `neighborhood_attention` fit each other."""
    op = "neighborhood_attention"
    check(kernel >= 1 and kernel % 2 == 1, op, "kernel", kernel, "an odd number")
    check(query.ndim == 5, op, "query", query.shape, "(batch, height, width, heads, d)")
    check(min(query.shape[1:3]) >= kernel, op, "query", query.shape, f"a map of at least {kernel} x {kernel} (pad it)")
    check(key.shape == query.shape, op, "key", key.shape, f"{query.shape}, the shape of query")
    check(value.shape == query.shape, op, "value", value.shape, f"{query.shape}, the shape of query")
    table = (query.shape[3], 2 * kernel - 1, 2 * kernel - 1)
    check(bias.shape == table, op, "bias", bias.shape, f"{table}: (heads, 2 kernel - 1, 2 kernel - 1)")
