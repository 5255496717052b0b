# minidat exercise: box_iou
"""The reference solution of this exercise; the task is in examples/exercises."""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray]


def box_iou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """boxes (N, 4), others (N, 4) -> IoU (N,), backward: d_output (N,) -> d_boxes (N, 4), d_others (N, 4)."""
    intersection, union, d_intersection, d_union = overlap(boxes, others)

    def backward(d_output: np.ndarray) -> Gradients:
        scale = (d_output / union**2)[:, None]
        d_boxes, d_others = (
            scale * (union[:, None] * d_i - intersection[:, None] * d_u)
            for d_i, d_u in zip(d_intersection, d_union, strict=True)
        )
        return d_boxes, d_others

    return intersection / union, backward


def box_giou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """boxes (N, 4), others (N, 4) -> GIoU (N,), backward: d_output (N,) -> d_boxes (N, 4), d_others (N, 4)."""
    iou, iou_backward = box_iou(boxes, others)
    _, union, _, d_union = overlap(boxes, others)
    starts, ends = np.minimum(boxes[:, :2], others[:, :2]), np.maximum(boxes[:, 2:], others[:, 2:])
    enclosure, d_edges = area(np.concatenate([starts, ends], axis=1))

    def backward(d_output: np.ndarray) -> Gradients:
        scale = (d_output / enclosure**2)[:, None]
        gradients = []
        for box, d_iou, d_u in zip((boxes, others), iou_backward(d_output), d_union, strict=True):
            d_enclosure = d_edges * np.concatenate([box[:, :2] == starts, box[:, 2:] == ends], axis=1)
            gradients.append(d_iou + scale * (enclosure[:, None] * d_u - union[:, None] * d_enclosure))
        return gradients[0], gradients[1]

    return iou - (enclosure - union) / enclosure, backward


def area(boxes):
    """Areas (N,), and their derivatives by the edges (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides.prod(axis=1), np.concatenate([-sides[:, ::-1], sides[:, ::-1]], axis=1)


def overlap(boxes, others):
    """Intersection and union, (N,), and for each the pair of derivatives by the edges of boxes and others."""
    starts, ends = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    sides = np.maximum(ends - starts, 0)
    across = sides[:, ::-1] * (ends > starts)
    d_edges = np.concatenate([-across, across], axis=1)
    intersection, d_intersection, d_union = sides.prod(axis=1), [], []
    for box in (boxes, others):
        d_i = d_edges * np.concatenate([box[:, :2] == starts, box[:, 2:] == ends], axis=1)
        d_intersection.append(d_i)
        d_union.append(area(box)[1] - d_i)
    union = area(boxes)[0] + area(others)[0] - intersection
    return intersection, union, d_intersection, d_union
