# minidat exercise: average_precision
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def match_detections(ious: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """ious (N, G), the overlap of each detection with each object, scores (N,) -> right (N,), of bool."""
    right = np.zeros(len(scores), bool)
    free = np.ones(ious.shape[1], bool)
    for detection in np.argsort(-scores):
        best = np.where(free, ious[detection], -1).argmax()
        if free[best] and ious[detection, best] >= threshold:
            right[detection], free[best] = True, False
    return right


def average_precision(scores: np.ndarray, right: np.ndarray, *, total: int) -> np.ndarray:
    """scores (N,), right (N,) of bool, total: the number of objects, found or not -> ap, a single number."""
    found = np.cumsum(right[np.argsort(-scores)])
    precision = found / np.arange(1, len(found) + 1)
    recall = found / total
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = recall.searchsorted(np.linspace(0, 1, 101))
    return np.append(best, 0)[places].mean()
