"""The perceptrons of a block, from the first layer to the second in one go: hidden units never leave the cache.

Many tokens are taken some at a time. Few tokens (a late stage of a single image) are taken together but for some hidden
units at a time, whose contributions to the output are added up (the tensor parallelism of Megatron-LM, arXiv
1909.08053, Fig. 3a). So is a convolution's share, which needs all tokens of an image, but few images at a time. Threads
meet once, not at every operator. For backward, GELU's output and derivative are kept.

On one core 4.5 times as fast as the textbook, most of it GELU's (`minidat bench dat_tiny --plain --threads 1`); 6
times with a convolution (`minidat bench datpp_tiny --plain --threads 1`).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..ops._shapes import check
from ..ops.linear import check_linear
from ..runtime.threads import chunked, column_sums, cut, empty, in_parts, parallel, product
from .conv2d import SUM_OVER_TAPS, as_taps, runs_of_pixels
from .gelu import gelu, gelu_into
from .linear import linear
from .local_perception import local_perception, with_identity

GRAIN = 4_000_000  # multiply-adds of one layer that are worth waking a thread for
HIDDEN_FLOATS = 786432  # hidden units of some tokens, at once
CONVOLVED_FLOATS = 524288  # hidden units of a share of some images, at once
FEWEST_TOKENS = 256  # below, a matrix product is faster with all tokens and some of the hidden units


def mlp(
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
    *,
    keep: bool = True,
) -> tuple[np.ndarray, Any]:
    """`ops.mlp`; with `keep` false there is no backward (None)."""
    check_linear(x, weight1, bias1)
    tokens = x.reshape(-1, x.shape[-1])  # (N, C)
    hidden, step = len(weight1), max(FEWEST_TOKENS, HIDDEN_FLOATS // len(weight1))
    if not keep and len(tokens) < 2 * FEWEST_TOKENS:
        return _sum_of_shares(tokens, weight1, bias1, weight2, bias2).reshape(x.shape), None
    output = empty((len(tokens), len(weight2)), x.dtype)
    activated = np.empty((len(tokens), hidden), x.dtype) if keep else None
    derivative = np.empty((len(tokens), hidden), x.dtype) if keep else None

    def forward(part: slice) -> None:
        h = tokens[part] @ weight1.T
        h += bias1
        g = h if activated is None else activated[part]
        gelu_into(h, g, None if derivative is None else derivative[part])
        np.matmul(g, weight2.T, out=output[part])
        output[part] += bias2

    in_parts(forward, len(tokens), step=step, grain=FEWEST_TOKENS)
    if activated is None or derivative is None:
        return output.reshape(x.shape), None

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_rows = d_output.reshape(output.shape)
        d_hidden, d_tokens = np.empty((len(tokens), hidden), x.dtype), np.empty(tokens.shape, x.dtype)

        def work(part: slice) -> None:
            np.matmul(d_rows[part], weight2, out=d_hidden[part])
            d_hidden[part] *= derivative[part]
            np.matmul(d_hidden[part], weight1, out=d_tokens[part])

        in_parts(work, len(tokens), step=step, grain=FEWEST_TOKENS)
        d_weight1, d_weight2 = product(d_hidden.T, tokens), product(d_rows.T, activated)
        return d_tokens.reshape(x.shape), d_weight1, column_sums(d_hidden), d_weight2, column_sums(d_rows)

    return output.reshape(x.shape), backward


def _sum_of_shares(
    tokens: np.ndarray, weight1: np.ndarray, bias1: np.ndarray, weight2: np.ndarray, bias2: np.ndarray
) -> np.ndarray:
    """What the shares of the hidden units contribute to the output, (N, C), added up."""
    shares = _shares(tokens, weight1)
    partial_sums = empty((len(shares), *tokens.shape), tokens.dtype)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            h = weight1[shares[i]] @ tokens.T  # (units, N): with tokens as columns OpenBLAS is a tenth faster
            h += bias1[shares[i], None]
            gelu_into(h, h, None)
            np.matmul(weight2[:, shares[i]], h, out=partial_sums[i].T)

    parallel(work, len(shares))
    return _add_up(partial_sums, bias2)


def convolutional_mlp(
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    kernel: np.ndarray,
    kernel_bias: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
    *,
    keep: bool = True,
) -> tuple[np.ndarray, Any]:
    """`ops.convolutional_mlp`; with `keep` false there is no backward (None)."""
    if keep:
        return _convolutional_mlp_with_backward(x, weight1, bias1, kernel, kernel_bias, weight2, bias2)
    check_linear(x, weight1, bias1)
    expected = len(weight1), 1
    check(kernel.shape[:2] == expected, "convolutional_mlp", "kernel", kernel.shape, (*expected, "k", "k"))
    taps, padding = as_taps(with_identity(kernel)), kernel.shape[-1] // 2
    batch, height, width, channels = x.shape
    shares = _shares(x.reshape(-1, channels), weight1)
    partial_sums = empty((len(shares), *x.shape), x.dtype)
    step = max(1, CONVOLVED_FLOATS * len(shares) // (height * width * len(weight1)))
    tasks = list(itertools.product(range(len(shares)), cut(batch, step=step, grain=batch)))

    def work(start: int, stop: int) -> None:
        for share, images in tasks[start:stop]:
            units, some_x = shares[share], x[images]
            h = some_x.reshape(-1, channels) @ weight1[units].T
            padded = np.zeros((len(some_x), height + 2 * padding, width + 2 * padding, h.shape[1]), x.dtype)
            inner = padded[:, padding : padding + height, padding : padding + width]
            np.add(h.reshape(inner.shape), bias1[units], out=inner)
            patches, tiled_taps = runs_of_pixels(padded, taps[:, :, units])
            np.einsum(SUM_OVER_TAPS, patches, tiled_taps, out=h.reshape(*patches.shape[:3], -1))
            h += kernel_bias[units]
            gelu_into(h, h, None)
            np.matmul(h, weight2[:, units].T, out=partial_sums[share, images].reshape(-1, channels))

    parallel(work, len(tasks))
    return _add_up(partial_sums.reshape(len(shares), -1, channels), bias2).reshape(x.shape), None


def _convolutional_mlp_with_backward(
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    kernel: np.ndarray,
    kernel_bias: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
) -> tuple[np.ndarray, Any]:
    """Operator by operator, as in the textbook: each pass over the map needs all tokens."""
    h, linear1_backward = linear(x, weight1, bias1)
    local, local_backward = local_perception(h, kernel, kernel_bias)
    g, gelu_backward = gelu(local)
    output, linear2_backward = linear(g, weight2, bias2)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
        d_g, d_weight2, d_bias2 = linear2_backward(d_output)
        d_h, d_kernel, d_kernel_bias = local_backward(*gelu_backward(d_g))
        return *linear1_backward(d_h), d_kernel, d_kernel_bias, d_weight2, d_bias2

    return output, backward


def _shares(tokens: np.ndarray, weight1: np.ndarray) -> list[slice]:
    """The hidden units in as many shares as there is work for."""
    return cut(len(weight1), step=len(weight1), grain=1 + GRAIN // max(1, tokens.size))


def _add_up(partial_sums: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The sum of the shares, (shares, N, C), and the bias (C,): (N, C)."""
    output = empty(partial_sums.shape[1:], partial_sums.dtype)

    def work(part: slice) -> None:
        np.add(partial_sums[0, part], bias, out=output[part])
        for partial_sum in partial_sums[1:]:
            output[part] += partial_sum[part]

    chunked(work, *output.shape)
    return output
