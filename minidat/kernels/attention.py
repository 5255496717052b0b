"""Attention a few heads at a time, so that their scores never leave the cache.

The softmax works in place; its backward takes sum_k p d_p from the output, since that equals output . d_output. Without
`keep` no array of all scores exists.

On one core it takes as long as the textbook (1.03 times in dat_tiny, one image of 224 pixels: `minidat bench dat_tiny
--plain --threads 1`); it gains the memory of the scores, and two cores share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..ops._shapes import unbroadcast
from ..ops.attention import check_attention
from ..runtime.threads import CACHE_FLOATS, SHARES, empty, parallel


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    bias: np.ndarray | None,
    *,
    scale: float,
    keep: bool = True,
) -> tuple[np.ndarray, Any]:
    """`ops.attention`; with `keep` false there is no backward (None)."""
    check_attention(query, key, value, bias)
    leading, queries, keys = query.shape[:-2], query.shape[-2], key.shape[-2]
    scores_shape = (*leading, keys, queries)
    full_bias = None if bias is None else np.broadcast_to(bias, scores_shape)
    probabilities = np.empty(scores_shape, query.dtype) if keep else None
    # tokens first in memory, then heads: the caller merges the heads without a copy
    output = empty((*leading[:-1], queries, leading[-1], value.shape[-1]), query.dtype).swapaxes(-3, -2)
    blocks = list(_blocks(leading, keys * queries))

    def work(start: int, stop: int) -> None:
        for block in blocks[start:stop]:
            scaled = key[block] * key.dtype.type(scale)  # rather than the queries, which may be many more
            out = None if probabilities is None else probabilities[block]
            scores = np.matmul(scaled, query[block].swapaxes(-1, -2), out=out)
            if full_bias is not None:
                scores += full_bias[block]
            _softmax_over_keys(scores)
            np.matmul(scores.swapaxes(-1, -2), value[block], out=output[block])

    parallel(work, len(blocks))
    if probabilities is None:
        return output, None
    bias_shape = None if bias is None else bias.shape

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        d_query = np.empty_like(query)
        d_key = np.empty_like(key)
        d_value = np.empty_like(value)
        d_scores = np.empty_like(probabilities)

        def work(start: int, stop: int) -> None:
            for block in blocks[start:stop]:
                p = probabilities[block]
                np.matmul(p, d_output[block], out=d_value[block])
                d_s = np.matmul(
                    value[block], d_output[block].swapaxes(-1, -2), out=d_scores[block]
                )  # d p, to begin with
                # d_s = p (d_p - sum over keys of p d_p); that sum is output . d_output, without another (K, Q) array
                d_s -= np.einsum("...qd,...qd->...q", output[block], d_output[block])[..., None, :]
                d_s *= p
                np.matmul(d_s.swapaxes(-1, -2), key[block], out=d_query[block])
                np.matmul(d_s, query[block], out=d_key[block])

        parallel(work, len(blocks))
        d_query *= query.dtype.type(scale)
        d_key *= query.dtype.type(scale)
        return d_query, d_key, d_value, None if bias_shape is None else unbroadcast(d_scores, bias_shape)

    return output, backward


def _softmax_over_keys(scores: np.ndarray) -> None:
    """scores (..., K, Q) become probabilities over K, in place."""
    scores -= scores.max(axis=-2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-2, keepdims=True)


def _blocks(leading: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Index tuples that cut the leading axes into blocks whose scores, `size` a (K, Q) matrix, fit in the cache.

    Along an axis the blocks are of one size, give or take 1.
    """
    room = max(1, CACHE_FLOATS // size)
    slices: list[list[slice]] = []
    for length in reversed(leading):
        parts = -(-length // min(length, room))
        if parts > 1 or not slices:
            parts = min(length, -(-parts // SHARES) * SHARES)
        slices.append([slice(length * i // parts, length * (i + 1) // parts) for i in range(parts)])
        room = max(1, room // length)
    yield from product(*reversed(slices))
