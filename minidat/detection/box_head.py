"""The box head: what a region holds, and how its box is to be moved, a way for each class."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, ConvNorm, Linear, Module
from ..nn.initializers import constant, truncated_normal


class BoxHead(Module):
    """regions (n, size, size, channels) -> class logits (n, num_classes + 1) and box deltas (n, num_classes, 4).

    The last class is the background. 3x3 convolutions with batch normalization first, if there are any, then linear
    layers, each with a ReLU. Source: Faster R-CNN's head on a pyramid (arXiv 1612.03144, section 4.2); with four
    convolutions and one linear layer, that of Cascade Mask R-CNN in Swin (arXiv 2103.14030, section 4.2).
    """

    def __init__(
        self, channels: int, size: int, num_classes: int, *, convolutions: int, linears: int, features: int
    ) -> None:
        self.convs = [ConvNorm(channels, channels, 3) for _ in range(convolutions)]
        widths = [channels * size**2] + [features] * linears
        self.linears = [Linear(widths[i], widths[i + 1]) for i in range(linears)]
        self.classifier = Linear(widths[-1], num_classes + 1)
        self.regressor = Linear(widths[-1], 4 * num_classes)
        for linear, std in ((self.classifier, 0.01), (self.regressor, 0.001)):
            assert linear.bias is not None
            linear.weight.initializer, linear.bias.initializer = truncated_normal(std), constant(0.0)

    def forward(self, x: np.ndarray, context: Context) -> tuple[tuple[np.ndarray, np.ndarray], Backward]:
        """Backward takes the two gradients, (d_logits, d_deltas), and returns that of the regions."""
        conv_backwards, linear_backwards = [], []
        for conv in self.convs:
            x, conv_backward = conv.forward(x, context)
            conv_backwards.append(conv_backward)
        map_shape = x.shape
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # (n, channels size^2), in PyTorch's order
        for linear in self.linears:
            x, linear_backward = linear.forward(x, context)
            x, relu_backward = context.apply(ops.relu, x)
            linear_backwards += [linear_backward, relu_backward]
        logits, classifier_backward = self.classifier.forward(x, context)
        deltas, regressor_backward = self.regressor.forward(x, context)

        def backward(d_logits: np.ndarray, d_deltas: np.ndarray) -> np.ndarray:
            d_x = classifier_backward(d_logits) + regressor_backward(d_deltas.reshape(deltas.shape))
            for step_backward in reversed(linear_backwards):
                d_x = step_backward(d_x)
            n, height, width, channels = map_shape
            d_x = d_x.reshape(n, channels, height, width).transpose(0, 2, 3, 1)
            for conv_backward in reversed(conv_backwards):
                d_x = conv_backward(d_x)
            return d_x

        return (logits, deltas.reshape(len(x), -1, 4)), backward
