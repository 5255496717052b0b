# minidat exercise: nms
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def nms(boxes: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """boxes (N, 4) as (x1, y1, x2, y2), scores (N,) -> kept (n,), the numbers of the boxes that stay, best first."""
    candidates = np.argsort(-scores)
    kept = []
    while len(candidates):
        best, rest = candidates[0], candidates[1:]
        kept.append(best)
        candidates = rest[iou(boxes[best], boxes[rest]) <= threshold]
    return np.array(kept)


# --- given ------------------------------------------------------------------------------------------------------------


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """One box (4,), others (N, 4) -> the intersection over union of each with the box, (N,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = sides.clip(0).prod(axis=1)
    return intersection / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection)
