"""Anchors: the boxes that a detector starts from, the same few around every pixel of every level of the pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def base_anchors(stride: int, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """The anchors around the origin: (A, 4) float32, A = ratios x scales, all scales of the first ratio first.

    A ratio r is height / width: an anchor of scale s is s stride sqrt(r) high and s stride / sqrt(r) wide.
    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.1; float32 at each step, as the authors' mmdetection has them.
    """
    roots = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    sides = np.asarray(scales, np.float32)
    heights = (np.float32(stride) * roots * sides).ravel()
    widths = (np.float32(stride) * (1 / roots) * sides).ravel()
    return np.stack([-widths / 2, -heights / 2, widths / 2, heights / 2], axis=1)


def level_anchors(size: tuple[int, int], stride: int, base: np.ndarray) -> np.ndarray:
    """The base anchors (A, 4) moved to each pixel of a map of `size` (H, W): (H W A, 4), rows first, anchors last.

    Pixel (y, x) stands for the point (x stride, y stride) of the image, which is not its center. In the base's dtype.
    """
    y, x = np.meshgrid(np.arange(size[0]) * stride, np.arange(size[1]) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1).astype(base.dtype)  # (H, W, 4)
    return (shifts[:, :, None] + base).reshape(-1, 4)
