# minidat exercise: nms
"""Exercise: non-maximum suppression (chapter 19, docs/pages/tutorial/19-average-precision.md). Write it.

A detector finds each object many times. Of boxes that overlap much, only the best stays:

    the box with the highest score is kept,
    every other box whose IoU with it is above the threshold is dropped,
    and so on with the boxes that are left.

An IoU equal to the threshold is not above it. No two scores are equal.

Check it with: minidat grade examples/exercises/nms.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def nms(boxes: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """boxes (N, 4) as (x1, y1, x2, y2), scores (N,) -> kept (n,), the numbers of the boxes that stay, best first."""
    raise NotImplementedError


# --- given ------------------------------------------------------------------------------------------------------------


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """One box (4,), others (N, 4) -> the intersection over union of each with the box, (N,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = sides.clip(0).prod(axis=1)
    return intersection / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection)
