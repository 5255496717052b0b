# minidat exercise: average_precision
"""Exercise: average precision (chapter 19, docs/pages/tutorial/19-average-precision.md). Write two functions.

`match_detections` says which detections of one picture and class are right. They choose one after the other, the
highest score first. Each takes, of the objects that are still free and that it overlaps by at least the threshold, the
one it overlaps most. A detection that finds none is wrong: so is the second one of an object, if no other is free.

`average_precision` makes one number of all detections of a class. Taken by their scores, the highest first, they have
after each of them

    precision = right ones so far / detections so far          recall = right ones so far / total

AP is the mean, over the 101 recalls np.linspace(0, 1, 101), of the best precision at that recall or a higher one; 0
where a recall is never reached. This is COCO's rule. No two scores are equal, and no two overlaps.

Check it with: minidat grade examples/exercises/average_precision.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def match_detections(ious: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """ious (N, G), the overlap of each detection with each object, scores (N,) -> right (N,), of bool."""
    raise NotImplementedError


def average_precision(scores: np.ndarray, right: np.ndarray, *, total: int) -> np.ndarray:
    """scores (N,), right (N,) of bool, total: the number of objects, found or not -> ap, a single number."""
    raise NotImplementedError
