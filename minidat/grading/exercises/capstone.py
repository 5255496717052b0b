"""The capstone, chapter 11: the operators of the other exercises, in the shipped model, classify a photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from ... import ops
from ..attempt import Ask
from ..exercise import Exercise, Finale, Function, Hints, Mistake, Numbers, Outcome
from . import bilinear, layer_norm, linear, product_grid, reference_points, windows
from .attention import case as attention_case
from .attention import flip


def forward_of(exercise: Exercise, name: str, hints: Hints) -> Function:
    """A function of another exercise, without its backward."""
    (function,) = (function for function in exercise.functions if function.name == name)
    outputs = function.outputs
    mistakes = tuple(mistake for mistake in function.mistakes if mistake.of in outputs)
    if not function.gradients:
        return replace(function, hints=hints)
    reference = function.reference

    @wraps(reference)
    def forward(*arrays: np.ndarray, **settings: Any) -> np.ndarray:
        return reference(*arrays, **settings)[0]

    return replace(function, hints=hints, reference=forward, gradients=(), mistakes=mistakes)


def from_exercise(file: str) -> Hints:
    """For what is written already."""
    return Hints(
        where=f"This is the function of the exercise {file}.py, of the same name. Paste it; what it returns besides "
        "the output, a backward, is ignored here.",
        idea=f"If it passed there and not here, compare the two files. If {file}.py is not solved yet, solve it first: "
        f"minidat grade examples/exercises/{file}.py explains more.",
        formula=f"see the hint: minidat grade examples/exercises/{file}.py --hint 3, and the forward in its docstring.",
    )


def case(numbers: Numbers, *, heads: int, queries: int, keys: int, width: int) -> dict[str, Any]:
    values = attention_case(numbers, heads=heads, queries=queries, keys=keys, width=width)
    scale = values.pop("scale")
    return {**values, "bias": numbers.normal(heads, queries, keys), "scale": scale}


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, scale: float) -> np.ndarray:
    return ops.attention(query, key, value, bias.swapaxes(1, 2), scale=scale)[0]


def attention_with(
    scores: Callable[[np.ndarray, np.ndarray, float], np.ndarray], axis: int = -1
) -> Callable[..., np.ndarray]:
    """Attention with scores(q k^T, bias, scale), and a softmax over an axis."""

    def result(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, scale: float) -> np.ndarray:
        return ops.softmax(scores(query @ flip(key), bias, scale), axis=axis)[0] @ value

    return result


ATTENTION = Function(
    name="attention",
    hints=Hints(
        where="This is the function of the exercise attention.py with one argument more: a bias for each head, query "
        "and key, which says how far the two are apart. Where does it have to come in so that it changes the "
        "probabilities? Leave the backward out, or paste it: it is ignored here.",
        idea="The bias has the shape of the scores, (heads, Q, K), and is added to them before the softmax, after they "
        "were scaled.",
        formula="    scores = scale * query key^T + bias\n    output = softmax(scores) value",
    ),
    sizes={"heads": (1, 2), "queries": (1, 2, 3), "keys": (1, 2, 3), "width": (1, 2, 3)},
    case=case,
    reference=attention,
    mistakes=(
        Mistake(
            "output", "the bias is missing: scores = scale * query key^T + bias",
            attention_with(lambda product, bias, scale: scale * product),
        ),
        Mistake(
            "output", "the bias is scaled too: only query key^T is",
            attention_with(lambda product, bias, scale: scale * (product + bias)),
        ),
        Mistake(
            "output", "the bias is subtracted: it is added",
            attention_with(lambda product, bias, scale: scale * product - bias),
        ),
        Mistake(
            "output", "the scale is missing: scores = scale * query key^T + bias",
            attention_with(lambda product, bias, scale: product + bias),
        ),
        Mistake(
            "output", "the softmax goes over the queries: the probabilities of one query, over all keys, must have the "
            "sum 1",
            attention_with(lambda product, bias, scale: scale * product + bias, axis=-2),
        ),
    ),
)  # fmt: skip

FUNCTIONS = (
    forward_of(linear.EXERCISE, "linear", from_exercise("linear")),
    forward_of(layer_norm.EXERCISE, "layer_norm", from_exercise("layer_norm")),
    ATTENTION,
    forward_of(windows.EXERCISE, "window_partition", from_exercise("windows")),
    forward_of(windows.EXERCISE, "window_reverse", from_exercise("windows")),
    forward_of(bilinear.EXERCISE, "bilinear", from_exercise("bilinear")),
    forward_of(reference_points.EXERCISE, "sampling_points", from_exercise("reference_points")),
    forward_of(product_grid.EXERCISE, "sample_product_grid", from_exercise("product_grid")),
)


def classify(ask: Ask, seed: int) -> Outcome:
    from ..borrowed import classify_with  # here: a model is needed by this exercise alone

    return classify_with(ask, {function.name: function for function in FUNCTIONS}, seed)


EXERCISE = Exercise(chapter="11-network", functions=FUNCTIONS, finale=Finale("the photograph", classify))
