# minidat exercise: box_iou
"""Exercise: the overlap of boxes (chapter 17, docs/pages/tutorial/17-boxes.md). Write two functions and backwards.

Row n of `boxes` is compared with row n of `others`. A box is (x1, y1, x2, y2); its area A is (x2 - x1) (y2 - y1). With
I the area that both share, which may be nothing, U the area that at least one of them covers, and C the area of the
smallest box around both,

    IoU  = I / U
    GIoU = IoU - (C - U) / C

The IoU of two boxes that do not meet is 0 wherever they are, and so is its gradient. GIoU tells how far they are apart.
No two edges lie at exactly the same place.

Check it with: minidat grade examples/exercises/box_iou.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray]


def box_iou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """boxes (N, 4), others (N, 4) -> IoU (N,), backward: d_output (N,) -> d_boxes (N, 4), d_others (N, 4)."""
    raise NotImplementedError


def box_giou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """boxes (N, 4), others (N, 4) -> GIoU (N,), backward: d_output (N,) -> d_boxes (N, 4), d_others (N, 4)."""
    raise NotImplementedError
