"""Chapter 8: the backward of the network that predicts the offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

GRADIENTS = ("query", "conv_weight", "norm_weight", "norm_bias", "projection")


def case(numbers: Numbers, *, height: int, width: int, channels: int, stride: int) -> dict[str, Any]:
    return {
        "query": numbers.normal(height, width, channels),
        "conv_weight": numbers.normal(channels, 3, 3),
        "norm_weight": numbers.normal(channels),
        "norm_bias": numbers.normal(channels) / 2,
        "projection": numbers.normal(2, channels) / 2,
        "stride": stride,
        "range_factor": 2.0,
        "eps": 0.1 if numbers.simple else 1e-2,
    }


def reference(
    query: np.ndarray,
    conv_weight: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    projection: np.ndarray,
    *,
    stride: int,
    range_factor: float,
    eps: float,
    skipped: str = "",
    flipped: bool = False,
    shifted: bool = False,
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, ...]]]:
    """Positions and backward, in which one step may be `skipped`, the kernel `flipped`, or d_query `shifted`."""
    conv, conv_backward = ops.conv2d(
        query[None], conv_weight[:, None], None, stride=stride, padding=1, groups=len(conv_weight)
    )
    normalized, norm_backward = ops.layer_norm(conv, norm_weight, norm_bias, eps=eps)
    hidden, gelu_backward = ops.gelu(normalized)
    offsets, projection_backward = ops.linear(hidden, projection, None)
    positions, points_backward = ops.sampling_points(offsets[:, None], rule="dat", range_factor=range_factor)
    reach = range_factor / np.array(offsets.shape[1:3])

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_offsets = points_backward(d_output[None, None])[0][:, 0]
        if skipped == "tanh":
            d_offsets = d_output[None] * reach
        if skipped == "reach":
            d_offsets = d_offsets / reach
        if skipped == "swap":
            d_offsets = d_offsets / reach * reach[::-1]
        d_hidden, d_projection, _ = projection_backward(d_offsets)
        d_normalized = d_hidden if skipped == "gelu" else gelu_backward(d_hidden)[0]
        d_conv, d_norm_weight, d_norm_bias = norm_backward(d_normalized)
        if skipped == "norm":
            d_conv = d_normalized
        if skipped == "statistics":
            d_conv = d_normalized * norm_weight / np.sqrt(conv.var(axis=-1, keepdims=True) + eps)
        d_query, d_conv_weight, _ = conv_backward(d_conv)
        if flipped or shifted:
            d_query = spread(query, conv_weight, d_conv[0], stride, flipped=flipped, shifted=shifted)[None]
        return d_query[0], d_conv_weight[:, 0], d_norm_weight, d_norm_bias, d_projection

    return positions[0, 0], backward


def spread(
    query: np.ndarray, weight: np.ndarray, d_conv: np.ndarray, stride: int, *, flipped: bool, shifted: bool
) -> np.ndarray:
    """d_query of the convolution; its padding may be cut off at the wrong end."""
    (height, width, _), (rows, columns, _) = query.shape, d_conv.shape
    d_padded = np.zeros((height + 2, width + 2, query.shape[-1]))
    weight = weight[:, ::-1, ::-1] if flipped else weight
    for dy, dx in np.ndindex(3, 3):
        at = np.s_[dy : dy + stride * rows : stride, dx : dx + stride * columns : stride]
        d_padded[at] += d_conv * weight[:, dy, dx]
    return d_padded[:height, :width] if shifted else d_padded[1:-1, 1:-1]


def wrong(name: str, **change: Any) -> Callable[..., np.ndarray]:
    """The gradient of one argument by a backward that goes wrong in one way."""

    def result(
        query: np.ndarray,
        conv_weight: np.ndarray,
        norm_weight: np.ndarray,
        norm_bias: np.ndarray,
        projection: np.ndarray,
        stride: int,
        range_factor: float,
        eps: float,
        d_output: np.ndarray,
    ) -> np.ndarray:
        arrays = query, conv_weight, norm_weight, norm_bias, projection
        _, backward = reference(*arrays, stride=stride, range_factor=range_factor, eps=eps, **change)
        return backward(d_output)[GRADIENTS.index(name)]

    return result


def everywhere(text: str, skipped: str) -> tuple[Mistake, ...]:
    """A mistake near the end of the network is in all gradients behind it."""
    names = GRADIENTS if skipped in ("tanh", "reach", "swap") else GRADIENTS[:4] if skipped == "gelu" else GRADIENTS[:2]
    return tuple(Mistake(f"d_{name}", text, wrong(name, skipped=skipped)) for name in names)


EXERCISE = Exercise(
    chapter="08-reference-points",
    functions=(
        Function(
            name="offset_network",
            hints=Hints(
                where="Six steps lead from the query to the positions, and five of them you know: tanh, a linear map, "
                "GELU, layer norm, a depthwise convolution. Go through them from the last to the first, and begin with "
                "the reach: how far does a position move if the tanh grows by 1?",
                idea="tanh' = 1 - tanh^2, and `squashed` is the tanh. The linear map has no bias. norm_backward and "
                "gelu_backward are given. The convolution is a sum of nine terms, seen * conv_weight[:, dy, dx]: each "
                "gives its part to the same slice of d_padded, added to what is there, and one number a channel to "
                "d_conv_weight. At the end the border of the padding is cut off.",
                formula="    d_offsets = d_output * range_factor / np.array([rows, columns]) * (1 - squashed**2)\n"
                "    d_projection = sum over rows and columns of d_offsets[:, None] * hidden\n"
                "    d_convolved, d_norm_weight, d_norm_bias = norm_backward(gelu_backward(d_offsets @ projection))\n"
                "and for each dy, dx, with the slice `at` that `seen` is of `padded`,\n"
                "    d_padded[at] += d_convolved * conv_weight[:, dy, dx]\n"
                "    d_conv_weight[:, dy, dx] = (d_convolved * padded[at]).sum(axis=(0, 1))",
            ),
            sizes={"height": (1, 2, 3, 4), "width": (1, 2, 3, 4), "channels": (1, 2, 3), "stride": (1, 2)},
            case=case,
            reference=reference,
            outputs=("positions",),
            gradients=GRADIENTS,
            mistakes=(
                *everywhere("the derivative of the tanh, 1 - tanh^2, is missing", "tanh"),
                *everywhere(
                    "the reach is missing: a position is the tanh times range_factor / (rows, columns), and so is its "
                    "gradient", "reach",
                ),
                *everywhere("y and x are swapped in the reach: the y of an offset belongs to the rows", "swap"),
                *everywhere("the backward of the GELU is missing", "gelu"),
                *everywhere("the backward of the norm is missing", "norm"),
                *everywhere(
                    "in the norm mean and variance are taken for constants: norm_backward knows how they move",
                    "statistics",
                ),
                Mistake(
                    "d_query", "the kernel is flipped: what the forward read with weight[:, dy, dx] gets its gradient "
                    "with the same weight",
                    wrong("query", flipped=True),
                ),
                Mistake(
                    "d_query", "the padding is cut off at one end only: padded has a border of one pixel on each side",
                    wrong("query", shifted=True),
                ),
            ),
        ),
    ),
)  # fmt: skip
