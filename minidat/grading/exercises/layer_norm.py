"""Chapter 3: the backward of layer norm."""

from __future__ import annotations

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, rows: int, channels: int) -> dict:
    return {
        "x": numbers.normal(rows, channels),
        "weight": numbers.normal(channels),
        "bias": numbers.normal(channels),
        "eps": 0.1 if numbers.simple else 1e-5,
    }


def parts(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """(normalized, 1 / std)."""
    inverse_std = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) * inverse_std, inverse_std


def d_x(
    x: np.ndarray, g: np.ndarray, eps: float, *, mean: float = 1, projection: float = 1, divide: bool = True
) -> np.ndarray:
    """d_x of g = d_output * weight, with factors for its two subtracted terms."""
    normalized, inverse_std = parts(x, eps)
    mean_g = mean * g.mean(axis=-1, keepdims=True)
    centered = g - mean_g - projection * normalized * (g * normalized).mean(axis=-1, keepdims=True)
    return centered * inverse_std if divide else centered


EXERCISE = Exercise(
    chapter="03-layer-norm",
    functions=(
        Function(
            name="layer_norm",
            hints=Hints(
                where="Begin with weight and bias, which all rows share. Then ask in how many ways one x[c] acts on "
                "its row: there are three.",
                idea="The gradient by `normalized` is g = d_output * weight. x[c] acts directly, through the mean and "
                "through the variance: three terms, of which the last two are subtracted means over the row's "
                "channels. keepdims=True keeps the axis of a mean, so that it can be subtracted.",
                formula="with g = d_output * weight and means over the channels of a row,\n"
                "    d_x = (g - mean(g) - normalized * mean(g * normalized)) / std\n"
                "    d_weight = sum over the rows of d_output * normalized\n"
                "    d_bias = sum over the rows of d_output",
            ),
            sizes={"rows": (1, 2, 3), "channels": (1, 2, 3, 4)},
            case=case,
            reference=ops.layer_norm,
            gradients=("x", "weight", "bias"),
            mistakes=(
                Mistake(
                    "d_x", "the term mean(g) is missing: each x also moves the mean, which is subtracted everywhere",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, mean=0),
                ),
                Mistake(
                    "d_x", "the term normalized * mean(g * normalized) is missing: each x also changes the variance",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, projection=0),
                ),
                Mistake(
                    "d_x", "mean and variance are taken for constants: two terms, mean(g) and normalized * "
                    "mean(g * normalized), are missing",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, mean=0, projection=0),
                ),
                Mistake(
                    "d_x", "the weight is missing: the gradient of `normalized` is g = d_output * weight",
                    lambda x, d_output, eps: d_x(x, d_output, eps),
                ),
                Mistake(
                    "d_x", "the division by the standard deviation is missing",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, divide=False),
                ),
                Mistake(
                    "d_x", "sums stand where means should: both terms must be divided by the number of channels",
                    lambda x, weight, d_output, eps, channels: d_x(
                        x, d_output * weight, eps, mean=channels, projection=channels),
                ),
                Mistake(
                    "d_x", "a sign is wrong: both terms are subtracted",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, mean=-1, projection=-1),
                ),
                Mistake(
                    "d_x", "the sign of the term with normalized is wrong: both terms are subtracted",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, projection=-1),
                ),
                Mistake(
                    "d_weight", "d_weight is made of x: the weight multiplies the normalized numbers",
                    lambda x, d_output: (d_output * x).sum(axis=0),
                ),
                Mistake(
                    "d_weight", "d_weight is a mean over the rows: it is their sum",
                    lambda x, d_output, eps: (d_output * parts(x, eps)[0]).mean(axis=0),
                ),
            ),
        ),
    ),
)  # fmt: skip
