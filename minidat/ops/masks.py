"""From the small square mask of a box to the pixels of the image."""

from __future__ import annotations

import numpy as np

from ._shapes import check


def paste_mask(mask: np.ndarray, *, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a mask over its box, by bilinear interpolation: output[y, x] = sum_ij hat(v - i) hat(u - j) mask[i, j].

    (u, v) is the center of pixel (x, y) in pixels of the mask: u = (x + 1/2 - x1) / (x2 - x1) * w - 1/2, and hat(t) =
    max(0, 1 - |t|). Beyond one pixel around the box, its corners rounded outwards, there are zeros. Where a box has no
    width or height, the middle of the mask is meant.
    mask: (h, w) probabilities, box: (4,), (x1, y1, x2, y2) in pixels, size: (H, W) -> output: (H, W).
    Raises ShapeError for another number of axes. Source: Mask R-CNN, section 3.1, as mmdetection's FCNMaskHead does it.
    """
    check(mask.ndim == 2, "paste_mask", "shape of mask", mask.shape, "(h, w)")
    x1, y1, x2, y2 = box.tolist()
    along_y = _interpolation(y1, y2, mask.shape[0], size[0]).astype(mask.dtype)
    along_x = _interpolation(x1, x2, mask.shape[1], size[1]).astype(mask.dtype)
    return along_y @ mask @ along_x.T


def _interpolation(start: float, stop: float, length: int, pixels: int) -> np.ndarray:
    """The (pixels, length) matrix that stretches `length` numbers over the pixels from `start` to `stop`."""
    centers = np.arange(pixels) + 0.5
    relative = (centers - start) / (stop - start) if stop > start else np.full(pixels, 0.5)
    hats = np.maximum(0, 1 - np.abs((relative * length - 0.5)[:, None] - np.arange(length)))
    near = (centers > np.floor(start) - 1) & (centers < np.ceil(stop) + 1)
    return hats * near[:, None]
