"""minidat.evaluation.average_precision against COCO's own tools, to the last digit, and cases counted by hand."""

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from minidat.data import encode_rle
from minidat.errors import ConfigError, DatasetError, MinidatError
from minidat.evaluation import evaluate_detections, format_detection_metrics

from .strategies import seeds

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # COCO's tools'

REAL = json.loads((Path(__file__).parent / "annotations" / "coco_excerpt.json").read_text())


def assert_equal_to_coco(ground_truth, results, iou_type):
    """All twelve figures and every class's AP and AP50."""
    before = copy.deepcopy((ground_truth, results))
    found = evaluate_detections(ground_truth, results, iou_type=iou_type)
    assert (ground_truth, results) == before

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        detections = truth.loadRes(copy.deepcopy(results)) if results else COCO()
        evaluation = COCOeval(truth, detections, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(list(found.as_dict().values()), evaluation.stats, rtol=0, atol=1e-12)
    precision = evaluation.eval["precision"][..., 0, -1]  # (T, R, K)
    for k, result in enumerate(found.per_class):
        for figure, curves in ((result.ap, precision[..., k]), (result.ap50, precision[0, :, k])):
            expected = curves[curves > -1].mean() if (curves > -1).any() else -1
            assert figure == pytest.approx(expected, rel=0, abs=1e-12)
    return found


# --- random data ------------------------------------------------------------------------------------------------------


@st.composite
def problems(draw, masks=False):
    """Annotations and detections with many equal scores and overlaps, crowds, empty classes, and ids from 0 or not."""
    random = np.random.default_rng(draw(seeds()))
    first_id = draw(st.sampled_from([0, 1, 7]))
    step = draw(st.sampled_from([1, 3]))
    image_ids = [first_id + step * i for i in range(draw(st.integers(1, 5)))]
    category_ids = [first_id + step * i for i in range(draw(st.integers(1, 4)))]
    grid = draw(st.sampled_from([1, 4, 8]))
    side = 64 if masks else draw(st.sampled_from([16, 64, 200]))
    sizes = {image_id: (side + 3, side + 11 * (image_id % 2)) for image_id in image_ids}

    def box(image_id):
        height, width = sizes[image_id]
        x, y = random.integers(0, width // grid // 2 + 1) * grid, random.integers(0, height // grid // 2 + 1) * grid
        w, h = random.integers(0, width // grid + 1) * grid, random.integers(0, height // grid + 1) * grid
        return [float(x), float(y), float(w), float(h)]

    def mask(image_id, box):
        x, y, w, h = map(int, box)
        drawn = np.zeros(sizes[image_id], bool)
        drawn[y : y + h, x : x + w] = True
        drawn[random.integers(sizes[image_id][0]) :, : random.integers(1, 9)] ^= True
        return drawn

    annotations = []
    for _ in range(draw(st.integers(0, 40))):
        image_id, category_id = int(random.choice(image_ids)), int(random.choice(category_ids))
        x, y, w, h = bounds = box(image_id)
        annotation = {
            "id": len(annotations) + first_id,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": bounds,
            "area": float(random.choice([w * h, 0.5 * w * h, 32**2, 96**2, 5000.0])),
            "iscrowd": int(random.random() < 0.2),
            "ignore": int(random.random() < 0.2),
        }
        if masks:
            annotation["segmentation"] = encode_rle(mask(image_id, bounds))
            form = random.integers(3)
            if form == 0 and w * h:
                annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h], [0.0, 0.0, 5.5, 1.5, 2.5, 8.0]]
            elif form == 1:
                flat = np.r_[False, mask(image_id, bounds).ravel(order="F"), True]
                counts = np.diff(np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 2]).tolist()
                annotation["segmentation"]["counts"] = counts
        annotations.append(annotation)

    results = []
    has_boxes = draw(st.booleans())
    many = draw(st.sampled_from([0, 0, 130]))  # in one image and class
    for number in range(draw(st.integers(0, 80)) + many):
        image_id, category_id = int(random.choice(image_ids)), int(random.choice(category_ids))
        if number < many:
            image_id, category_id = image_ids[0], category_ids[0]
        bounds = box(image_id)
        if annotations and random.random() < 0.6:
            like = annotations[random.integers(len(annotations))]
            bounds = (np.array(like["bbox"]) + random.choice([0, 0, 1, 2], 4)).tolist()
            image_id, category_id = like["image_id"], like["category_id"]
        score = (
            float(np.round(random.random(), draw(st.sampled_from([1, 6])))) if number < 3 else random.integers(8) / 8
        )
        result = {"image_id": image_id, "category_id": category_id, "score": score}
        if has_boxes or not masks:
            result["bbox"] = bounds
        if masks:
            result["segmentation"] = encode_rle(mask(image_id, bounds))
        results.append(result)
    return {
        "images": [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in reversed(image_ids)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in reversed(category_ids)],
    }, results


@settings(max_examples=100, deadline=None)
@given(problems())
def test_boxes_equal_cocos(problem):
    assert_equal_to_coco(*problem, "bbox")


@settings(max_examples=40, deadline=None)
@given(problems(masks=True))
def test_masks_equal_cocos(problem):
    assert_equal_to_coco(*problem, "segm")


def detections_like(ground_truth, *, seed=0):
    """Boxes near the annotated ones, some of another class, and some anywhere."""
    random = np.random.default_rng(seed)
    categories = [category["id"] for category in ground_truth["categories"]]
    results = []
    for annotation in ground_truth["annotations"]:
        for spread in (0.02, 0.05, 0.1, 0.3):
            x, y, w, h = annotation["bbox"]
            dx, dy, dw, dh = spread * random.standard_normal(4)
            category = annotation["category_id"] if random.random() < 0.8 else int(random.choice(categories))
            box = [x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)]
            score = float(np.round(np.clip(0.8 - spread + 0.2 * random.standard_normal(), 0, 1), 2))
            results.append({"image_id": annotation["image_id"], "category_id": category, "bbox": box, "score": score})
    return results


def test_real_annotations_equal_cocos():
    results = detections_like(REAL)
    metrics = assert_equal_to_coco(REAL, results, "bbox")
    assert 0.3 < metrics.ap < metrics.ap50 < 1
    assert min(metrics.as_dict().values()) > 0

    sizes = {image["id"]: (image["height"], image["width"]) for image in REAL["images"]}
    for result in results:
        x, y, w, h = result.pop("bbox")
        rows, columns = np.indices(sizes[result["image_id"]], sparse=True)
        disk = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 < 1
        result["segmentation"] = encode_rle(disk)
    metrics = assert_equal_to_coco(REAL, results, "segm")
    assert 0.01 < metrics.ap < metrics.ap50 < 1


# --- by hand ----------------------------------------------------------------------------------------------------------


def truth_of(*boxes, **more):
    """An image 0 with boxes of the class 0, and a class 5 without any."""
    annotations = [
        {"id": n + 1, "image_id": 0, "category_id": 0, "bbox": box, "area": box[2] * box[3], **more}
        for n, box in enumerate(boxes)
    ]
    return {
        "images": [{"id": 0, "height": 100, "width": 100}, {"id": 1, "height": 100, "width": 100}],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cat"}, {"id": 5}],
    }


def detection(box, score=0.5, **more):
    return {"image_id": 0, "category_id": 0, "bbox": box, "score": score, **more}


def test_half_of_the_objects_found_exactly():
    """Precision is 1 up to the recall 1/2: at 51 of the 101 recalls. The class without annotations does not count."""
    metrics = evaluate_detections(truth_of([0, 0, 40, 40], [50, 50, 50, 50]), [detection([0, 0, 40, 40])])
    assert metrics.ap == metrics.ap50 == metrics.ap_medium == pytest.approx(51 / 101)
    assert (metrics.ap_small, metrics.ap_large, metrics.ar_small, metrics.ar_large) == (-1, -1, -1, -1)
    assert metrics.ar1 == metrics.ar100 == 0.5
    assert [result[:1] for result in metrics.per_class] == [("cat",), ("5",)]
    assert metrics.per_class[1] == ("5", -1, -1)
    assert (metrics.images, metrics.annotations, metrics.detections) == (2, 2, 1)


def test_overlaps_between_the_thresholds():
    """4/5 of the union: found at 0.50 to 0.80, seven of ten thresholds."""
    metrics = evaluate_detections(truth_of([0, 0, 10, 10]), [detection([0, 0, 10, 8])])
    assert (metrics.ap, metrics.ap50, metrics.ap75) == pytest.approx((0.7, 1, 1))


def test_a_crowd_absorbs_detections():
    """Any number of detections inside a crowd are neither right nor wrong."""
    truth = truth_of([0, 0, 90, 90], iscrowd=1)
    truth["annotations"].append(truth_of([0, 92, 50, 8])["annotations"][0] | {"id": 2})
    inside = [detection([x, 0, 10, 10], 0.9) for x in range(0, 80, 10)]
    assert evaluate_detections(truth, [*inside, detection([0, 92, 50, 8], 0.1)]).ap == pytest.approx(1)


def test_the_area_is_the_annotations():
    """A box of 1600 pixels around an object of 100 is small: what the annotation says."""
    truth = truth_of([0, 0, 40, 40])
    truth["annotations"][0]["area"] = 100
    metrics = evaluate_detections(truth, [detection([0, 0, 40, 40])])
    assert (metrics.ap_small, metrics.ap_medium) == (pytest.approx(1), -1)


def test_only_the_best_hundred_count():
    boxes = [detection([60, 60, 9, 9], 0.9) for _ in range(100)]
    assert evaluate_detections(truth_of([0, 0, 40, 40]), [*boxes, detection([0, 0, 40, 40], 0.1)]).ar100 == 0
    assert evaluate_detections(truth_of([0, 0, 40, 40]), [*boxes[1:], detection([0, 0, 40, 40], 0.1)]).ar100 == 1


def test_an_annotation_with_the_id_0_is_never_found():
    """As in COCO's tools; the table says so."""
    truth = truth_of([0, 0, 40, 40])
    truth["annotations"][0]["id"] = 0
    metrics = assert_equal_to_coco(
        truth | {"annotations": [truth["annotations"][0] | {"iscrowd": 0}]}, [detection([0, 0, 40, 40])], "bbox"
    )
    assert metrics.ap == 0
    assert metrics.has_id_0
    assert "the id 0" in format_detection_metrics(metrics)


def test_nothing_at_all():
    metrics = evaluate_detections({"images": [], "annotations": [], "categories": []}, [])
    assert set(metrics.as_dict().values()) == {-1.0}
    assert evaluate_detections(truth_of([0, 0, 4, 4]), []).ap == 0


def test_the_table():
    truth = truth_of([0, 0, 40, 40], [50, 50, 50, 50])
    truth["categories"][0]["name"] = "cat\n" + "o" * 40
    table = format_detection_metrics(evaluate_detections(truth, [detection([0, 0, 40, 40])])).split("\n")
    assert table == [
        "2 images, 2 annotations, 1 detection (boxes)",
        "AP 50.5   AP50 50.5   AP75 50.5   small -   medium 50.5   large -",
        "AR 50.0   with 1 50.0   with 10 50.0   small -   medium 50.0   large -",
        "",
        "class                              AP   AP50",
        "cat?ooooooooooooooooooooooo...   50.5   50.5",
    ]


# --- data of another form ---------------------------------------------------------------------------------------------


def changed(path, value):
    """Data that is right, but for the value at one place; ("results", 0, "score") is the first result's score."""
    truth, results = truth_of([0, 0, 40, 40], iscrowd=0), [detection([0, 0, 40, 40])]
    truth["annotations"][0]["segmentation"] = [[0, 0, 40, 0, 40, 40]]
    results[0]["segmentation"] = encode_rle(np.ones((100, 100), bool))
    place = {**truth, "results": results}
    whole = place
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return whole, whole["results"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images",), None, "images: found None, expected a list of objects"),
        (("annotations", 0), 7, "annotations: found 7 in the list, expected objects"),
        (("results",), {}, "results: found {}, expected a list of objects"),
        (("results", 0, "score"), "0.5", r"results\[0\]: score: found '0.5', expected a number"),
        (("results", 0, "score"), float("nan"), r"results\[0\]: score: found nan, expected a number"),
        (("results", 0, "image_id"), 2, r"results\[0\]: image_id: found 2, expected one of the 2 ids"),
        (("results", 0, "category_id"), 1.0, r"results\[0\]: category_id: found 1.0, expected a whole number"),
        (("results", 0, "bbox"), [1, 2, 3], r"results\[0\]: bbox: found \[1, 2, 3\], expected 4 numbers"),
        (("results", 0, "bbox"), [1, 2, -3, 4], r"results\[0\]: bbox: found .*of no negative size"),
        (("annotations", 0, "area"), None, r"annotations\[0\]: area: found None, expected a number"),
        (("annotations", 0, "category_id"), 9, r"annotations\[0\]: category_id: found 9, expected one of the 2 ids"),
        (("annotations", 0, "iscrowd"), [1], r"annotations\[0\]: iscrowd: found \[1\], expected a number"),
        (("images", 1, "id"), 0, "images: the id 0 occurs more than once"),
        (("images", 1, "id"), 2**60, r"images\[1\]: id: found 1152921504606846976, expected a whole number"),
        (("categories", 0, "name"), 3, "categories: name: found 3, expected a string"),
    ],
)
def test_data_of_another_form(path, value, message):
    with pytest.raises(DatasetError, match=message) as caught:
        evaluate_detections(*changed(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images", 0, "height"), 0, r"images\[0\]: height: found 0, expected a whole number of at least 1"),
        (("images", 0, "width"), 10**9, r"images\[0\]: size: found 100 x 1000000000 pixels, expected at most"),
        (("annotations", 0, "segmentation"), [], r"annotations\[0\]: segmentation: polygons: found \[\]"),
        (("results", 0, "segmentation", "size"), [50, 200], r"results\[0\]: segmentation: mask: found 50 x 200"),
        (("results", 0, "segmentation"), None, r"results\[0\]: segmentation: polygons: found None"),
    ],
)
def test_masks_of_another_form(path, value, message):
    with pytest.raises(DatasetError, match=message):
        evaluate_detections(*changed(path, value), iou_type="segm")


def test_other_arguments():
    with pytest.raises(ConfigError, match="iou_type: found 'keypoints', expected one of bbox, segm"):
        evaluate_detections(truth_of(), [], iou_type="keypoints")
    with pytest.raises(DatasetError, match="ground truth: found None, expected an object"):
        evaluate_detections(None, [])


PATHS = [
    *((name,) for name in ("images", "annotations", "categories", "results")),
    *(("images", 0, key) for key in ("id", "height", "width")),
    *(("annotations", 0, key) for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")),
    *(("results", 0, key) for key in ("image_id", "category_id", "bbox", "score", "segmentation")),
    *(("results", 0, "segmentation", key) for key in ("size", "counts")),
    *(("categories", 0, key) for key in ("id", "name")),
    ("annotations", 0, "bbox", 2),
    ("annotations", 0, "segmentation", 0),
    ("annotations", 0, "segmentation", 0, 1),
]
NESTED = [1.0]
for _ in range(80):
    NESTED = [NESTED]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([1e300, NESTED]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["id", "counts", "size"]), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=VALUES, iou_type=st.sampled_from(["bbox", "segm"]))
def test_anything_else_raises_our_errors_alone(path, value, iou_type):
    with contextlib.suppress(MinidatError):
        evaluate_detections(*changed(path, value), iou_type=iou_type)
