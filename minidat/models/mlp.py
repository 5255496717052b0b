"""The second half of a block: a multilayer perceptron at each place."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, depthwise_conv


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
