"""minidat.evaluation.segmentation: figures counted by hand, and pixel sets compared one class at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ConfigError, DatasetError, ShapeError
from minidat.evaluation import SegmentationMetrics, format_segmentation_metrics

from .strategies import seeds

NAMES = ("road", "sky", "tree", "car")


def naive_figures(pairs, classes):
    """IoU and accuracy of each class, None where undefined, from sets of pixels; and the share of right pixels."""
    pixels = [
        ((image, y, x), prediction[y, x], label[y, x])
        for image, (prediction, label) in enumerate(pairs)
        for y, x in np.ndindex(*label.shape)
        if label[y, x] != 255
    ]
    ious, accuracies = [], []
    for k in range(classes):
        found = {where for where, prediction, _ in pixels if prediction == k}
        true = {where for where, _, label in pixels if label == k}
        ious.append(len(found & true) / len(found | true) if found | true else None)
        accuracies.append(len(found & true) / len(true) if true else None)
    right = sum(prediction == label for _, prediction, label in pixels)
    return ious, accuracies, right / len(pixels) if pixels else None


def mean(figures):
    present = [figure for figure in figures if figure is not None]
    return sum(present) / len(present) if present else None


def matches(found, expected):
    np.testing.assert_allclose(found, [np.nan if x is None else x for x in expected], rtol=1e-12, equal_nan=True)


@given(
    seed=seeds(),
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4),
    classes=st.integers(1, 6),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    dtype=st.sampled_from([np.uint8, np.int64]),
)
def test_figures_equal_those_of_pixel_sets(seed, sizes, classes, ignored, dtype):
    """Classes that occur in neither map, in one of them, ignored pixels, images of any
    size, no images."""
    random = np.random.default_rng(seed)
    shown, seen = random.integers(1, classes + 1, 2)  # only these classes occur
    whole, parts = SegmentationMetrics(NAMES[:1] * classes), []
    pairs = []
    for size in sizes:
        prediction, label = random.integers(0, seen, size), random.integers(0, shown, size).astype(dtype)
        label[random.random(size) < ignored] = 255
        pairs.append((prediction.astype(dtype), label))
        whole.update(*pairs[-1])
        parts.append(SegmentationMetrics(NAMES[:1] * classes))
        parts[-1].update(*pairs[-1])
    ious, accuracies, right = naive_figures(pairs, classes)
    matches(whole.class_iou, ious)
    matches(whole.class_accuracy, accuracies)
    matches(list(whole.as_dict().values()), [mean(ious), mean(accuracies), right])

    merged = SegmentationMetrics(NAMES[:1] * classes)
    for part in parts:
        merged.merge(part)
    np.testing.assert_array_equal(merged.confusion, whole.confusion)
    assert merged.images == whole.images == len(sizes)


def test_figures_by_hand():
    metrics = SegmentationMetrics(NAMES)
    metrics.update(np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 255]]))
    np.testing.assert_array_equal(metrics.class_iou, [1 / 2, 1 / 2, np.nan, np.nan])  # the 2 lies on an ignored pixel
    np.testing.assert_array_equal(metrics.class_accuracy, [1, 1 / 2, np.nan, np.nan])
    assert metrics.as_dict() == {"mIoU": 0.5, "mAcc": 0.75, "aAcc": 2 / 3}

    metrics.update(np.array([[2]]), np.array([[0]]))  # taken for a class that has no pixel: an IoU of 0, no accuracy
    np.testing.assert_array_equal(metrics.class_iou, [1 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_array_equal(metrics.class_accuracy, [1 / 2, 1 / 2, np.nan, np.nan])
    assert metrics.pixel_accuracy == 0.5
    assert format_segmentation_metrics(metrics).split("\n") == [
        "2 images, 4 labeled pixels",
        "mIoU 27.78   mAcc 50.00   aAcc 50.00",
        "",
        "class    IoU  accuracy  share of pixels",
        "road   33.33     50.00            50.00",
        "sky    50.00     50.00            50.00",
        "tree    0.00         -             0.00",
    ]


def test_nothing_counted():
    metrics = SegmentationMetrics(NAMES)
    metrics.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert np.isnan(list(metrics.as_dict().values())).all()
    assert format_segmentation_metrics(metrics).startswith("1 image, 0 labeled pixels\nmIoU -   mAcc -   aAcc -\n")


MAP = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "label", "error", "message"),
    [
        (MAP[0], MAP, ShapeError, r"prediction: found shape \(3,\) of uint8, expected \(height, width\) of integers"),
        (MAP, MAP.astype(float), ShapeError, "label: found .* of float64, expected .* of integers"),
        (MAP, [[0]], ShapeError, "label: found .*list.*, expected"),
        (MAP.T, MAP, ShapeError, r"prediction: found shape \(3, 2\), expected the label's \(2, 3\)"),
        (MAP + np.uint8(4), MAP, ShapeError, "prediction: found the class 4, expected 0 to 3"),
        (MAP.astype(int) - 1, MAP, ShapeError, "prediction: found the class -1, expected 0 to 3"),
        (MAP, MAP + np.uint8(4), DatasetError, "a.png: found the label 4, expected 0 to 3, or 255 for none"),
    ],
)
def test_maps_that_do_not_fit(prediction, label, error, message):
    metrics = SegmentationMetrics(NAMES)
    with pytest.raises(error, match=message):
        metrics.update(prediction, label, name="a.png" if error is DatasetError else "label")
    assert metrics.images == metrics.confusion.sum() == 0


def test_classes_that_do_not_fit():
    with pytest.raises(ConfigError, match="classes: found 0, expected 1 to 255"):
        SegmentationMetrics(())
    with pytest.raises(ConfigError, match="classes: found 2 others, expected the same 4"):
        SegmentationMetrics(NAMES).merge(SegmentationMetrics(NAMES[:2]))
