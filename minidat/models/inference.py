"""What can be done with less, where nothing has to be kept for a backward pass.

Large maps are taken a few tokens at a time. What does not look at its neighbours (a window, a token of an MLP) is
worked on in small parts, each by one thread from its first operator to its last: the numbers in between never leave the
core's cache, and threads meet once, not at every operator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..runtime.threads import current, empty, in_parts, parallel

PART_FLOATS = 786432  # of the widest array in between
ADD_GRAIN = 262144  # numbers to add that are worth waking a thread for
FEWEST_TOKENS = 256  # below, a matrix product is faster when threads share its columns


def infer_in_parts(function: Callable[[slice], np.ndarray], x: np.ndarray, width: int) -> np.ndarray:
    """Put together what function(part) returns for slices `part` of the first axis of x: an array of the shape of x.

    x: (N, ..., dim); `width`: numbers a token has in between, at the widest.
    """
    tokens_each = x[0].size // x.shape[-1]
    fewest = -(-FEWEST_TOKENS // tokens_each)
    if len(x) < 2 * fewest:
        return function(slice(0, len(x)))
    output = empty(x.shape, x.dtype)

    def work(part: slice) -> None:
        output[part] = function(part)

    in_parts(work, len(x), step=max(2 * fewest, PART_FLOATS // (tokens_each * width)), grain=fewest)
    return output


def residual(x: np.ndarray, branch: np.ndarray, factors: np.ndarray | None = None) -> np.ndarray:
    """x + branch, or x + factors * branch: (..., C) and (C,).

    In the memory of the branch, if nobody else sees it: no operator that ends one needs its output for its backward.
    """
    output = branch if current() is None else empty(x.shape, x.dtype)

    def work(start: int, stop: int) -> None:
        part = (slice(None),) * (x.ndim > 2) + (slice(start, stop),)  # rows of maps, or tokens
        term = branch[part] if factors is None else np.multiply(branch[part], factors, out=output[part])
        np.add(x[part], term, out=output[part])

    count = x.shape[x.ndim > 2]
    parallel(work, count, grain=1 + ADD_GRAIN * count // x.size)
    return output


def plus_identity(weight: np.ndarray) -> np.ndarray:
    """The kernel (C, 1, k, k) of the depthwise convolution that gives x + conv(x)."""
    kernel = weight.copy()
    center = weight.shape[-1] // 2
    kernel[:, 0, center, center] += 1
    return kernel
