"""Semantic FPN: a feature pyramid whose levels meet at the finest one (arXiv 1901.02446, Fig. 3)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..models.pyramid import FeaturePyramid
from ..nn import Backward, Context, ConvNorm, Module
from .classifier import PixelClassifier
from .config import SemanticFPNConfig
from .maps import Maps, apply_each, resize_each
from .segmentor import Segmentor


class ScaleHead(Module):
    """Up from one level of the pyramid: `steps` times a 3x3 convolution and twice the size, at least one convolution.

    x (B, H, W, in_channels) -> (B, 2^steps H, 2^steps W, channels).
    """

    def __init__(self, in_channels: int, channels: int, steps: int) -> None:
        self.steps = steps
        self.convs = [ConvNorm(in_channels if i == 0 else channels, channels, 3) for i in range(max(steps, 1))]

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        backwards = []
        for conv in self.convs:
            x, conv_backward = conv.forward(x, context)
            backwards.append(conv_backward)
            if self.steps > 0:
                x, resize_backward = context.apply(ops.resize, x, size=(2 * x.shape[1], 2 * x.shape[2]))
                backwards.append(resize_backward)

        def backward(d_output: np.ndarray) -> np.ndarray:
            for step_backward in reversed(backwards):
                d_output = step_backward(d_output)
            return d_output

        return x, backward


class FPNHead(Module):
    """The pyramid's levels, fine to coarse -> logits (B, H, W, num_classes) of the finest one's size.

    Each goes up by a ScaleHead of its own, and is resized to the finest one's size, which 2^steps may exceed; the sum
    is classified.
    """

    def __init__(self, levels: int, config: SemanticFPNConfig) -> None:
        self.scale_heads = [ScaleHead(config.pyramid_channels, config.channels, i) for i in range(levels)]
        self.classifier = PixelClassifier(config.channels, config.num_classes, config.dropout)

    def forward(self, levels: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        """Backward takes the logits' gradient and returns a list with one for each level."""
        maps, heads_backward = apply_each(self.scale_heads, levels, context)
        resized, resize_backward = resize_each(maps[1:], maps[0].shape[1:3], context)
        total = sum(resized, start=maps[0])
        logits, classifier_backward = self.classifier.forward(total, context)

        def backward(d_logits: np.ndarray) -> Maps:
            d_total = classifier_backward(d_logits)
            return heads_backward([d_total, *resize_backward([d_total] * len(resized))])

        return logits, backward


class SemanticFPN(Segmentor):
    """Semantic FPN on a DAT backbone (DAT++, section 4.4)."""

    def __init__(self, config: SemanticFPNConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        dims = [stage.dim for stage in config.backbone.stages]
        self.pyramid = FeaturePyramid(dims, config.pyramid_channels)
        self.decode_head = FPNHead(len(dims), config)
        self.set_paths()

    def decode(self, features: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        levels, pyramid_backward = self.pyramid.forward(features, context)
        logits, head_backward = self.decode_head.forward(levels, context)

        def backward(d_logits: np.ndarray) -> Maps:
            return pyramid_backward(head_backward(d_logits))

        return logits, backward
