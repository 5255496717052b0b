"""The second half of a block: a multilayer perceptron at each place."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, depthwise_conv


class MLP(Module):
    """Linear, GELU, linear; x: (B, H, W, dim) -> the same shape, `hidden` channels in between.

    `convolutional` lets neighbors exchange something in between: h += depthwise 3x3 convolution of h (DAT++,
    section 3.4).
    """

    def __init__(self, dim: int, hidden: int, *, convolutional: bool) -> None:
        self.fc1 = Linear(dim, hidden)
        self.depthwise = depthwise_conv(hidden) if convolutional else None
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        first, last = (self.fc1.weight, self.fc1.bias), (self.fc2.weight, self.fc2.bias)
        if self.depthwise is None:
            return context.apply(ops.mlp, x, *first, *last)
        middle = (self.depthwise.weight, self.depthwise.bias)
        return context.apply(ops.convolutional_mlp, x, *first, *middle, *last)
