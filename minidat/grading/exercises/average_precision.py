"""Chapter 19: which detections are right, and their average precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...evaluation import evaluate_detections
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

RECALLS = np.linspace(0, 1, 101)  # k / total is none of them but for 0, 1/4, 1/2, 3/4 and 1, which are exact


def scores_of(numbers: Numbers, count: int) -> np.ndarray:
    """No two alike."""
    order = numbers.rng.permutation(count)
    return (order + 1) / 10 if numbers.simple else order + numbers.rng.random(count)


def match_case(numbers: Numbers, *, detections: int, objects: int) -> dict[str, Any]:
    ious = numbers.rng.permutation(19)[: detections * objects].reshape(detections, objects)
    return {
        "ious": (ious + 1) / 20 if numbers.simple else (ious + numbers.rng.random(ious.shape)) / 19,
        "scores": scores_of(numbers, detections),
        "threshold": 0.5,
    }


def precision_case(numbers: Numbers, *, detections: int, total: int) -> dict[str, Any]:
    count = max(0, min(detections, total) - int(numbers.rng.integers(0, 3)))  # nearly as many as there may be
    return {
        "scores": scores_of(numbers, detections),
        "right": numbers.rng.permutation(detections) < count,
        "total": total,
    }


def match(
    ious: np.ndarray, scores: np.ndarray, *, threshold: float, again: bool = False, best_only: bool = False,
    order: np.ndarray | None = None, equal: bool = True,
) -> np.ndarray:  # fmt: skip
    """COCO's rule, with the ways to go wrong as settings."""
    right = np.zeros(len(scores), bool)
    free = np.ones(ious.shape[1], bool)
    for detection in np.argsort(-scores) if order is None else order:
        overlaps = ious[detection] if best_only or again else np.where(free, ious[detection], -1)
        best = overlaps.argmax()
        enough = overlaps[best] >= threshold if equal else overlaps[best] > threshold
        right[detection] = enough and (free[best] or again)
        free[best] &= not right[detection]
    return right


def wrong_match(**change: Any) -> Callable[..., np.ndarray]:
    def result(ious: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
        return match(ious, scores, threshold=threshold, **change)

    return result


def by_objects(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Each object takes the detection that overlaps it most."""
    best = ious.argmax(axis=0)
    right = np.zeros(len(ious), bool)
    right[best[ious.max(axis=0) >= threshold]] = True
    return right


def reference(scores: np.ndarray, right: np.ndarray, *, total: int) -> np.ndarray:
    """By `evaluate_detections`: each detection in an image of its own, with an object there if it is right."""
    box = [0, 0, 10, 10]
    objects = np.concatenate([np.flatnonzero(right), len(right) + np.arange(total - right.sum())]).tolist()
    annotations = [
        {"id": n + 1, "image_id": image, "category_id": 1, "bbox": box, "area": 100} for n, image in enumerate(objects)
    ]
    images = [{"id": n} for n in range(len(right) + total)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    results = [{"image_id": n, "category_id": 1, "bbox": box, "score": float(s)} for n, s in enumerate(scores)]
    return np.array(evaluate_detections(truth, results).ap50)


def curve(scores: np.ndarray, right: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(precision, recall) after each detection, the best first."""
    found = np.cumsum(right[np.argsort(-scores)])
    return found / np.arange(1, len(found) + 1), found / total


def envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]


def at_recalls(
    precision: np.ndarray, recall: np.ndarray, *, recalls: np.ndarray = RECALLS, reached_only: bool = False
) -> np.ndarray:
    """The mean of the precision where each recall is first reached; 0 where it is not, or left out."""
    places = recall.searchsorted(recalls)
    values = np.append(precision, 0)[places]
    return values[places < len(precision)].mean() if reached_only else values.mean()


def interpolated(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """COCO's average precision."""
    return at_recalls(envelope(precision), recall)


def area(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return np.sum(np.diff(recall, prepend=0) * precision)


def wrong_precision(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """`change(precision, recall)` in place of what is done with the curve."""

    def result(scores: np.ndarray, right: np.ndarray, total: int) -> np.ndarray:
        return change(*curve(scores, right, total))

    return result


EXERCISE = Exercise(
    chapter="19-average-precision",
    functions=(
        Function(
            name="match_detections",
            hints=Hints(
                where="Who chooses first? And what may the second detection choose that overlaps the same object?",
                idea="Go through the detections from the highest score on, and keep a list of the objects that are "
                "still free. A detection looks at the free ones only, takes the one it overlaps most, and is right if "
                "that overlap is enough; then the object is no longer free.",
                formula="for each detection d of np.argsort(-scores),\n"
                "    best = np.where(free, ious[d], -1).argmax()\n"
                "    if free[best] and ious[d, best] >= threshold:\n"
                "        right[d], free[best] = True, False",
            ),
            sizes={"detections": (1, 2, 3, 4, 5, 6), "objects": (1, 2, 3)},
            case=match_case,
            reference=match,
            outputs=("right",),
            fixed=frozenset({"ious", "scores"}),
            mistakes=(
                Mistake(
                    "right", "an object is found several times: the first detection takes it, a second one is wrong",
                    wrong_match(again=True),
                ),
                Mistake(
                    "right", "a detection whose best object is taken counts as wrong at once (Pascal VOC's rule): it "
                    "may take another that is free and overlaps enough",
                    wrong_match(best_only=True),
                ),
                Mistake(
                    "right", "detections choose in the order of the list: the highest score chooses first",
                    lambda ious, scores, threshold: match(
                        ious, scores, threshold=threshold, order=np.arange(len(scores))),
                ),
                Mistake(
                    "right", "the lowest score chooses first: it should be the highest",
                    lambda ious, scores, threshold: match(
                        ious, scores, threshold=threshold, order=np.argsort(scores)),
                ),
                Mistake(
                    "right", "the objects choose, each the detection that overlaps it most: the detections choose, by "
                    "their scores",
                    by_objects,
                ),
                Mistake(
                    "right", "an overlap that equals the threshold is not enough: it should be",
                    wrong_match(equal=False),
                ),
                Mistake(
                    "right", "the answers are in the order of the scores: right[d] belongs to detection d",
                    lambda ious, scores, threshold: match(
                        ious, scores, threshold=threshold)[np.argsort(-scores)],
                ),
            ),
        ),
        Function(
            name="average_precision",
            hints=Hints(
                where="Write down the curve for four detections, right, wrong, right, wrong, and three objects: "
                "precision and recall after each of them. What is the best precision at a recall of at least 0.5? Of "
                "at least 0.9?",
                idea="Sort by score; cumulative sums give precision and recall. Make the precision monotonic from "
                "behind, since at each recall the best precision at that recall or a higher one counts "
                "(np.maximum.accumulate). Then look up the first place where each of the 101 recalls is reached: "
                "np.searchsorted.",
                formula="    found = np.cumsum(right[np.argsort(-scores)])\n"
                "    precision = found / np.arange(1, len(found) + 1)\n"
                "    recall = found / total\n"
                "    best = np.maximum.accumulate(precision[::-1])[::-1]\n"
                "    ap = np.append(best, 0)[recall.searchsorted(np.linspace(0, 1, 101))].mean()",
            ),
            sizes={"detections": (1, 2, 3, 4, 5, 6, 7, 8), "total": (1, 2, 3, 4, 6)},
            case=precision_case,
            reference=reference,
            outputs=("ap",),
            fixed=frozenset({"scores", "right"}),
            mistakes=(
                Mistake(
                    "ap", "precision is taken as it is at each recall: the best at that recall or a higher one counts",
                    wrong_precision(at_recalls),
                ),
                Mistake(
                    "ap", "this is the area under the curve itself: COCO takes the mean over 101 recalls, each with "
                    "the best precision at that recall or a higher one",
                    wrong_precision(area),
                ),
                Mistake(
                    "ap", "this is the exact area under the curve of the best precisions (Pascal VOC 2010): COCO takes "
                    "the mean over the 101 recalls 0, 0.01 ... 1",
                    wrong_precision(lambda precision, recall: area(envelope(precision), recall)),
                ),
                Mistake(
                    "ap", "this is the mean over 11 recalls (Pascal VOC 2007): COCO takes 101, 0, 0.01 ... 1",
                    wrong_precision(lambda precision, recall: at_recalls(
                        envelope(precision), recall, recalls=np.linspace(0, 1, 11))),
                ),
                Mistake(
                    "ap", "recalls that are not reached are left out: they count, with a precision of 0",
                    wrong_precision(lambda precision, recall: at_recalls(
                        envelope(precision), recall, reached_only=True)),
                ),
                Mistake(
                    "ap", "recall is counted among the objects that were found: it is divided by `total`, all of them",
                    lambda scores, right: interpolated(*curve(scores, right, max(right.sum(), 1))),
                ),
                Mistake(
                    "ap", "detections are not sorted by score",
                    lambda scores, right, total: reference(-np.arange(len(right)), right, total=total),
                ),
                Mistake(
                    "ap", "the lowest score comes first: detections are sorted from the highest on",
                    lambda scores, right, total: reference(-scores, right, total=total),
                ),
                Mistake(
                    "ap", "this is the precision after all detections: it is to be averaged over the recalls",
                    wrong_precision(lambda precision, recall: precision[-1]),
                ),
            ),
        ),
    ),
)  # fmt: skip
