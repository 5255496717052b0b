"""The feature pyramid: a backbone's maps made alike, and the coarse ones told to the fine ones (arXiv 1612.03144)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Conv2d, Module
from ..nn.initializers import constant, xavier_uniform

Maps = list[np.ndarray]


class FeaturePyramid(Module):
    """Maps of several widths, fine to coarse -> as many of `channels` channels and the same sizes, then coarser ones.

    1x1 convolutions (`laterals`) bring them to one width; from coarse to fine, each is repeated to the next one's size
    (nearest) and added to it; a 3x3 convolution smooths each sum (`outputs`). No norm and no activation.

    Each of `extra_levels` more has half the size of the one before: a 3x3 convolution of stride 2, also among
    `outputs`, of which the first sees the coarsest of the maps that come in, the next what the one before gave; or,
    `pooled`, every second pixel of the level before.
    """

    def __init__(self, in_channels: list[int], channels: int, *, extra_levels: int = 0, pooled: bool = False) -> None:
        self.laterals = [Conv2d(width, channels, 1) for width in in_channels]
        self.outputs = [Conv2d(channels, channels, 3, padding=1) for _ in in_channels]
        self.extra_levels, self.pooled = extra_levels, pooled
        if not pooled:
            widths = [in_channels[-1], *[channels] * extra_levels][:extra_levels]
            self.outputs += [Conv2d(width, channels, 3, stride=2, padding=1) for width in widths]
        for conv in (*self.laterals, *self.outputs):
            assert conv.bias is not None
            conv.weight.initializer, conv.bias.initializer = xavier_uniform, constant(0.0)

    def forward(self, features: Maps, context: Context) -> tuple[Maps, Backward]:
        """Backward takes a list of gradients, one for each level, and returns one for each map."""
        maps, lateral_backwards = [], []
        for lateral, feature in zip(self.laterals, features, strict=True):
            x, lateral_backward = lateral.forward(feature, context)
            maps.append(x)
            lateral_backwards.append(lateral_backward)
        step_backwards = {}
        for i in reversed(range(len(maps) - 1)):
            coarser, step_backwards[i] = context.apply(
                ops.resize, maps[i + 1], size=maps[i].shape[1:3], method="nearest"
            )
            maps[i] = maps[i] + coarser
        levels, output_backwards = [], []
        for output, x in zip(self.outputs, maps, strict=False):
            level, output_backward = output.forward(x, context)
            levels.append(level)
            output_backwards.append(output_backward)
        extra, extra_backward = self._extra(features[-1], levels[-1], context)

        def backward(d_levels: Maps) -> Maps:
            d_coarsest, d_last = extra_backward(d_levels[len(maps) :])
            d_levels = [*d_levels[: len(maps) - 1], d_levels[len(maps) - 1] + d_last]
            d_maps = [output_backward(d) for output_backward, d in zip(output_backwards, d_levels, strict=True)]
            for i in range(len(d_maps) - 1):
                d_maps[i + 1] = d_maps[i + 1] + step_backwards[i](d_maps[i])
            d_features = [lateral_backward(d) for lateral_backward, d in zip(lateral_backwards, d_maps, strict=True)]
            d_features[-1] = d_features[-1] + d_coarsest
            return d_features

        return levels + extra, backward

    def _extra(self, coarsest: np.ndarray, last: np.ndarray, context: Context) -> tuple[Maps, Backward]:
        """The levels beyond, from the coarsest map or the last level; backward returns the gradients of these two."""
        x, levels, backwards = last if self.pooled else coarsest, [], []
        for i in range(self.extra_levels):
            if self.pooled:
                x, level_backward = context.apply(ops.max_pool, x, kernel=1, stride=2)
            else:
                x, level_backward = self.outputs[len(self.laterals) + i].forward(x, context)
            levels.append(x)
            backwards.append(level_backward)

        def backward(d_levels: Maps) -> tuple[np.ndarray, np.ndarray]:
            d_coarsest, d_last = np.zeros_like(coarsest), np.zeros_like(last)
            if not d_levels:
                return d_coarsest, d_last
            d_x = np.zeros_like(d_levels[-1])
            for level_backward, d_level in zip(reversed(backwards), reversed(d_levels), strict=True):
                d_x = level_backward(d_level + d_x)
            return (d_coarsest, d_x) if self.pooled else (d_x, d_last)

        return levels, backward
