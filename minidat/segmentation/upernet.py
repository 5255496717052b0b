"""UperNet: pyramid pooling on the coarsest map, a pyramid from coarse to fine, fused (arXiv 1807.10221, Fig. 4)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, ConvNorm, Module
from .classifier import FCNHead, PixelClassifier
from .config import UperNetConfig
from .maps import Maps, apply_each, concatenate, resize_each
from .segmentor import Segmentor


class PyramidPooling(Module):
    """What surrounds a pixel at several scales: the map is averaged over grids of bins, projected and added to it.

    x (B, H, W, in_channels) -> (B, H, W, channels). Source: arXiv 1612.01105, section 3.2.
    """

    def __init__(self, in_channels: int, channels: int, scales: tuple[int, ...]) -> None:
        self.scales = scales
        self.branches = [ConvNorm(in_channels, channels, 1) for _ in scales]
        self.bottleneck = ConvNorm(in_channels + len(scales) * channels, channels, 3)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        grids, pool_backwards = [], []
        for scale in self.scales:
            pooled, pool_backward = context.apply(ops.adaptive_average_pool, x, size=(scale, scale))
            grids.append(pooled)
            pool_backwards.append(pool_backward)
        grids, branches_backward = apply_each(self.branches, grids, context)
        resized, resize_backward = resize_each(grids, x.shape[1:3], context)
        everything, concatenate_backward = concatenate([x, *resized])
        output, bottleneck_backward = self.bottleneck.forward(everything, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x, *d_resized = concatenate_backward(bottleneck_backward(d_output))
            d_grids = branches_backward(resize_backward(d_resized))
            for pool_backward, d_grid in zip(pool_backwards, d_grids, strict=True):
                d_x = d_x + pool_backward(d_grid)
            return d_x

        return output, backward


class UperHead(Module):
    """Four maps, fine to coarse -> logits (B, H, W, num_classes) of the finest one's size.

    The coarsest goes through pyramid pooling, the others through 1x1 convolutions (`laterals`). From coarse to fine,
    each is resized and added to the next (bilinear); a 3x3 convolution smooths each sum (`smoothing`). All are resized
    to the finest one's size and fused by another.
    """

    def __init__(self, in_channels: list[int], config: UperNetConfig) -> None:
        channels = config.channels
        self.pyramid_pooling = PyramidPooling(in_channels[-1], channels, config.pool_scales)
        self.laterals = [ConvNorm(width, channels, 1) for width in in_channels[:-1]]
        self.smoothing = [ConvNorm(channels, channels, 3) for _ in in_channels[:-1]]
        self.fusion = ConvNorm(len(in_channels) * channels, channels, 3)
        self.classifier = PixelClassifier(channels, config.num_classes, config.dropout)

    def forward(self, features: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        """Backward takes the logits' gradient and returns a list with one for each map."""
        fused, fused_backward = self.fused(features, context)
        logits, classifier_backward = self.classifier.forward(fused, context)

        def backward(d_logits: np.ndarray) -> Maps:
            return fused_backward(classifier_backward(d_logits))

        return logits, backward

    def fused(self, features: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        """The map that is classified, (B, H, W, channels)."""
        *fine, coarsest = features
        maps, laterals_backward = apply_each(self.laterals, fine, context)
        pooled, pooling_backward = self.pyramid_pooling.forward(coarsest, context)
        maps.append(pooled)
        step_backwards = {}
        for i in reversed(range(len(fine))):
            size = maps[i].shape[1:3]
            coarser, step_backwards[i] = context.apply(ops.resize, maps[i + 1], size=size)
            maps[i] = maps[i] + coarser
        smooth, smoothing_backward = apply_each(self.smoothing, maps[:-1], context)
        smooth.append(pooled)
        resized, resize_backward = resize_each(smooth, maps[0].shape[1:3], context)
        everything, concatenate_backward = concatenate(resized)
        output, fusion_backward = self.fusion.forward(everything, context)

        def backward(d_output: np.ndarray) -> Maps:
            d_everything = fusion_backward(d_output)
            *d_smooth, d_pooled = resize_backward(concatenate_backward(d_everything))
            d_maps = [*smoothing_backward(d_smooth), d_pooled]
            for i in range(len(fine)):
                d_maps[i + 1] = d_maps[i + 1] + step_backwards[i](d_maps[i])
            return [*laterals_backward(d_maps[:-1]), pooling_backward(d_maps[-1])]

        return output, backward


class UperNet(Segmentor):
    """UperNet on a DAT backbone, with its auxiliary head on the third stage (DAT, section 4.3; DAT++, section 4.4)."""

    def __init__(self, config: UperNetConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        dims = [stage.dim for stage in config.backbone.stages]
        self.decode_head = UperHead(dims, config)
        if config.auxiliary_channels is not None:
            self.auxiliary_head = FCNHead(dims[2], config.auxiliary_channels, config.num_classes, config.dropout)
        self.set_paths()

    def decode(self, features: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        return self.decode_head.forward(features, context)
