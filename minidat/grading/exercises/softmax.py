"""Chapter 4: the backward of softmax."""

from __future__ import annotations

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, rows: int, scores: int) -> dict:
    return {"x": numbers.normal(rows, scores)}


def probabilities(x: np.ndarray) -> np.ndarray:
    return ops.softmax(x)[0]


EXERCISE = Exercise(
    chapter="04-attention",
    functions=(
        Function(
            name="softmax",
            hints=Hints(
                where="Each score is in the numerator of its own probability and in the denominator of all. What is "
                "the derivative of p[k] by x[j], for j = k and for j != k? A check of your own: softmax(x + 1) = "
                "softmax(x), so the numbers of each row of d_x must add up to 0.",
                idea="The derivative is p[k] (1 - p[k]) for j = k, and -p[k] p[j] for the others. Sum d_output[k] "
                "times it over k: the result needs no K x K matrix, only one sum a row.",
                formula="the sum going along the last axis (keepdims=True),\n"
                "    d_x = p * (d_output - sum(p * d_output))",
            ),
            sizes={"rows": (1, 2, 3), "scores": (1, 2, 3, 4)},
            case=case,
            reference=ops.softmax,
            gradients=("x",),
            mistakes=(
                Mistake(
                    "d_x", "only the diagonal of the Jacobian is there, p (1 - p): each score also lowers all the "
                    "other probabilities, through the common denominator",
                    lambda x, d_output: d_output * probabilities(x) * (1 - probabilities(x)),
                ),
                Mistake(
                    "d_x", "the term of the denominator, - p * sum(p * d_output), is missing",
                    lambda x, d_output: d_output * probabilities(x),
                ),
                Mistake(
                    "d_x", "the sum goes over all rows: each row has a softmax of its own (axis=-1, keepdims=True)",
                    lambda x, d_output: probabilities(x) * (d_output - np.sum(probabilities(x) * d_output)),
                ),
                Mistake(
                    "d_x", "the sum goes over the wrong axis, down the rows: the softmax is that of each row (axis=-1, "
                    "keepdims=True)",
                    lambda x, d_output: probabilities(x)
                    * (d_output - (probabilities(x) * d_output).sum(axis=0, keepdims=True)),
                ),
                Mistake(
                    "d_x", "the sum is that of d_output: it should be that of p * d_output",
                    lambda x, d_output: probabilities(x) * (d_output - d_output.sum(axis=-1, keepdims=True)),
                ),
                Mistake(
                    "d_x", "the mean stands where the sum should",
                    lambda x, d_output: probabilities(x)
                    * (d_output - (probabilities(x) * d_output).mean(axis=-1, keepdims=True)),
                ),
                Mistake(
                    "d_x", "the factor p in front is missing",
                    lambda x, d_output: d_output - (probabilities(x) * d_output).sum(axis=-1, keepdims=True),
                ),
                Mistake(
                    "d_x", "a sign is wrong: the sum is subtracted",
                    lambda x, d_output: probabilities(x)
                    * (d_output + (probabilities(x) * d_output).sum(axis=-1, keepdims=True)),
                ),
            ),
        ),
    ),
)  # fmt: skip
