"""Scaled dot-product attention with an additive bias, the heart of every block.

Scores are kept *keys-first*, (..., K, Q): NumPy reduces over a leading axis several times faster than over the last
one, and the bias of deformable attention comes out in that order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..runtime.threads import CACHE_FLOATS, empty, parallel, thread_count
from ._shapes import check, unbroadcast


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    bias: np.ndarray | None,
    *,
    scale: float,
    inference: bool = False,
) -> tuple[np.ndarray, Any]:
    """Mix the values by how well queries match keys: output = softmax(scale q k^T + bias) v, softmax over the keys.

    query: (..., Q, d), key: (..., K, d), value: (..., K, d), bias: broadcastable to (..., K, Q), keys first, or None;
    at least one leading axis, the heads -> output: (..., Q, d). Memory: (..., K, Q) probabilities are kept for
    backward; with `inference` nothing is, scores exist a few heads at a time, and there is no backward (None). Raises
    ShapeError if the shapes do not fit. Source: Eq. 2 of the DAT paper; arXiv 1706.03762, Eq. 1.
    """
    check(query.ndim >= 3, "attention", "query", query.shape, "(..., heads, Q, d)")
    leading, queries, keys = query.shape[:-2], query.shape[-2], key.shape[-2]
    check(
        key.shape == (*leading, keys, query.shape[-1]), "attention", "key", key.shape, (*leading, "K", query.shape[-1])
    )
    check(value.shape[:-1] == key.shape[:-1], "attention", "value", value.shape, (*leading, keys, "d"))
    scores_shape = (*leading, keys, queries)
    if bias is not None:
        fits = all(n in (1, wanted) for n, wanted in zip(bias.shape[::-1], scores_shape[::-1], strict=False))
        check(fits and bias.ndim <= len(scores_shape), "attention", "bias", bias.shape, scores_shape)
        full_bias = np.broadcast_to(bias, scores_shape)
    probabilities = None if inference else np.empty(scores_shape, query.dtype)
    # tokens first in memory, then heads: the caller merges the heads without a copy
    output = empty((*leading[:-1], queries, leading[-1], value.shape[-1]), query.dtype).swapaxes(-3, -2)
    blocks = list(_blocks(leading, keys * queries))

    def work(start: int, stop: int) -> None:
        for block in blocks[start:stop]:
            scaled = query[block] * query.dtype.type(scale)
            out = None if probabilities is None else probabilities[block]
            scores = np.matmul(key[block], scaled.swapaxes(-1, -2), out=out)
            if bias is not None:
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


def attention_probabilities(query: np.ndarray, key: np.ndarray, bias: np.ndarray | None, *, scale: float) -> np.ndarray:
    """What `attention` mixes the values with: output = softmax(scale q k^T + bias), for pictures.

    query: (..., Q, d), key: (..., K, d), bias: broadcastable to (..., K, Q) or None -> output: (..., K, Q).
    """
    scores = key @ (query * query.dtype.type(scale)).swapaxes(-1, -2)
    if bias is not None:
        scores += bias
    _softmax_over_keys(scores)
    return scores


def _softmax_over_keys(scores: np.ndarray) -> None:
    """scores (..., K, Q) become probabilities over K, in place."""
    scores -= scores.max(axis=-2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-2, keepdims=True)


def _blocks(leading: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Index tuples that cut the leading axes into blocks whose scores, `size` a (K, Q) matrix, fit in the cache.

    Along an axis the blocks are of one size, give or take 1, and as many for one thread as for another.
    """
    room = max(1, CACHE_FLOATS // size)
    threads = thread_count()
    slices: list[list[slice]] = []
    for length in reversed(leading):
        parts = -(-length // min(length, room))
        if parts > 1 or not slices:
            parts = min(length, -(-parts // threads) * threads)
        slices.append([slice(length * i // parts, length * (i + 1) // parts) for i in range(parts)])
        room = max(1, room // length)
    yield from product(*reversed(slices))
