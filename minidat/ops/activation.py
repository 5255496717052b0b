"""Activations: what stands between the linear maps. All work element by element but softmax, which has an axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Backward = Callable[[np.ndarray], tuple[np.ndarray]]


def relu(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Cut off what is negative: output = max(0, x). The derivative at 0 is taken as 0.

    x: (...) -> output: (...), the same shape.
    Source: torch.nn.functional.relu; the hidden layer of DAT++'s log-spaced position bias.
    """
    output = np.maximum(x, 0)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * (output > 0),)

    return output, backward


def tanh(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Squash into (-1, 1): output = tanh(x).

    x: (...) -> output: (...), the same shape. Source: section 3.2 of the DAT paper, where it bounds the offsets.
    """
    output = np.tanh(x)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * (1 - output * output),)  # tanh' = 1 - tanh^2

    return output, backward


def sigmoid(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Squash into (0, 1): output = 1 / (1 + exp(-x)), written so that exp cannot overflow.

    x: (...) -> output: (...), the same shape. Source: torch.sigmoid; a detector's scores.
    """
    small = np.exp(-np.abs(x))
    output = np.where(x >= 0, 1, small) / (1 + small)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * output * (1 - output),)  # sigmoid' = p (1 - p)

    return output, backward


def softmax(x: np.ndarray, *, axis: int = -1) -> tuple[np.ndarray, Backward]:
    """Turn scores into probabilities: output = exp(x) / sum(exp(x)), the sum along `axis`.

    Computed from x - max(x), which is the same and cannot overflow. x: (..., N, ...) with N scores on `axis`
    -> output: (..., N, ...), of sum 1 along `axis`. Source: Eq. 2 of the DAT paper; torch.nn.functional.softmax.
    """
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    output = exponentials / exponentials.sum(axis=axis, keepdims=True)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        mean = (output * d_output).sum(axis=axis, keepdims=True)
        return (output * (d_output - mean),)

    return output, backward


def gelu(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """The exact GELU: output = x Phi(x), with Phi the distribution function of the standard normal.

    x: (...) -> output: (...), the same shape. Reference: arXiv 1606.08415, section 2; torch.nn.functional.gelu.
    """
    from scipy.special import ndtr  # here: SciPy takes long to import

    probability = ndtr(x)  # Phi(x)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        with np.errstate(over="ignore"):  # the density of 1e30 is 0
            density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return (d_output * (probability + x * density),)

    return x * probability, backward


def log_spaced(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Compress distances: output = sign(x) log2(1 + |x|) / log2(8), so that +-7 becomes +-1.

    x: (...) -> output: (...), the same shape. Source: Swin V2 (arXiv 2111.09883), Eq. 4, with the authors' divisor.
    """
    magnitude = np.abs(x) + 1

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * np.abs(np.sign(x)) / (magnitude * x.dtype.type(3 * np.log(2))),)

    return np.copysign(np.log2(magnitude) / 3, x), backward
