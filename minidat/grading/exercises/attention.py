"""Chapter 4: attention, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, heads: int, queries: int, keys: int, width: int) -> dict:
    return {
        "query": numbers.normal(heads, queries, width),
        "key": numbers.normal(heads, keys, width),
        "value": numbers.normal(heads, keys, width),
        "scale": 0.5,
    }


def reference(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, *, scale: float
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[Any, ...]]]:
    output, backward = ops.attention(query, key, value, None, scale=scale)
    return output, lambda d_output: backward(d_output)[:3]


def flip(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(-1, -2)


def probabilities(query: np.ndarray, key: np.ndarray, scale: float, axis: int = -1) -> np.ndarray:
    """(heads, queries, keys)."""
    return ops.softmax(query @ flip(key) * scale, axis=axis)[0]


def d_scores(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, scale: float, d_output: np.ndarray, axis: int = -1
) -> np.ndarray:
    """The gradient of the scores, after they were scaled: (heads, queries, keys). axis: of the backward's sum."""
    p, d_p = probabilities(query, key, scale), d_output @ flip(value)
    return p * (d_p - (p * d_p).sum(axis=axis, keepdims=True))


WRONG_AXIS = "the sum in the backward of the softmax goes over the queries: as the softmax, it goes over the keys"
NO_SOFTMAX = "the backward of the softmax is incomplete: d_scores = p * (d_p - sum over the keys of p * d_p)"

EXERCISE = Exercise(
    chapter="04-attention",
    functions=(
        Function(
            name="attention",
            hints=Hints(
                where="Write the three lines of the forward first: a @ b multiplies the last two axes and treats those "
                "in front as separate problems; x.swapaxes(-1, -2) transposes the last two. Backward goes through the "
                "same lines from the last to the first.",
                idea="If c = a b is a product of matrices, d_a = d_c b^T and d_b = a^T d_c. So d_value and d_p come "
                "from the third line, d_scores from d_p by the backward of softmax (the exercise before this one), "
                "d_query and d_key from the first, and the scale with it.",
                formula="with the sum over the keys,\n"
                "    d_value = p^T d_output\n"
                "    d_p = d_output value^T\n"
                "    d_scores = p * (d_p - sum(p * d_p))\n"
                "    d_query = scale * d_scores key\n"
                "    d_key = scale * d_scores^T query",
            ),
            sizes={"heads": (1, 2), "queries": (1, 2, 3), "keys": (1, 2, 3), "width": (1, 2, 3)},
            case=case,
            reference=reference,
            gradients=("query", "key", "value"),
            mistakes=(
                Mistake(
                    "output", "the scale is missing: scores = scale * query key^T",
                    lambda query, key, value: probabilities(query, key, 1.0) @ value,
                ),
                Mistake(
                    "output", "the softmax goes over the queries: the probabilities of one query, over all keys, must "
                    "have the sum 1",
                    lambda query, key, value, scale: probabilities(query, key, scale, axis=-2) @ value,
                ),
                Mistake(
                    "output", "the softmax goes over all scores of a head at once: each query has its own",
                    lambda query, key, value, scale: (
                        np.exp(query @ flip(key) * scale) / np.exp(query @ flip(key) * scale).sum(
                            axis=(-1, -2), keepdims=True)) @ value,
                ),
                Mistake(
                    "output", "the softmax is missing",
                    lambda query, key, value, scale: query @ flip(key) * scale @ value,
                ),
                Mistake(
                    "d_query", "the scale is missing: the scores are scale * query key^T, so d_query = scale * d_scores"
                    " key",
                    lambda query, key, value, scale, d_output: d_scores(query, key, value, scale, d_output) @ key,
                ),
                Mistake(
                    "d_key", "the scale is missing: the scores are scale * query key^T, so d_key = scale * d_scores^T "
                    "query",
                    lambda query, key, value, scale, d_output: flip(
                        d_scores(query, key, value, scale, d_output)) @ query,
                ),
                Mistake(
                    "d_query", NO_SOFTMAX,
                    lambda query, key, value, scale, d_output: scale
                    * (probabilities(query, key, scale) * (d_output @ flip(value))) @ key,
                ),
                Mistake(
                    "d_query", WRONG_AXIS,
                    lambda query, key, value, scale, d_output: scale
                    * d_scores(query, key, value, scale, d_output, axis=-2) @ key,
                ),
                Mistake(
                    "d_key", WRONG_AXIS,
                    lambda query, key, value, scale, d_output: scale
                    * flip(d_scores(query, key, value, scale, d_output, axis=-2)) @ query,
                ),
                Mistake(
                    "d_query", "the backward of the softmax is missing: d_scores is not yet d_output value^T",
                    lambda key, value, scale, d_output: scale * d_output @ flip(value) @ key,
                ),
                Mistake(
                    "d_key", NO_SOFTMAX,
                    lambda query, key, value, scale, d_output: scale
                    * flip(probabilities(query, key, scale) * (d_output @ flip(value))) @ query,
                ),
                Mistake(
                    "d_key", "d_scores is not transposed: d_key = scale * d_scores^T query, one row a key",
                    lambda query, key, value, scale, d_output: scale
                    * d_scores(query, key, value, scale, d_output) @ query,
                ),
                Mistake(
                    "d_value", "the probabilities are not transposed: d_value = p^T d_output, one row a key",
                    lambda query, key, scale, d_output: probabilities(query, key, scale) @ d_output,
                ),
            ),
        ),
    ),
)  # fmt: skip
