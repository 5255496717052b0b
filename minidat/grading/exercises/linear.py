"""Chapter 2: the backward of the linear layer."""

from __future__ import annotations

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, batch: int, tokens: int, inputs: int, outputs: int) -> dict:
    return {
        "x": numbers.normal(batch, tokens, inputs),
        "weight": numbers.normal(outputs, inputs),
        "bias": numbers.normal(outputs),
    }


EXERCISE = Exercise(
    chapter="02-linear",
    functions=(
        Function(
            name="linear",
            hints=Hints(
                where="Begin with one row: output[d] = sum over c of weight[d, c] * x[c], plus bias[d]. What is the "
                "derivative of output[d] by x[c]? By weight[d, c]? By bias[d]? A gradient has the shape of the array "
                "it belongs to.",
                idea="The gradient of x[c] collects d_output[d] times that derivative over all d: a matrix product. "
                "Weight and bias serve all rows of all images, so their gradients are sums over all rows: flatten x "
                "and d_output to rows first.",
                formula="with rows = x.reshape(-1, inputs) and d_rows = d_output.reshape(-1, outputs),\n"
                "    d_x = d_output @ weight\n"
                "    d_weight = d_rows.T @ rows\n"
                "    d_bias = d_rows.sum(axis=0)",
            ),
            sizes={"batch": (1, 2), "tokens": (1, 2, 3), "inputs": (1, 2, 3), "outputs": (1, 2, 3)},
            case=case,
            reference=ops.linear,
            gradients=("x", "weight", "bias"),
            mistakes=(
                Mistake(
                    "d_x", "the weight is transposed: output = x W^T, but d_x = d_output W",
                    lambda weight, d_output: d_output @ weight.T,
                ),
                Mistake(
                    "d_weight", "only the first element of the batch counts: d_weight is a sum over all rows",
                    lambda x, d_output: d_output[0].T @ x[0],
                ),
                Mistake(
                    "d_weight", "d_weight is made of the weight: the derivative of x W^T by W has x in it, not W",
                    lambda x, weight, d_output: d_output.reshape(-1, len(weight)).sum(axis=0)[:, None] * weight,
                ),
                Mistake(
                    "d_bias", "d_bias is the mean over the rows: each row adds the same bias, so it is the sum",
                    lambda d_output: d_output.mean(axis=(0, 1)),
                ),
                Mistake(
                    "d_bias", "only the first element of the batch counts: d_bias is a sum over all rows",
                    lambda d_output: d_output[0].sum(axis=0),
                ),
            ),
        ),
    ),
)  # fmt: skip
