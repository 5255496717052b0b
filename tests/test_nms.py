"""Non-maximum suppression against the recordings, its definition, and itself class by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import box_iou, class_nms, nms

from .golden.dense import load_recording
from .strategies import seeds
from .test_boxes import random_boxes

RECORDING = load_recording("ops")


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_equals_the_recording(threshold: float) -> None:
    kept = nms(RECORDING["nms/boxes"], RECORDING["nms/scores"], threshold=threshold)
    assert np.array_equal(kept, RECORDING[f"nms/keep_{threshold}"])


def test_class_nms_equals_the_recording() -> None:
    boxes, scores, classes = (RECORDING[f"nms/{name}"] for name in ("boxes", "scores", "classes"))
    kept = class_nms(boxes, scores, classes, threshold=0.5)
    assert np.array_equal(kept, RECORDING["nms/batched_keep_0.5"])
    found = np.concatenate([boxes[kept], scores[kept, None]], axis=1)
    np.testing.assert_allclose(found, RECORDING["nms/batched_dets_0.5"], rtol=0, atol=1e-12)


@given(st.integers(0, 30), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans(), seeds())
def test_a_box_goes_if_and_only_if_a_better_one_that_stays_covers_it(
    number: int, threshold: float, ties: bool, seed: int
) -> None:
    boxes, scores = random_boxes((number,), seed), np.random.default_rng(seed + 1).random(number)
    if ties:
        scores = np.round(scores, 1)
    kept = nms(boxes, scores, threshold=threshold).tolist()
    rank = np.empty(number, int)
    rank[np.argsort(-scores, kind="stable")] = np.arange(number)
    overlaps, _ = box_iou(boxes[:, None], boxes)
    assert kept == sorted(kept, key=lambda i: rank[i])
    for i in range(number):
        covered = any(overlaps[i, j] > threshold and rank[j] < rank[i] for j in kept)
        assert covered == (i not in kept)


@given(st.integers(0, 30), st.integers(1, 4), seeds())
def test_classes_do_not_see_each_other(number: int, kinds: int, seed: int) -> None:
    """As if the boxes of each class lay somewhere else, which is how the authors do it."""
    rng = np.random.default_rng(seed)
    boxes, scores, classes = (
        random_boxes((number,), seed),
        rng.random(number),
        rng.integers(0, kinds, number),
    )
    apart = boxes + 16.0 * classes[:, None]
    assert np.array_equal(class_nms(boxes, scores, classes, threshold=0.3), nms(apart, scores, threshold=0.3))


def test_the_threshold_is_a_float32_and_strict() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 7]])  # their IoU is 0.7, and float32(0.7) is a little less
    assert nms(boxes, np.array([0.9, 0.8]), threshold=0.7).tolist() == [0]
    assert nms(boxes * [1, 1, 1, 0.5], np.array([0.9, 0.8]), threshold=0.75).tolist() == [0, 1]
    half = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert nms(half, np.array([0.9, 0.8]), threshold=0.5).tolist() == [0, 1]


def test_boxes_without_area_stay() -> None:
    boxes = np.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2]])
    assert nms(boxes, np.array([0.1, 0.3, 0.2]), threshold=0.0).tolist() == [1, 2, 0]


def test_nms_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"nms: shape of boxes: found \(4,\), expected \(N, 4\)"):
        nms(np.zeros(4), np.zeros(1), threshold=0.5)
    with pytest.raises(ShapeError, match=r"nms: shape of scores: found \(3,\), expected \(2,\)"):
        nms(np.zeros((2, 4)), np.zeros(3), threshold=0.5)
    with pytest.raises(ShapeError, match=r"class_nms: shape of classes: found \(1,\), expected \(2,\)"):
        class_nms(np.zeros((2, 4)), np.zeros(2), np.zeros(1, int), threshold=0.5)
