"""The second half of a block: a multilayer perceptron at each place."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, depthwise_conv
from ..runtime.threads import chunked, empty, parallel, slices
from .inference import plus_identity

MLP_GRAIN = 4_000_000  # multiply-adds of one layer that are worth waking a thread for


class MLP(Module):
    """Linear, GELU, linear; x: (B, H, W, dim) -> the same shape, `hidden` channels in between.

    `convolutional` lets neighbours exchange something in between: h += depthwise 3x3 convolution of h (DAT++,
    section 3.4).
    """

    def __init__(self, dim: int, hidden: int, *, convolutional: bool) -> None:
        self.fc1 = Linear(dim, hidden)
        self.depthwise = depthwise_conv(hidden) if convolutional else None
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        if not context.gradients:
            layers = [layer for layer in (self.fc1, self.fc2, self.depthwise) if layer is not None]
            return context.apply(mlp_inference, x, *(p for layer in layers for p in (layer.weight, layer.bias)))
        h, fc1_backward = self.fc1.forward(x, context)
        if self.depthwise is not None:
            local, depthwise_backward = self.depthwise.forward(h, context)
            h += local
        h, gelu_backward = context.apply(ops.gelu, h, inference=not context.gradients)
        output, fc2_backward = self.fc2.forward(h, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_h = gelu_backward(fc2_backward(d_output))
            if self.depthwise is not None:
                d_h += depthwise_backward(d_h)
            return fc1_backward(d_h)

        return output, backward


def mlp_inference(
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
    depthwise_weight: np.ndarray | None = None,
    depthwise_bias: np.ndarray | None = None,
) -> tuple[np.ndarray, None]:
    """The MLP without a backward, in one go: output = gelu(h) W2^T + b2 with h = x W1^T + b1, or h + depthwise(h).

    x: (B, H, W, C) or, without the depthwise convolution, (..., C); weight1: (hidden, C), bias1: (hidden,), weight2:
    (C, hidden), bias2: (C,), depthwise_weight: (hidden, 1, 3, 3), depthwise_bias: (hidden,) -> output: as x.

    Each thread has a share of the hidden units, from the first layer to the second, whose outputs are then added up
    (the tensor parallelism of Megatron-LM, arXiv 1909.08053, Fig. 3a): threads meet once, not at every operator.
    """
    tokens = x.reshape(-1, x.shape[-1])  # (N, C)
    shares = slices(len(weight1), grain=1 + MLP_GRAIN // tokens.size)
    partial_sums = empty((len(shares), *tokens.shape), x.dtype)

    def plain(units: slice) -> np.ndarray:
        h = weight1[units] @ tokens.T  # (units, N): with tokens as columns OpenBLAS is a tenth faster
        h += bias1[units, None]
        h, _ = ops.gelu(h, inference=True)
        return (weight2[:, units] @ h).T

    def convolutional(units: slice) -> np.ndarray:
        assert depthwise_weight is not None
        assert depthwise_bias is not None
        h, _ = ops.linear(x, weight1[units], bias1[units])
        kernel = plus_identity(depthwise_weight[units])
        h, _ = ops.conv2d(h, kernel, depthwise_bias[units], padding=1, groups=len(kernel))
        h, _ = ops.gelu(h, inference=True)
        return ops.linear(h, weight2[:, units], None)[0].reshape(tokens.shape)

    def sum_some(start: int, stop: int) -> None:
        for i in range(start, stop):
            partial_sums[i] = (plain if depthwise_weight is None else convolutional)(shares[i])

    parallel(sum_some, len(shares))
    return sum_partial(partial_sums, bias2).reshape(x.shape), None


def sum_partial(partial_sums: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the shares of a sum, (shares, N, C), and the bias (C,) add up to: (N, C)."""
    output = empty(partial_sums.shape[1:], bias.dtype)

    def work(part: slice) -> None:
        np.add(partial_sums[0, part], bias, out=output[part])
        for partial_sum in partial_sums[1:]:
            output[part] += partial_sum[part]

    chunked(work, *output.shape)
    return output
