"""Boxes: areas, overlaps, and the deltas that a detector predicts. A box is (x1, y1, x2, y2), of width x2 - x1.

Overlaps broadcast as NumPy's arithmetic does: `box_iou(boxes[:, None], others)` compares all with all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check, unbroadcast

LARGEST_LOG_RATIO = float(-np.log(16 / 1000))  # a box is at most 62.5 times as wide or high as its anchor, or as little


def box_area(boxes: np.ndarray) -> tuple[np.ndarray, Any]:
    """Width times height: output = (x2 - x1) (y2 - y1).

    boxes: (..., 4) -> output: (...). Raises ShapeError for another last axis.
    Source: the geometry of COCO's annotations, without the pixel that older data sets add to each side.
    """
    _check_boxes("box_area", boxes)
    sides = boxes[..., 2:] - boxes[..., :2]

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_sides = d_output[..., None] * sides[..., ::-1]
        return (np.concatenate([-d_sides, d_sides], axis=-1),)

    return sides[..., 0] * sides[..., 1], backward


def box_iou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """Intersection over union, from 0 to 1: IoU = I / U with U = A + A' - I; 0 for two boxes without area.

    boxes: (..., 4), others: (..., 4), broadcast -> output: (...). Raises ShapeError for another last axis.
    Source: the Pascal VOC challenge (Everingham et al., 2010), section 4.2.
    """
    _check_boxes("box_iou", boxes, others)
    intersection, intersection_backward = _intersection(boxes, others)
    union, union_backward = _union(boxes, others)
    output = _divide(intersection, union)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_intersection = _divide(d_output, union)
        through_intersection = intersection_backward(d_intersection)
        through_union = union_backward(-output * d_intersection)
        return through_intersection[0] + through_union[0], through_intersection[1] + through_union[1]

    return output, backward


def box_iof(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """Intersection over the area of `boxes`, the foreground: IoF = I / A; 0 for a box without area.

    boxes: (..., 4), others: (..., 4), broadcast -> output: (...). Raises ShapeError for another last axis.
    Source: how COCO compares a detection with a crowd, in which it counts as found if it lies inside.
    """
    _check_boxes("box_iof", boxes, others)
    intersection, intersection_backward = _intersection(boxes, others)
    area, area_backward = box_area(boxes)
    output = _divide(intersection, area)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_intersection = _divide(d_output, area)
        d_boxes, d_others = intersection_backward(d_intersection)
        (through_area,) = area_backward(unbroadcast(-output * d_intersection, area.shape))
        return d_boxes + through_area, d_others

    return output, backward


def box_giou(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """Generalized IoU, from -1 to 1: GIoU = IoU - (C - U) / C, with C the area of the smallest box around both.

    Unlike IoU it tells how far two boxes are apart that do not meet.
    boxes: (..., 4), others: (..., 4), broadcast -> output: (...). Raises ShapeError for another last axis.
    Source: arXiv 1902.09630, Algorithm 2.
    """
    _check_boxes("box_giou", boxes, others)
    iou, iou_backward = box_iou(boxes, others)
    union, union_backward = _union(boxes, others)
    enclosure, enclosure_backward = _enclosure(boxes, others)
    covered = _divide(union, enclosure)  # (C - U) / C = 1 - U / C

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_union = _divide(d_output, enclosure)
        ways = iou_backward(d_output), union_backward(d_union), enclosure_backward(-covered * d_union)
        return ways[0][0] + ways[1][0] + ways[2][0], ways[0][1] + ways[1][1] + ways[2][1]

    return iou - 1 + covered, backward


def _intersection(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """The area two boxes share: on each axis from the larger of the starts to the smaller of the ends, or nothing."""
    starts, ends = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    sides = np.maximum(ends - starts, 0)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_sides = d_output[..., None] * sides[..., ::-1] * (sides > 0)
        d_edges = np.concatenate([-d_sides, d_sides], axis=-1)
        own = _share(boxes - others)
        return unbroadcast(d_edges * own, boxes.shape), unbroadcast(d_edges * (1 - own), others.shape)

    return sides[..., 0] * sides[..., 1], backward


def _union(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """The area two boxes cover: A + A' - I."""
    area, area_backward = box_area(boxes)
    other_area, other_area_backward = box_area(others)
    intersection, intersection_backward = _intersection(boxes, others)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_boxes, d_others = intersection_backward(-d_output)
        (through_area,) = area_backward(unbroadcast(d_output, area.shape))
        (through_other_area,) = other_area_backward(unbroadcast(d_output, other_area.shape))
        return d_boxes + through_area, d_others + through_other_area

    return area + other_area - intersection, backward


def _enclosure(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, Any]:
    """The area of the smallest box around two: from the smaller of the starts to the larger of the ends."""
    starts, ends = np.minimum(boxes[..., :2], others[..., :2]), np.maximum(boxes[..., 2:], others[..., 2:])
    sides = ends - starts

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_sides = d_output[..., None] * sides[..., ::-1]
        d_edges = np.concatenate([-d_sides, d_sides], axis=-1)
        own = _share(others - boxes)
        return unbroadcast(d_edges * own, boxes.shape), unbroadcast(d_edges * (1 - own), others.shape)

    return sides[..., 0] * sides[..., 1], backward


def _share(difference: np.ndarray) -> np.ndarray:
    """1 for the starts that are larger and the ends that are smaller, 0 for the others; equals share the gradient."""
    return (1 + np.sign(difference) * np.array([1, 1, -1, -1], difference.dtype)) / 2


def encode_boxes(
    boxes: np.ndarray, *, anchors: np.ndarray, stds: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> tuple[np.ndarray, Any]:
    """Boxes as a detector predicts them: the shift and the growth that lead from an anchor to the box.

    With center (x, y) and size (w, h) of the box, and a for the anchor,
    output = ((x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a)) / stds.
    boxes: (..., 4), anchors: (..., 4), broadcast -> output: (..., 4). Both must have width and height.
    Raises ShapeError for another last axis. Source: R-CNN (arXiv 1311.2524), Eqs. 6-9.
    """
    _check_boxes("encode_boxes", boxes, anchors)
    anchors = anchors.astype(boxes.dtype)
    anchor_center, anchor_size = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:] - anchors[..., :2]
    center, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    deltas = np.concatenate([(center - anchor_center) / anchor_size, np.log(size / anchor_size)], axis=-1)
    scale = np.asarray(stds, deltas.dtype)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_deltas = d_output / scale
        d_center, d_size = d_deltas[..., :2] / anchor_size, d_deltas[..., 2:] / size
        d_boxes = np.concatenate([d_center / 2 - d_size, d_center / 2 + d_size], axis=-1)
        return (unbroadcast(d_boxes, boxes.shape),)

    return deltas / scale, backward


def decode_boxes(
    deltas: np.ndarray,
    *,
    anchors: np.ndarray,
    stds: tuple[float, float, float, float] = (1, 1, 1, 1),
    image_size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, Any]:
    """The inverse of `encode_boxes`: move an anchor's center by (dx w_a, dy h_a), and scale its sides by exp(dw, dh).

    deltas times stds are (dx, dy, dw, dh); |dw| and |dh| count as at most log(1000 / 16), so that nothing overflows.
    With image_size = (height, width) the corners are clipped to the image.
    deltas: (..., 4), anchors: (..., 4), broadcast -> output: (..., 4). Raises ShapeError for another last axis.
    Source: R-CNN (arXiv 1311.2524), Eqs. 1-4.
    """
    _check_boxes("decode_boxes", deltas, anchors)
    anchors = anchors.astype(deltas.dtype)
    anchor_center, anchor_size = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:] - anchors[..., :2]
    scale = np.asarray(stds, deltas.dtype)
    shift, log_ratio = (deltas * scale)[..., :2], (deltas * scale)[..., 2:]
    center = anchor_center + anchor_size * shift
    size = anchor_size * np.exp(log_ratio.clip(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=-1)
    limits = np.inf if image_size is None else np.array([*image_size[::-1], *image_size[::-1]], boxes.dtype)
    lowest = -np.inf if image_size is None else 0

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_boxes = d_output * ((boxes >= lowest) & (boxes <= limits))
        d_center, d_size = d_boxes[..., :2] + d_boxes[..., 2:], (d_boxes[..., 2:] - d_boxes[..., :2]) / 2
        d_log_ratio = d_size * size * (np.abs(log_ratio) <= LARGEST_LOG_RATIO)
        d_deltas = np.concatenate([d_center * anchor_size, d_log_ratio], axis=-1) * scale
        return (unbroadcast(d_deltas, deltas.shape),)

    return boxes.clip(lowest, limits), backward


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Division that leaves the numerator (always 0 then) where the denominator is 0."""
    return numerator / np.where(denominator == 0, 1, denominator)


def _check_boxes(op: str, *boxes: np.ndarray) -> None:
    for array in boxes:
        check(array.ndim >= 1 and array.shape[-1] == 4, op, "shape of boxes", array.shape, "(..., 4)")
