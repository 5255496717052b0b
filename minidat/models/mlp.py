"""The second half of a block: a multilayer perceptron at each place."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, depthwise_conv
from ..ops._threads import parallel

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
        h, gelu_backward = context.apply(ops.gelu, h)
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
    shares: dict[int, np.ndarray] = {}

    def plain_share(start: int, stop: int) -> None:
        h = weight1[start:stop] @ tokens.T  # (units, N): with tokens as columns OpenBLAS is a tenth faster
        h += bias1[start:stop, None]
        h, _ = ops.gelu(h, inference=True)
        shares[start] = np.ascontiguousarray((weight2[:, start:stop] @ h).T)

    def convolutional_share(start: int, stop: int) -> None:
        assert depthwise_weight is not None
        assert depthwise_bias is not None
        units = slice(start, stop)
        h, _ = ops.linear(x, weight1[units], bias1[units])
        local, _ = ops.conv2d(h, depthwise_weight[units], depthwise_bias[units], padding=1, groups=stop - start)
        h += local
        h, _ = ops.gelu(h, inference=True)
        shares[start] = ops.linear(h, weight2[:, units], None)[0].reshape(tokens.shape)

    share = plain_share if depthwise_weight is None else convolutional_share
    parallel(share, len(weight1), grain=1 + MLP_GRAIN // tokens.size)
    output, *others = (shares[start] for start in sorted(shares))
    output += bias2
    for other in others:
        output += other
    return output.reshape(x.shape), None
