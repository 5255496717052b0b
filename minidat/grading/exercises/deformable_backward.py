"""Chapter 9: the backward of deformable attention, from the backwards of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers
from .bilinear import sample
from .deformable import case as forward_case
from .deformable import split

WEIGHTS = ("query_weight", "key_weight", "value_weight", "output_weight")
GRADIENTS = ("x", "positions", *WEIGHTS)


def case(numbers: Numbers, **sizes: int) -> dict[str, Any]:
    """That of the forward, with weights so small that no softmax is saturated."""
    values = forward_case(numbers, **sizes)
    return values | {name: values[name] / 2 for name in WEIGHTS}


def merge(tokens: np.ndarray) -> np.ndarray:
    """(heads, N, d) -> (N, heads d)."""
    return tokens.swapaxes(0, 1).reshape(tokens.shape[1], -1)


def reference(
    x: np.ndarray,
    positions: np.ndarray,
    query_weight: np.ndarray,
    key_weight: np.ndarray,
    value_weight: np.ndarray,
    output_weight: np.ndarray,
    *,
    heads: int,
    ways: frozenset[str] = frozenset({"queries", "samples", "keys", "values"}),
    merging: Callable[[np.ndarray], np.ndarray] = merge,
    transposed: bool = False,
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, ...]]]:
    """Output and backward; `ways` are those that gradients take back to x, of which some may be missing.

    merging: how the gradients of the heads come together. transposed: the output weight, in the backward.
    """
    tokens = x.reshape(-1, x.shape[-1])
    sampled, sample_backward = sample(x, positions)
    query, query_backward = ops.linear(tokens, query_weight, None)
    key, key_backward = ops.linear(sampled, key_weight, None)
    value, value_backward = ops.linear(sampled, value_weight, None)
    scale = (x.shape[-1] // heads) ** -0.5
    query, key, value = (split(part, heads) for part in (query, key, value))
    mixed, attention_backward = ops.attention(query, key, value, None, scale=scale)
    output, output_backward = ops.linear(merge(mixed), output_weight, None)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_merged, d_output_weight, _ = output_backward(d_output.reshape(output.shape))
        if transposed:
            d_merged = d_output.reshape(output.shape) @ output_weight.T
        d_query, d_key, d_value, _ = attention_backward(split(d_merged, heads))
        d_tokens, d_query_weight, _ = query_backward(merging(d_query))
        d_sampled_by_keys, d_key_weight, _ = key_backward(merging(d_key))
        d_sampled_by_values, d_value_weight, _ = value_backward(merging(d_value))
        d_sampled = ("keys" in ways) * d_sampled_by_keys + ("values" in ways) * d_sampled_by_values
        d_x, d_positions = sample_backward(d_sampled)
        d_x = ("samples" in ways) * d_x + ("queries" in ways) * d_tokens.reshape(x.shape)
        return d_x, d_positions, d_query_weight, d_key_weight, d_value_weight, d_output_weight

    return output.reshape(x.shape), backward


def wrong(name: str, without: str = "", **change: Any) -> Callable[..., np.ndarray]:
    """The gradient of one argument by a backward that lacks one way, or goes wrong as `reference` can."""
    ways = frozenset({"queries", "samples", "keys", "values"} - {without})

    def result(
        x: np.ndarray,
        positions: np.ndarray,
        query_weight: np.ndarray,
        key_weight: np.ndarray,
        value_weight: np.ndarray,
        output_weight: np.ndarray,
        heads: int,
        d_output: np.ndarray,
    ) -> np.ndarray:
        weights = query_weight, key_weight, value_weight, output_weight
        _, backward = reference(x, positions, *weights, heads=heads, ways=ways, **change)
        return backward(d_output)[GRADIENTS.index(name)]

    return result


def merge_wrongly(tokens: np.ndarray) -> np.ndarray:
    """The same shape by a reshape alone."""
    return tokens.reshape(tokens.shape[1], -1)


NO_KEYS = "the way through the keys is missing: the samples make keys and values, so d_sampled is a sum of two"
NO_VALUES = "the way through the values is missing: the samples make keys and values, so d_sampled is a sum of two"
TRANSPOSED = "the output weight is transposed: output = merged W^T, so d_merged = d_output W"
MERGED = "the heads' gradients are not put back side by side: bring (heads, N, d) to (N, heads, d) before the reshape"

EXERCISE = Exercise(
    chapter="09-deformable-attention",
    functions=(
        Function(
            name="deformable_attention",
            hints=Hints(
                where="Draw the forward as a graph, from x and the positions to the output, and mark what is used "
                "twice: x, and the samples. Then walk it backward. What comes out of the two given backwards, and in "
                "which shapes?",
                idea="Five linear maps without bias, each with two gradients: d_in = d_out W, d_W = d_out^T in. "
                "d_sampled is a sum, from keys and values; d_x is a sum, from the queries and from reading the map. "
                "split_heads and merge_heads undo each other, so each is the other's backward.",
                formula="with d_rows = d_output.reshape(-1, C),\n"
                "    d_merged = d_rows @ output_weight,   d_output_weight = d_rows.T @ merged\n"
                "    d_query, d_key, d_value = attention_backward(split_heads(d_merged, heads)), each merged\n"
                "    d_sampled = d_key @ key_weight + d_value @ value_weight\n"
                "    d_x, d_positions = sample_backward(d_sampled)\n"
                "    d_x = d_x + (d_query @ query_weight).reshape(x.shape)\n"
                "    d_query_weight = d_query.T @ tokens,   d_key_weight = d_key.T @ sampled, ...",
            ),
            sizes={"height": (1, 2, 3), "width": (1, 2, 3), "points": (1, 2, 3), "heads": (1, 2), "head_width": (1, 2)},
            case=case,
            reference=reference,
            gradients=GRADIENTS,
            fixed=frozenset({"positions"}),
            mistakes=(
                Mistake(
                    "d_x", "the way through the queries is missing: x is used twice, and d_x is a sum of two",
                    wrong("x", "queries"),
                ),
                Mistake(
                    "d_x", "the way through the samples is missing: x is used twice, and d_x is a sum of two",
                    wrong("x", "samples"),
                ),
                Mistake("d_x", NO_KEYS, wrong("x", "keys")),
                Mistake("d_x", NO_VALUES, wrong("x", "values")),
                Mistake("d_x", TRANSPOSED, wrong("x", transposed=True)),
                Mistake("d_x", MERGED, wrong("x", merging=merge_wrongly)),
                Mistake("d_positions", NO_KEYS, wrong("positions", "keys")),
                Mistake("d_positions", NO_VALUES, wrong("positions", "values")),
                Mistake("d_positions", TRANSPOSED, wrong("positions", transposed=True)),
                Mistake("d_query_weight", MERGED, wrong("query_weight", merging=merge_wrongly)),
            ),
        ),
    ),
)  # fmt: skip
