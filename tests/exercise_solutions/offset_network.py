# minidat exercise: offset_network
"""The reference solution of this exercise; the task is in examples/exercises."""

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
        d_offsets = d_output * range_factor / np.array([rows, columns]) * (1 - squashed**2)
        d_projection = np.einsum("rsk,rsc->kc", d_offsets, hidden)
        d_normalized = gelu_backward(d_offsets @ projection)
        d_convolved, d_norm_weight, d_norm_bias = norm_backward(d_normalized)
        d_padded, d_conv_weight = np.zeros_like(padded), np.zeros_like(conv_weight)
        for dy in range(3):
            for dx in range(3):
                at = np.s_[dy : dy + stride * rows : stride, dx : dx + stride * columns : stride]
                d_padded[at] += d_convolved * conv_weight[:, dy, dx]
                d_conv_weight[:, dy, dx] = (d_convolved * padded[at]).sum(axis=(0, 1))
        return d_padded[1:-1, 1:-1], d_conv_weight, d_norm_weight, d_norm_bias, d_projection

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
