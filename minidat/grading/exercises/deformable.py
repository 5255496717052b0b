"""Chapter 9: deformable attention from given positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers
from .bilinear import forward as bilinear


def case(numbers: Numbers, *, height: int, width: int, points: int, heads: int, head_width: int) -> dict[str, Any]:
    channels = heads * head_width
    return {
        "x": numbers.normal(height, width, channels),
        "positions": numbers.positions(points, height, width),
        "query_weight": numbers.normal(channels, channels),
        "key_weight": numbers.normal(channels, channels),
        "value_weight": numbers.normal(channels, channels),
        "output_weight": numbers.normal(channels, channels),
        "heads": heads,
    }


def split(tokens: np.ndarray, heads: int) -> np.ndarray:
    """(N, heads d) -> (heads, N, d)."""
    return tokens.reshape(len(tokens), heads, -1).swapaxes(0, 1)


def split_wrongly(tokens: np.ndarray, heads: int) -> np.ndarray:
    """The same shape by a reshape alone, which deals tokens instead of channels out to the heads."""
    return tokens.reshape(heads, len(tokens), -1)


def attend(
    x: np.ndarray,
    sampled: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    heads: int,
    *,
    scale: float | None = None,
    splitting: Any = split,
    axis: int = -1,
) -> np.ndarray:
    """Multi-head attention of all pixels of x (H, W, C) to the samples (N, C) -> (H, W, C). axis: of the softmax."""
    height, width, channels = x.shape
    query_weight, key_weight, value_weight, output_weight = weights
    tokens = x.reshape(-1, channels)
    query, key, value = tokens @ query_weight.T, sampled @ key_weight.T, sampled @ value_weight.T
    query, key, value = (splitting(tokens, heads) for tokens in (query, key, value))
    scale = (channels // heads) ** -0.5 if scale is None else scale
    mixed = ops.softmax(scale * query @ key.swapaxes(-1, -2), axis=axis)[0] @ value
    merged = mixed.swapaxes(0, 1).reshape(height * width, channels)
    return (merged @ output_weight.T).reshape(x.shape)


def reference(
    x: np.ndarray,
    positions: np.ndarray,
    query_weight: np.ndarray,
    key_weight: np.ndarray,
    value_weight: np.ndarray,
    output_weight: np.ndarray,
    *,
    heads: int,
) -> np.ndarray:
    weights = query_weight, key_weight, value_weight, output_weight
    return attend(x, bilinear(x, positions), weights, heads)


def wrong(change: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A wrong result: `change(x, positions, weights, heads)` in place of `reference`."""

    @wraps(reference)
    def result(x: np.ndarray, positions: np.ndarray, heads: int, **weights: np.ndarray) -> np.ndarray:
        return change(x, positions, tuple(weights.values()), heads)

    return result


def transpose(weights: tuple[np.ndarray, ...], which: int) -> Any:
    """One of the weights."""
    return tuple(w.T if i == which else w for i, w in enumerate(weights))


def identity_last(weights: tuple[np.ndarray, ...]) -> Any:
    return (*weights[:3], np.eye(len(weights[3])))


EXERCISE = Exercise(
    chapter="09-deformable-attention",
    functions=(
        Function(
            name="deformable_attention",
            hints=Hints(
                where="`bilinear` and `softmax` are given. What is read at the positions, and what is not? There is "
                "nothing to sample for the queries: all pixels look at the same N points, wherever they are.",
                idea="Heads: (N, C) -> reshape (N, heads, d) -> swapaxes(0, 1) -> (heads, N, d); a reshape to (heads, "
                "N, d) alone has the right shape and the wrong numbers. Scores are (heads, H * W, N), with the softmax "
                "over the N samples. At the end the heads go back the same way.",
                formula="with q, k, v split into heads,\n"
                "    scores = q @ k.swapaxes(-1, -2) / np.sqrt(C // heads)\n"
                "    mixed = softmax(scores) @ v                              (heads, H * W, d)\n"
                "    output = mixed.swapaxes(0, 1).reshape(H, W, C) @ output_weight.T",
            ),
            sizes={"height": (1, 2, 3), "width": (1, 2, 3), "points": (1, 2, 3), "heads": (1, 2), "head_width": (1, 2)},
            case=case,
            reference=reference,
            fixed=frozenset({"positions"}),
            mistakes=(
                Mistake(
                    "output", "y and x are swapped: positions[:, 0] is y",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions[:, ::-1]), weights, heads)),
                ),
                Mistake(
                    "output", "keys and values come from the pixels of x: they should come from x at the positions",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, x.reshape(-1, x.shape[-1]), weights, heads)),
                ),
                Mistake(
                    "output", "it is the queries that are read at the positions: keys and values should be read from "
                    "x itself",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x @ weights[0].T, positions), weights, heads)),
                ),
                Mistake(
                    "output", "the scale is missing: scores are divided by the square root of the width of a head",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, heads, scale=1.0)),
                ),
                Mistake(
                    "output", "the scale is that of all channels: scores are divided by the square root of the width "
                    "of one head, C / heads",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, heads, scale=x.shape[-1] ** -0.5)),
                ),
                Mistake(
                    "output", "the channels are not split into heads, or not as they should be: reshape to (N, heads, "
                    "C / heads), then bring the heads to the front",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, heads, splitting=split_wrongly)),
                ),
                Mistake(
                    "output", "there is only one head: each head has scores and a softmax of its own",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, 1, scale=(x.shape[-1] // heads) ** -0.5)),
                ),
                Mistake(
                    "output", "there is only one head: each head has scores and a softmax of its own",
                    wrong(lambda x, positions, weights, heads: attend(x, bilinear(x, positions), weights, 1)),
                ),
                Mistake(
                    "output", "the output weight is missing",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), identity_last(weights), heads)),
                ),
                Mistake(
                    "output", "the weights are transposed: they are (out, in), so that queries are x @ query_weight.T",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), tuple(w.T for w in weights), heads)),
                ),
                *(
                    Mistake(
                        "output", f"{name}_weight is transposed: it is (out, in), so that its output is its input @ "
                        f"{name}_weight.T",
                        wrong(lambda x, positions, weights, heads, i=i: attend(
                            x, bilinear(x, positions), transpose(weights, i), heads)),
                    )
                    for i, name in enumerate(("query", "key", "value", "output"))
                ),
                Mistake(
                    "output", "the softmax goes over the pixels: the probabilities of one pixel, over all samples, "
                    "must have the sum 1",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, heads, axis=-2)),
                ),
                Mistake(
                    "output", "the softmax goes over the heads: the probabilities of one pixel and head, over all "
                    "samples, must have the sum 1",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), weights, heads, axis=0)),
                ),
                Mistake(
                    "output", "key_weight and value_weight are mixed up",
                    wrong(lambda x, positions, weights, heads: attend(
                        x, bilinear(x, positions), (weights[0], weights[2], weights[1], weights[3]), heads)),
                ),
            ),
        ),
    ),
)  # fmt: skip
