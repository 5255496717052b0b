"""What mirrors, resizes or crops a picture does the same to the boxes and masks of its objects.

Pictures are (H, W, 3) uint8, boxes (x1, y1, x2, y2) and polygons in pixels, of which the first spans 0 to 1. A mask
stays what it is, but for a run-length encoding, which becomes an array (H, W) of bool. Arguments stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .dense_preprocessing import scale_factor
from .masks import decode_rle
from .resizing import resize_bilinear, resize_nearest
from .targets import BoxTargets


def flip(image: np.ndarray, targets: BoxTargets) -> tuple[np.ndarray, BoxTargets]:
    """Mirror left to right: x becomes W - x."""
    width = image.shape[1]
    x1, y1, x2, y2 = targets.boxes.T
    boxes = np.stack((width - x2, y1, width - x1, y2), axis=1)
    masks = _moved(targets.masks, lambda points: (width, 0) + points * (-1, 1), lambda mask: mask[:, ::-1])
    return np.ascontiguousarray(image[:, ::-1]), BoxTargets(boxes, targets.labels, masks)


def resize(image: np.ndarray, targets: BoxTargets, size: tuple[int, int]) -> tuple[np.ndarray, BoxTargets]:
    """Resize to (height, width) `size`: as `resize_bilinear`, masks of pixels as `resize_nearest`.

    Boxes are cut off at the border.
    """
    factor = scale_factor(image.shape[:2], size)
    boxes = np.clip(targets.boxes * factor.astype(targets.boxes.dtype), 0, (*size[::-1], *size[::-1]))
    exact = np.divide(size[::-1], image.shape[1::-1])
    masks = _moved(targets.masks, lambda points: points * exact, lambda mask: resize_nearest(mask, size))
    return resize_bilinear(image, size), BoxTargets(boxes.astype(targets.boxes.dtype), targets.labels, masks)


def crop(
    image: np.ndarray, targets: BoxTargets, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, BoxTargets]:
    """Cut out the piece of (height, width) `size` whose upper left corner is at (y, x) `corner`.

    Boxes are cut off at its border; an object whose box is then empty goes, with its label and mask. Polygons are moved
    alone: what lies outside is cut off when they are drawn.
    """
    (top, left), (height, width) = corner, size
    boxes = np.clip(targets.boxes - (left, top, left, top), 0, (width, height, width, height))
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    masks = None if targets.masks is None else [targets.masks[i] for i in kept]
    masks = _moved(
        masks, lambda points: points - (left, top), lambda mask: mask[top : top + height, left : left + width]
    )
    piece = np.ascontiguousarray(image[top : top + height, left : left + width])
    return piece, BoxTargets(boxes[kept].astype(targets.boxes.dtype), targets.labels[kept], masks)


def _moved(
    masks: list[Any] | None, move: Callable[[np.ndarray], np.ndarray], cut: Callable[[np.ndarray], np.ndarray]
) -> list[Any] | None:
    """Masks after `move` of the corners (K, 2), (x, y) each, of their polygons, or `cut` of their pixels (H, W)."""
    if masks is None:
        return None
    moved: list[Any] = []
    for mask in masks:
        if isinstance(mask, list):
            moved.append([move(np.reshape(polygon, (-1, 2))).ravel().tolist() for polygon in mask])
        else:
            moved.append(np.ascontiguousarray(cut(decode_rle(mask) if isinstance(mask, dict) else mask)))
    return moved
