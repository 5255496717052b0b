"""Which box is to find which object: the step that turns annotations into targets for a detector's every answer."""

from __future__ import annotations

import numpy as np

from .. import ops

BACKGROUND, IGNORED = -1, -2


def assign(
    boxes: np.ndarray,
    objects: np.ndarray,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
) -> np.ndarray:
    """The object each box is to find: its index, BACKGROUND (-1), or IGNORED (-2), for neither.

    The object it overlaps most, where their IoU is at least `positive_iou`; background where it is below
    `negative_iou`. Then every object, in order, also takes the boxes that overlap it most, all of them if several
    overlap it equally, even from other objects, if that IoU is at least `low_quality_iou` and not 0; None for no such
    rule. boxes: (N, 4), objects: (n, 4) -> (N,).
    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.2; RetinaNet (arXiv 1708.02002), section 4.
    """
    if len(objects) == 0:
        return np.full(len(boxes), BACKGROUND)
    overlaps, _ = ops.box_iou(objects[:, None], boxes)  # (n, N)
    best, largest = overlaps.argmax(axis=0), overlaps.max(axis=0)
    assigned = np.where(largest < negative_iou, BACKGROUND, IGNORED)
    assigned = np.where(largest >= positive_iou, best, assigned)
    if low_quality_iou is not None:
        for i, of_object in enumerate(overlaps):
            most = of_object.max(initial=0)
            if most > 0 and most >= low_quality_iou:
                assigned[of_object == most] = i
    return assigned
