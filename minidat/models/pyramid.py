"""The feature pyramid: a backbone's maps made alike, and the coarse ones told to the fine ones (arXiv 1612.03144)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Conv2d, Module

Maps = list[np.ndarray]


class FeaturePyramid(Module):
    """Maps of several widths, fine to coarse -> as many of `channels` channels, of the same sizes.

    1x1 convolutions (`laterals`) bring them to one width; from coarse to fine, each is repeated to the next one's size
    (nearest) and added to it; a 3x3 convolution smooths each sum (`outputs`). No norm and no activation.
    """

    def __init__(self, in_channels: list[int], channels: int) -> None:
        self.laterals = [Conv2d(width, channels, 1) for width in in_channels]
        self.outputs = [Conv2d(channels, channels, 3, padding=1) for _ in in_channels]

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
        for output, x in zip(self.outputs, maps, strict=True):
            level, output_backward = output.forward(x, context)
            levels.append(level)
            output_backwards.append(output_backward)

        def backward(d_levels: Maps) -> Maps:
            d_maps = [output_backward(d) for output_backward, d in zip(output_backwards, d_levels, strict=True)]
            for i in range(len(d_maps) - 1):
                d_maps[i + 1] = d_maps[i + 1] + step_backwards[i](d_maps[i])
            return [lateral_backward(d) for lateral_backward, d in zip(lateral_backwards, d_maps, strict=True)]

        return levels, backward
