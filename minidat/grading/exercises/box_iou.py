"""Chapter 17: how much two boxes overlap, and how the overlap changes with their edges."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, pairs: int, spread: int) -> dict[str, Any]:
    """Boxes beside each other, overlapping, one in the other: no two edges at the same place, where there is a kink."""
    edges = np.array([[numbers.rng.permutation(3 + spread)[:4] for _ in "xy"] for _ in range(pairs)], float)
    if not numbers.simple:
        edges += numbers.rng.uniform(0, 0.9, edges.shape)
    edges = edges.reshape(pairs, 2, 2, 2)  # pair, axis, box, edge
    corners = np.sort(edges, axis=-1).transpose(2, 0, 3, 1).reshape(2, pairs, 4)
    return {"boxes": corners[0], "others": corners[1]}


def area(boxes: np.ndarray) -> np.ndarray:
    return ops.box_area(boxes)[0]


def sides(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, 2): width and height of the intersection, negative where the boxes do not meet."""
    return np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])


def intersection(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.maximum(sides(boxes, others), 0).prod(axis=1)


def enclosure(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (np.maximum(boxes[:, 2:], others[:, 2:]) - np.minimum(boxes[:, :2], others[:, :2])).prod(axis=1)


def over(i: np.ndarray, boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return i / (area(boxes) + area(others) - i)


def union(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return area(boxes) + area(others) - intersection(boxes, others)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return ops.box_iou(boxes, others)[0]


def from_sizes(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """As if boxes were (x, y, width, height)."""
    boxes, others = (np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1) for b in (boxes, others))
    return iou(boxes, others)


def with_a_pixel(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return iou(boxes + np.array([0, 0, 1, 1]), others + np.array([0, 0, 1, 1]))


def edges_of_area(boxes: np.ndarray) -> np.ndarray:
    """The derivative of the area by (x1, y1, x2, y2)."""
    return ops.box_area(boxes)[1](np.ones(len(boxes)))[0]


def edges_of_intersection(
    boxes: np.ndarray, others: np.ndarray, *, masked: bool = True, bounding: bool = True, signed: bool = True
) -> np.ndarray:
    """The derivative of the intersection by the edges of `boxes`, with what may be forgotten as settings."""
    s = sides(boxes, others)
    across = np.maximum(s, 0)[:, ::-1] * ((s > 0) if masked else 1)
    edges = np.concatenate([-across if signed else across, across], axis=1)
    inner = np.concatenate([boxes[:, :2] > others[:, :2], boxes[:, 2:] < others[:, 2:]], axis=1)
    return edges * (inner if bounding else 1)


def d_iou(
    boxes: np.ndarray, others: np.ndarray, d_output: np.ndarray, *, through_union: bool = True,
    own_area: float = 1, **forgotten: bool,
) -> np.ndarray:  # fmt: skip
    """The gradient of the IoU by `boxes`, with the ways to go wrong as settings."""
    i, u = intersection(boxes, others), union(boxes, others)
    d_i = edges_of_intersection(boxes, others, **forgotten)
    d_u = own_area * edges_of_area(boxes) - d_i
    change = d_i / u[:, None] - (i / u**2)[:, None] * d_u * through_union
    return d_output[:, None] * change


def edges_of_enclosure(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    starts, ends = np.minimum(boxes[:, :2], others[:, :2]), np.maximum(boxes[:, 2:], others[:, 2:])
    across = (ends - starts)[:, ::-1]
    outer = np.concatenate([boxes[:, :2] < others[:, :2], boxes[:, 2:] > others[:, 2:]], axis=1)
    return np.concatenate([-across, across], axis=1) * outer


def d_giou(
    boxes: np.ndarray, others: np.ndarray, d_output: np.ndarray, *, through_union: bool = True,
    through_enclosure: bool = True,
) -> np.ndarray:  # fmt: skip
    """The gradient of the GIoU by `boxes`; either way through U / C may be forgotten."""
    u, c = union(boxes, others), enclosure(boxes, others)
    d_u = edges_of_area(boxes) - edges_of_intersection(boxes, others)
    change = through_union * d_u / c[:, None]
    change = change - through_enclosure * (u / c**2)[:, None] * edges_of_enclosure(boxes, others)
    return d_iou(boxes, others, d_output) + d_output[:, None] * change


NO_UNION = "the union is taken for a constant: it changes with the edges too, IoU = I / U is a quotient"
NO_MASK = (
    "the mask of the clip is forgotten: where the boxes do not meet the side max(0, ...) is 0 and stays 0, so nothing "
    "flows back through it, though the other side is not 0"
)
NOT_BOUNDING = (
    "all four edges move the intersection: only those that bound it do, the larger of the two starts and the smaller "
    "of the two ends"
)

SIZES = {"pairs": (1, 2, 3), "spread": (1, 2, 3, 4)}
FIXED = frozenset({"boxes", "others"})

EXERCISE = Exercise(
    chapter="17-boxes",
    functions=(
        Function(
            name="box_iou",
            hints=Hints(
                where="Draw two boxes that overlap, and mark the edges that bound what they share. Which of the eight "
                "edges changes the intersection when it moves? Which changes the union? Draw two that do not meet: "
                "what changes then?",
                idea="On each axis the intersection goes from the larger of the starts to the smaller of the ends, or "
                "is nothing. Its area is width times height, so the width's derivative is the height; an edge that "
                "does not bound it gets 0, and so does a side that was clipped. Then the union is A + A' - I, and I / "
                "U a quotient.",
                formula="with the sides w, h of the intersection I, for an edge that bounds it and w > 0 (h alike),\n"
                "    dI/dx1 = -h,  dI/dx2 = h,  dI/dy1 = -w,  dI/dy2 = w\n"
                "    dU = dA - dI,  with dA/dx1 = -(y2 - y1),  dA/dx2 = y2 - y1, ...\n"
                "    d_boxes = d_output * (dI / U - I / U**2 * dU)",
            ),
            sizes=SIZES,
            case=case,
            reference=ops.box_iou,
            gradients=("boxes", "others"),
            fixed=FIXED,
            mistakes=(
                Mistake(
                    "output", "the sides of the intersection are not clipped at 0: where boxes do not meet they are "
                    "negative",
                    lambda boxes, others: over(sides(boxes, others).prod(axis=1), boxes, others),
                ),
                Mistake(
                    "output", "the union counts the intersection twice: U = A + A' - I",
                    lambda boxes, others: intersection(boxes, others) / (area(boxes) + area(others)),
                ),
                Mistake(
                    "output", "the intersection is divided by the area of one box: it should be divided by the union",
                    lambda boxes, others: intersection(boxes, others) / area(boxes),
                ),
                Mistake(
                    "output", "the intersection is divided by the area of one box: it should be divided by the union",
                    lambda boxes, others: intersection(boxes, others) / np.minimum(area(boxes), area(others)),
                ),
                Mistake(
                    "output", "boxes are taken for (x, y, width, height): they are (x1, y1, x2, y2)", from_sizes,
                ),
                Mistake(
                    "output", "a pixel is added to each side: the width of a box is x2 - x1, without + 1", with_a_pixel,
                ),
                Mistake(
                    "d_boxes", NO_UNION,
                    lambda boxes, others, d_output: d_iou(boxes, others, d_output, through_union=False),
                ),
                Mistake(
                    "d_boxes", NO_MASK,
                    lambda boxes, others, d_output: d_iou(boxes, others, d_output, masked=False),
                ),
                Mistake(
                    "d_boxes", NOT_BOUNDING,
                    lambda boxes, others, d_output: d_iou(boxes, others, d_output, bounding=False),
                ),
                Mistake(
                    "d_boxes", "the intersection's own starts have the wrong sign: as x1 grows, it shrinks",
                    lambda boxes, others, d_output: d_iou(boxes, others, d_output, signed=False),
                ),
                Mistake(
                    "d_boxes", "the way through the box's own area is missing: U = A + A' - I, and A changes with the "
                    "edges",
                    lambda boxes, others, d_output: d_iou(boxes, others, d_output, own_area=0),
                ),
                Mistake(
                    "d_others", NO_UNION,
                    lambda boxes, others, d_output: d_iou(others, boxes, d_output, through_union=False),
                ),
                Mistake(
                    "d_others", NO_MASK,
                    lambda boxes, others, d_output: d_iou(others, boxes, d_output, masked=False),
                ),
                Mistake(
                    "d_others", NOT_BOUNDING,
                    lambda boxes, others, d_output: d_iou(others, boxes, d_output, bounding=False),
                ),
            ),
        ),
        Function(
            name="box_giou",
            hints=Hints(
                where="GIoU = IoU - (C - U) / C = IoU - 1 + U / C. Which part do you have already? Which edges change "
                "C, the area of the smallest box around both?",
                idea="box_iou gives the first part with its backward. U / C is one more quotient: U as before, and C "
                "goes from the smaller of the starts to the larger of the ends. Nothing needs a clip there.",
                formula="with the sides w, h of the box around both, for an edge that bounds it,\n"
                "    dC/dx1 = -h,  dC/dx2 = h,  dC/dy1 = -w,  dC/dy2 = w\n"
                "    d_boxes = that of box_iou + d_output * (dU / C - U / C**2 * dC)",
            ),
            sizes=SIZES,
            case=case,
            reference=ops.box_giou,
            gradients=("boxes", "others"),
            fixed=FIXED,
            mistakes=(
                Mistake("output", "this is the plain IoU: the term (C - U) / C is missing", iou),
                Mistake(
                    "output", "the term (C - U) / C is added: it is subtracted",
                    lambda boxes, others: iou(boxes, others) + 1
                    - union(boxes, others) / enclosure(boxes, others),
                ),
                Mistake(
                    "output", "C - U is not divided by C",
                    lambda boxes, others: iou(boxes, others) - enclosure(boxes, others) + union(boxes, others),
                ),
                Mistake(
                    "output", "C - U is divided by U: it should be divided by C",
                    lambda boxes, others: iou(boxes, others) + 1
                    - enclosure(boxes, others) / union(boxes, others),
                ),
                Mistake(
                    "output", "the intersection stands where the union should: the term is (C - U) / C",
                    lambda boxes, others: iou(boxes, others) - 1
                    + intersection(boxes, others) / enclosure(boxes, others),
                ),
                Mistake(
                    "d_boxes", "this is the gradient of the IoU: (C - U) / C changes with the edges too",
                    d_iou,
                ),
                Mistake(
                    "d_boxes", "C, the area of the box around both, is taken for a constant",
                    lambda boxes, others, d_output: d_giou(boxes, others, d_output, through_enclosure=False),
                ),
                Mistake(
                    "d_boxes", "in (C - U) / C the union is taken for a constant",
                    lambda boxes, others, d_output: d_giou(boxes, others, d_output, through_union=False),
                ),
                Mistake(
                    "d_others", "this is the gradient of the IoU: (C - U) / C changes with the edges too",
                    lambda boxes, others, d_output: d_iou(others, boxes, d_output),
                ),
                Mistake(
                    "d_others", "C, the area of the box around both, is taken for a constant",
                    lambda boxes, others, d_output: d_giou(others, boxes, d_output, through_enclosure=False),
                ),
            ),
        ),
    ),
)  # fmt: skip
