"""Chapter 19: non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]  # broadcasts


def case(numbers: Numbers, *, boxes: int, quarters: int) -> dict[str, Any]:
    rng = numbers.rng
    start, size = rng.integers(0, 3, (boxes, 2)), rng.integers(1, 4, (boxes, 2))
    jitter = 0.0 if numbers.simple else rng.uniform(0, 0.4, (boxes, 4))
    return {
        "boxes": np.concatenate([start, start + size], axis=1) + jitter,
        "scores": (rng.permutation(boxes) + 1) / 10 if numbers.simple else rng.permutation(boxes) + rng.random(boxes),
        "threshold": quarters / 4,
    }


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return ops.box_iou(boxes, others)[0]


def over_own_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The intersection over the area of the box that may be dropped."""
    return ops.box_iof(others, boxes)[0]


def with_a_pixel(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    one = np.array([0, 0, 1, 1])
    return iou(boxes + one, others + one)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, *, overlap: Overlap = iou, largest: bool = True,
    equal: bool = False, dropped_count: bool = False, rounds: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Greedy suppression, with the ways to go wrong as settings."""
    order = np.argsort(-scores if largest else scores)
    kept: list[int] = []
    for place, candidate in enumerate(order):
        rivals = order[:place] if dropped_count else np.array(kept[:rounds], int)
        overlaps = overlap(boxes[rivals], boxes[candidate])
        if not (overlaps >= threshold if equal else overlaps > threshold).any():
            kept.append(candidate)
    return np.array(kept)


def places_in_order(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    return np.argsort(np.argsort(-scores))[suppress(boxes, scores, threshold)]


def wrong(**settings: Any) -> Callable[..., np.ndarray]:
    def result(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
        return suppress(boxes, scores, threshold, **settings)

    return result


EXERCISE = Exercise(
    chapter="19-average-precision",
    functions=(
        Function(
            name="nms",
            hints=Hints(
                where="The best of all boxes is always kept. Which others does it rule out, and which box is certain "
                "to be kept next? np.argsort(-scores) lists the boxes from the best on.",
                idea="Keep a list of candidates, the best first. Take its first box, compare it with all the rest at "
                "once, keep as candidates those whose IoU is not above the threshold, and go on until none is left. A "
                "box that was dropped rules out no other.",
                formula="    candidates = np.argsort(-scores)\n"
                "    while len(candidates):\n"
                "        best, rest = candidates[0], candidates[1:]\n"
                "        kept.append(best)\n"
                "        candidates = rest[iou(boxes[best], boxes[rest]) <= threshold]",
            ),
            sizes={"boxes": (1, 2, 3, 4, 5, 6, 7, 8), "quarters": (1, 2, 3)},
            case=case,
            reference=ops.nms,
            outputs=("kept",),
            fixed=frozenset({"boxes", "scores"}),
            mistakes=(
                Mistake(
                    "kept", "the boxes that stay are listed in their own order: they should come by score, the best "
                    "first",
                    lambda boxes, scores, threshold: np.sort(suppress(boxes, scores, threshold)),
                ),
                Mistake(
                    "kept", "boxes are named by their places in the order of the scores: they should have their "
                    "numbers in `boxes`",
                    places_in_order,
                ),
                Mistake(
                    "kept", "the boxes themselves are returned: it should be their numbers in `boxes`",
                    lambda boxes, scores, threshold: boxes[suppress(boxes, scores, threshold)],
                ),
                Mistake(
                    "kept", "it begins with the lowest score: the best box is kept, and drops the others",
                    wrong(largest=False),
                ),
                Mistake(
                    "kept", "a box is dropped because of another that was dropped itself: only boxes that stay drop "
                    "others",
                    wrong(dropped_count=True),
                ),
                Mistake(
                    "kept", "only the very best box drops others: it goes on with the next one that is left",
                    wrong(rounds=1),
                ),
                Mistake(
                    "kept", "boxes are dropped whose IoU equals the threshold: only those above it are",
                    wrong(equal=True),
                ),
                Mistake(
                    "kept", "a pixel is added to each side of the boxes: their width is x2 - x1, without + 1",
                    wrong(overlap=with_a_pixel),
                ),
                Mistake(
                    "kept", "the intersection is divided by a box's own area: it should be divided by the union",
                    wrong(overlap=over_own_area),
                ),
            ),
        ),
    ),
)  # fmt: skip
