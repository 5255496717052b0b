"""The second half of a block: a multilayer perceptron at each place."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, depthwise_conv
from ..ops._threads import parallel

MLP_GRAIN = 250_000  # multiply-adds of one layer that are worth waking a thread for


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
        if not context.gradients and self.depthwise is None:
            layers = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
            return context.apply(mlp_inference, x, *layers)
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
    x: np.ndarray, weight1: np.ndarray, bias1: np.ndarray, weight2: np.ndarray, bias2: np.ndarray
) -> tuple[np.ndarray, None]:
    """The plain MLP without a backward: output = gelu(x W1^T + b1) W2^T + b2, in one go.

    x: (..., C), weight1: (hidden, C), bias1: (hidden,), weight2: (C, hidden), bias2: (C,) -> output: (..., C). Each
    thread has a share of the hidden units, from the first layer to the second, whose outputs are then added up (the
    tensor parallelism of Megatron-LM, arXiv 1909.08053, Fig. 3a). Tokens are columns meanwhile, a tenth faster in
    OpenBLAS.
    """
    tokens = x.reshape(-1, x.shape[-1]).T  # (C, N)
    shares: dict[int, np.ndarray] = {}

    def work(start: int, stop: int) -> None:
        h = weight1[start:stop] @ tokens  # (units, N)
        h += bias1[start:stop, None]
        h, _ = ops.gelu(h, inference=True)
        shares[start] = weight2[:, start:stop] @ h  # (C, N)

    parallel(work, len(weight1), grain=1 + MLP_GRAIN // tokens.size)
    first, *others = (shares[start] for start in sorted(shares))
    for other in others:
        first += other
    output = np.add(first.T, bias2, out=np.empty(first.T.shape, x.dtype))
    return output.reshape(x.shape), None
