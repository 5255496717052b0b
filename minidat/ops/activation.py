"""Activations: what stands between the linear maps. All work element by element but softmax, which has an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..runtime.threads import chunked, current, empty

Backward = Callable[[np.ndarray], tuple[np.ndarray]]

GELU_GRAIN = 196608  # numbers that are worth waking a thread for
# log Phi(-z) = (... (c7 z + c6) z + ...) z + c0 for z >= 0. These make the largest of max(1, z) |error of Phi| least,
# found by least squares whose weights grow where the error is large (C. L. Lawson, 1961). c7 was chosen beforehand:
# below 0, so that Phi(-z) vanishes far out.
LOG_TAIL = np.array(
    [-5e-7, 2.22235044e-5, -5.02573276e-4, 5.47528957e-3, -3.68125058e-2, -0.318153889, -0.797903128, -0.693146837],
    np.float32,
)


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
    output = x - x.max(axis=axis, keepdims=True)
    np.exp(output, out=output)
    output /= output.sum(axis=axis, keepdims=True)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_x = d_output * output  # d_x = p (d - sum(d p))
        d_x -= output * d_x.sum(axis=axis, keepdims=True)
        return (d_x,)

    return output, backward


def gelu(x: np.ndarray, *, inference: bool = False) -> tuple[np.ndarray, Backward | None]:
    """The exact GELU: output = x Phi(x), with Phi the distribution function of the standard normal.

    x: (...) -> output: (...), the same shape. float64 is exact to rounding (SciPy's ndtr); float32 to 6e-7 absolute.
    With `inference` the output may overwrite x and there is no backward (None).
    Reference: arXiv 1606.08415, section 2; torch.nn.functional.gelu.
    """
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 and x.flags.c_contiguous else np.ascontiguousarray(x).reshape(-1, 1)
    in_place = inference and current() is None  # other processes may still need x
    output = rows if in_place else empty(rows.shape, rows.dtype)
    derivative = None if inference else np.empty_like(rows)  # Phi(x) + x phi(x): all that backward needs
    gelu_part = _gelu_float32 if x.dtype == np.float32 else _gelu_exact

    def work(part: slice) -> None:
        gelu_part(rows[part], output[part], None if derivative is None else derivative[part])

    chunked(work, *rows.shape, grain=GELU_GRAIN)
    if derivative is None:
        return output.reshape(x.shape), None

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * derivative.reshape(x.shape),)

    return output.reshape(x.shape), backward


def _gelu_exact(x: np.ndarray, output: np.ndarray, derivative: np.ndarray | None) -> None:
    """Write x Phi(x) to `output` (may be x) and Phi(x) + x phi(x) to `derivative`, with SciPy's Phi."""
    from scipy.special import ndtr

    probability = ndtr(x)
    if derivative is not None:
        np.multiply(x, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), out=derivative)
        derivative += probability
    np.multiply(x, probability, out=output)


def _gelu_float32(x: np.ndarray, output: np.ndarray, derivative: np.ndarray | None) -> None:
    """As `_gelu_exact`, several times faster: log Phi(-z), with z = |x|, is nearly a parabola, and a polynomial here.

    The error of Phi is below 3e-7 everywhere, that of x Phi(x) below 6e-7.
    """
    half = np.float32(0.5)
    with np.errstate(over="ignore"):  # a z^2 beyond float32 gives a density of 0, as it should
        z = np.abs(x)
        tail = z * LOG_TAIL[0]
        for coefficient in LOG_TAIL[1:-1]:
            tail += coefficient
            tail *= z
        tail += LOG_TAIL[-1]
        np.exp(tail, out=tail)  # Phi(-z)
        center = np.subtract(half, tail, out=tail)  # Phi(z) - 1/2
        if derivative is not None:
            density = x * x
            density *= -half
            np.exp(density, out=density)
            density *= x
            density *= np.float32((2 * np.pi) ** -0.5)  # x phi(x)
            np.copysign(center, x, out=derivative)  # Phi(x) - 1/2
            derivative += half
            derivative += density
        z *= center
        np.multiply(x, half, out=output)  # x Phi(x) = x / 2 + z (Phi(z) - 1/2)
        output += z


def log_spaced(x: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Compress distances: output = sign(x) log2(1 + |x|) / log2(8), so that +-7 becomes +-1.

    x: (...) -> output: (...), the same shape. Source: Swin V2 (arXiv 2111.09883), Eq. 4, with the authors' divisor.
    """
    magnitude = np.abs(x) + 1

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * np.abs(np.sign(x)) / (magnitude * x.dtype.type(3 * np.log(2))),)

    return np.copysign(np.log2(magnitude) / 3, x), backward
