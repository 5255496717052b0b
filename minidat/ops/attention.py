"""Scaled dot-product attention with an additive bias, the heart of every block.

Scores are kept *keys-first*, (..., K, Q): the bias of deformable attention comes out in that order, and NumPy reduces
over a leading axis several times faster than over the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check, unbroadcast
from .activation import softmax


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray | None, *, scale: float
) -> tuple[np.ndarray, Any]:
    """Mix the values by how well queries match keys: output = softmax(scale q k^T + bias) v, softmax over the keys.

    query: (..., Q, d), key: (..., K, d), value: (..., K, d), bias: broadcastable to (..., K, Q), keys first, or None;
    at least one leading axis, the heads -> output: (..., Q, d). Raises ShapeError if the shapes do not fit.
    Source: Eq. 2 of the DAT paper; arXiv 1706.03762, Eq. 1.
    """
    check_attention(query, key, value, bias)
    scores = scale * key @ query.swapaxes(-1, -2)  # (..., K, Q)
    if bias is not None:
        scores = scores + bias
    p, softmax_backward = softmax(scores, axis=-2)
    output = p.swapaxes(-1, -2) @ value

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        d_value = p @ d_output
        (d_scores,) = softmax_backward(value @ d_output.swapaxes(-1, -2))
        d_query = scale * d_scores.swapaxes(-1, -2) @ key
        d_key = scale * d_scores @ query
        d_bias = None if bias is None else unbroadcast(d_scores, bias.shape)
        return d_query, d_key, d_value, d_bias

    return output, backward


def attention_probabilities(query: np.ndarray, key: np.ndarray, bias: np.ndarray | None, *, scale: float) -> np.ndarray:
    """What `attention` mixes the values with: output = softmax(scale q k^T + bias), for pictures.

    query: (..., Q, d), key: (..., K, d), bias: broadcastable to (..., K, Q) or None -> output: (..., K, Q).
    """
    scores = scale * key @ query.swapaxes(-1, -2)
    return softmax(scores if bias is None else scores + bias, axis=-2)[0]


def check_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray | None) -> None:
    """Raise ShapeError unless the arguments of `attention` fit each other."""
    check(query.ndim >= 3, "attention", "query", query.shape, "(..., heads, Q, d)")
    leading, width, keys = query.shape[:-2], query.shape[-1], key.shape[-2]
    check(key.shape == (*leading, keys, width), "attention", "key", key.shape, (*leading, "K", width))
    check(value.shape[:-1] == key.shape[:-1], "attention", "value", value.shape, (*leading, keys, "d"))
    if bias is not None:
        scores = (*leading, keys, query.shape[-2])
        fits = all(n in (1, wanted) for n, wanted in zip(bias.shape[::-1], scores[::-1], strict=False))
        check(fits and bias.ndim <= len(scores), "attention", "bias", bias.shape, scores)
