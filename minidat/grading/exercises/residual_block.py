"""Chapter 11: the backward of a block, from the backwards of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..exercise import Exercise, Function, Hints, Mistake, Numbers
from ..solution_process.layers import Backward, Layer, Matrix, Square


def case(numbers: Numbers, *, tokens: int, channels: int) -> dict[str, Any]:
    return {
        "x": numbers.normal(tokens, channels) / 2,
        "norm1": Square(1),
        "attention": Matrix(numbers.normal(channels, channels)),
        "norm2": Matrix(numbers.normal(channels, channels)),
        "mlp": Square(2),
    }


def branch_gradients(
    x: np.ndarray, norm1: Layer, attention: Layer, norm2: Layer, mlp: Layer
) -> tuple[np.ndarray, Backward, Backward, Backward, Backward]:
    """(output, the four backwards)."""
    normed, norm1_backward = norm1(x)
    mixed, attention_backward = attention(normed)
    x = x + mixed
    normed, norm2_backward = norm2(x)
    hidden, mlp_backward = mlp(normed)
    return x + hidden, norm1_backward, attention_backward, norm2_backward, mlp_backward


def reference(
    x: np.ndarray, *, norm1: Layer, attention: Layer, norm2: Layer, mlp: Layer
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    output, d_norm1, d_attention, d_norm2, d_mlp = branch_gradients(x, norm1, attention, norm2, mlp)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_x = d_output + d_norm2(d_mlp(d_output))
        return (d_x + d_norm1(d_attention(d_x)),)

    return output, backward


def wrong(change: Callable[[np.ndarray, Backward, Backward, Backward, Backward], np.ndarray]) -> Callable[..., Any]:
    """`change(d_output, norm1_backward, attention_backward, norm2_backward, mlp_backward)` in place of backward."""

    def result(
        x: np.ndarray, norm1: Layer, attention: Layer, norm2: Layer, mlp: Layer, d_output: np.ndarray
    ) -> np.ndarray:
        _, *backwards = branch_gradients(x, norm1, attention, norm2, mlp)
        return change(d_output, *backwards)

    return result


def without_residuals(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    return n1(a(n2(m(d))))


def first_residual_missing(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    return n1(a(d + n2(m(d))))


def second_residual_missing(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    d_x = n2(m(d))
    return d_x + n1(a(d_x))


def side_by_side(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    return d + n2(m(d)) + n1(a(d))


def branches_in_forward_order(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    d_x = d + n1(a(d))
    return d_x + n2(m(d_x))


def layers_in_forward_order(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    d_x = d + m(n2(d))
    return d_x + a(n1(d_x))


def without_norms(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    d_x = d + m(d)
    return d_x + a(d_x)


def last_branch_only(d: np.ndarray, n1: Backward, a: Backward, n2: Backward, m: Backward) -> np.ndarray:
    return d + n2(m(d))


EXERCISE = Exercise(
    chapter="11-network",
    functions=(
        Function(
            name="residual_block",
            hints=Hints(
                where="x is used twice in each line: directly, and by the branch. What does that mean for its "
                "gradient? And which of the two lines comes first on the way back?",
                idea="What is used twice has a gradient that is a sum of two. Go from the end to the start: first the "
                "line of the mlp, then that of attention; within a line the backward of the last function comes first. "
                "What arrives at the first line is the whole gradient by the x in between, not d_output.",
                formula="    d_x = d_output + norm2_backward(mlp_backward(d_output))\n"
                "    d_x = d_x + norm1_backward(attention_backward(d_x))",
            ),
            sizes={"tokens": (1, 2, 3), "channels": (1, 2, 3)},
            case=case,
            reference=reference,
            gradients=("x",),
            mistakes=(
                Mistake(
                    "d_x", "both residual connections are missing: x reaches the output directly too, so d_output is "
                    "added to what comes back through each branch",
                    wrong(without_residuals),
                ),
                Mistake(
                    "d_x", "the residual connection of the first branch (attention) is missing: x also reaches the "
                    "sum directly, past the branch",
                    wrong(first_residual_missing),
                ),
                Mistake(
                    "d_x", "the residual connection of the second branch (mlp) is missing: d_output also reaches x "
                    "directly, past the branch",
                    wrong(second_residual_missing),
                ),
                Mistake(
                    "d_x", "the attention branch is given d_output: its output also feeds the mlp, so it must get "
                    "d_output plus what the mlp branch gave back",
                    wrong(side_by_side),
                ),
                Mistake(
                    "d_x", "the branches are in the order of the forward: backward begins with the last one, the mlp",
                    wrong(branches_in_forward_order),
                ),
                Mistake(
                    "d_x", "within a branch the order is that of the forward: the backward of the layer comes before "
                    "that of its norm",
                    wrong(layers_in_forward_order),
                ),
                Mistake("d_x", "the backwards of the norms are missing", wrong(without_norms)),
                Mistake("d_x", "the attention branch is missing", wrong(last_branch_only)),
            ),
        ),
    ),
)  # fmt: skip
