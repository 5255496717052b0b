"""The last layer of every head, and the head that is hardly more: FCN (arXiv 1411.4038)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Conv2d, ConvNorm, Module
from ..nn.initializers import constant, truncated_normal


class PixelClassifier(Conv2d):
    """A linear layer on every pixel, x (B, H, W, channels) -> logits (B, H, W, num_classes).

    In training whole channels are dropped before it, at the rate `dropout`.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(channels, num_classes, 1)
        assert self.bias is not None
        self.weight.initializer, self.bias.initializer = truncated_normal(0.01), constant(0.0)
        self.dropout = dropout

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        if not context.training or self.dropout == 0:
            return super().forward(x, context)
        kept, dropout_backward = context.apply(ops.channel_dropout, x, rate=self.dropout, rng=context.rng)
        logits, projection_backward = super().forward(kept, context)

        def backward(d_logits: np.ndarray) -> np.ndarray:
            return dropout_backward(projection_backward(d_logits))

        return logits, backward


class FCNHead(Module):
    """A 3x3 convolution with batch normalization and ReLU, then the classes.

    x (B, H, W, in_channels) -> logits (B, H, W, num_classes). UperNet's auxiliary head: on the third stage's map, for
    the loss alone.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, dropout: float) -> None:
        self.conv = ConvNorm(in_channels, channels, 3)
        self.classifier = PixelClassifier(channels, num_classes, dropout)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        x, conv_backward = self.conv.forward(x, context)
        logits, classifier_backward = self.classifier.forward(x, context)

        def backward(d_logits: np.ndarray) -> np.ndarray:
            return conv_backward(classifier_backward(d_logits))

        return logits, backward
