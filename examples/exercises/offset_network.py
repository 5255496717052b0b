# minidat exercise: offset_network
"""Exercise: the backward of the offset network (chapter 8, docs/pages/tutorial/08-reference-points.md).

A small network looks at the queries and says where to sample. Write its backward; the forward is given:

    convolved = a 3 x 3 convolution of each channel on its own, with stride and a border of zeros     (R, S, C)
    hidden    = gelu(layer_norm(convolved))                                                           (R, S, C)
    offsets   = hidden  times  projection^T                                                           (R, S, 2)
    positions = reference points + tanh(offsets) * range_factor / (R, S)                              (R, S, 2)

`layer_norm` and `gelu` are given with their backwards.

Check it with: minidat grade examples/exercises/offset_network.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import math
from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def offset_network(
    query: np.ndarray,
    conv_weight: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    projection: np.ndarray,
    *,
    stride: int,
    range_factor: float,
    eps: float,
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """query (H, W, C), conv_weight (C, 3, 3), norm's (C,) and (C,), projection (2, C) -> positions (R, S, 2), backward.

    R and S are H and W divided by the stride, rounded up. backward: d_output (R, S, 2) -> the gradients of query,
    conv_weight, norm_weight, norm_bias and projection, in this order.
    """
    height, width, channels = query.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padded = np.pad(query, ((1, 1), (1, 1), (0, 0)))
    convolved = np.zeros((rows, columns, channels))
    for dy in range(3):
        for dx in range(3):
            seen = padded[dy : dy + stride * rows : stride, dx : dx + stride * columns : stride]
            convolved += seen * conv_weight[:, dy, dx]
    normalized, norm_backward = layer_norm(convolved, norm_weight, norm_bias, eps)
    hidden, gelu_backward = gelu(normalized)
    offsets = hidden @ projection.T
    squashed = np.tanh(offsets)
    positions = reference_points(rows, columns) + squashed * range_factor / np.array([rows, columns])

    def backward(d_output: np.ndarray) -> Gradients:
        """d_output (R, S, 2) -> d_query, d_conv_weight, d_norm_weight, d_norm_bias, d_projection."""
        raise NotImplementedError

    return positions, backward


# --- given ------------------------------------------------------------------------------------------------------------


def reference_points(rows: int, columns: int) -> np.ndarray:
    """(R, S, 2), the centers (y, x) of R x S equal cells of [-1, 1] x [-1, 1]."""
    lines = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (rows, columns))
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> tuple[np.ndarray, Callable]:
    """x (R, S, C), weight (C,), bias (C,) -> output (R, S, C), backward: d_output -> d_x, d_weight, d_bias."""
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    normalized = (x - x.mean(axis=-1, keepdims=True)) / std

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = d_output * weight
        d_x = g - g.mean(axis=-1, keepdims=True) - normalized * (g * normalized).mean(axis=-1, keepdims=True)
        return d_x / std, (d_output * normalized).sum(axis=(0, 1)), d_output.sum(axis=(0, 1))

    return normalized * weight + bias, backward


def gelu(x: np.ndarray) -> tuple[np.ndarray, Callable]:
    """x of any shape -> x Phi(x), with Phi the distribution function of the normal distribution; d_output -> d_x."""
    probability = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * probability, lambda d_output: d_output * (probability + x * density)
