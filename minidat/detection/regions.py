"""Regions of interest: from a box anywhere in the image to a small map of fixed size, taken from the level it suits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..models.pyramid import Maps
from ..nn import Backward, Context

CANONICAL_SIDE = 56  # pixels: a square box from this side on goes one level up each time its side doubles
LEVELS = 4  # of the pyramid that regions are taken from; the coarsest one is for proposals alone


def region_levels(boxes: np.ndarray) -> np.ndarray:
    """The pyramid level of each box: floor(log2(sqrt(w h) / 56)), within the first four.

    boxes: (n, 4) -> (n,) integers. Source: Feature Pyramid Networks (arXiv 1612.03144), Eq. 1, with 56 for the finest
    level's 224 / 2^2.
    """
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return np.floor(np.log2(sides / CANONICAL_SIDE + 1e-6)).clip(0, LEVELS - 1).astype(int)


def pool_regions(
    levels: Maps,
    strides: Sequence[int],
    boxes: np.ndarray,
    images: np.ndarray,
    size: int,
    context: Context,
) -> tuple[np.ndarray, Backward]:
    """RoIAlign of every box on its own level of the pyramid.

    levels: maps (B, H / stride, W / stride, C), fine to coarse, of which the first four are read; boxes: (n, 4);
    images: (n,) -> (n, size, size, C). Backward returns a list with the gradient of every level, None for those
    without a box.
    """
    of_level = region_levels(boxes)
    pooled = np.empty((len(boxes), size, size, levels[0].shape[3]), levels[0].dtype)
    backwards: list[tuple[int, np.ndarray, Backward]] = []
    for i in np.unique(of_level).tolist():
        members = np.flatnonzero(of_level == i)
        pooled[members], level_backward = context.apply(
            ops.roi_align, levels[i], boxes=boxes[members], images=images[members], size=size, scale=1 / strides[i]
        )
        backwards.append((i, members, level_backward))

    def backward(d_pooled: np.ndarray) -> list[np.ndarray | None]:
        d_levels: list[np.ndarray | None] = [None] * len(levels)
        for i, members, level_backward in backwards:
            d_levels[i] = level_backward(d_pooled[members])
        return d_levels

    return pooled, backward
