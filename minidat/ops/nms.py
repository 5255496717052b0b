"""Non-maximum suppression: of boxes that overlap much, only the best stays. It chooses, so it has no gradient."""

from __future__ import annotations

import numpy as np

from ._shapes import check
from .boxes import box_iou


def nms(boxes: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """Greedy suppression: keep the best box, drop all whose IoU with it exceeds `threshold`, go on with the rest.

    boxes: (N, 4), scores: (N,) -> kept: (n,) indices, best first; equal scores in their order.
    Raises ShapeError for other shapes. Source: R-CNN (arXiv 1311.2524), section 2.2; the threshold is a float32, as in
    the authors' C code.
    """
    check(boxes.ndim == 2 and boxes.shape[1] == 4, "nms", "shape of boxes", boxes.shape, "(N, 4)")
    check(scores.shape == boxes.shape[:1], "nms", "shape of scores", scores.shape, boxes.shape[:1])
    candidates = np.argsort(-scores, kind="stable")
    kept = []
    while candidates.size:
        best, rest = candidates[0], candidates[1:]
        kept.append(best)
        overlaps, _ = box_iou(boxes[best], boxes[rest])
        candidates = rest[~(overlaps > np.float32(threshold))]  # what has no overlap, NaN, stays
    return np.array(kept, dtype=np.intp)


def class_nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, *, threshold: float) -> np.ndarray:
    """Greedy suppression (`nms`) in each class on its own: boxes of two classes never suppress each other.

    boxes: (N, 4), scores: (N,), classes: (N,) integers -> kept: (n,) indices, best first of all classes.
    Raises ShapeError for other shapes. Source: the last step of every detector here.
    """
    check(classes.shape == scores.shape, "class_nms", "shape of classes", classes.shape, scores.shape)
    kept = np.zeros(len(scores), bool)
    for one in np.unique(classes):
        members = np.flatnonzero(classes == one)
        kept[members[nms(boxes[members], scores[members], threshold=threshold)]] = True
    indices = np.flatnonzero(kept)
    return indices[np.argsort(-scores[indices], kind="stable")]
