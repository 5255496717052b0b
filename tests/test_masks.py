"""minidat.data.masks against COCO's own tools, bit by bit, and what files may hold instead of masks."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from minidat.data import decode_rle, encode_rle, polygons_to_mask, segmentation_to_mask
from minidat.data.masks import MAX_PIXELS, Runs, mask_ious
from minidat.errors import DatasetError, MinidatError, ShapeError

from .strategies import seeds

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # COCO's tools'

ANNOTATIONS = Path(__file__).parent / "annotations" / "coco_excerpt.json"


def reference_mask(polygons, height, width):
    """COCO's tools: one mask a polygon, and their union."""
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)


@st.composite
def masks(draw, shape=None):
    """Noise, blobs with long runs, empty and full masks; a side may be 1."""
    height, width = shape or (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    mask = np.random.default_rng(draw(seeds())).random((height, width)) < share
    if draw(st.booleans()):
        mask = mask.repeat(draw(st.integers(1, 300 // height + 1)), axis=0)[:height]
    return mask


@st.composite
def polygons(draw):
    """Star-shaped, zigzag and degenerate polygons, on halves, fifths and any coordinates, partly outside."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    random = np.random.default_rng(draw(seeds()))
    grid = draw(st.sampled_from([None, 1.0, 2.0, 5.0, 10.0]))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        corners = draw(st.integers(3, 12))
        spread = draw(st.sampled_from([0.0, 0.3, 1.0]))
        points = random.uniform(-spread, 1 + spread, (corners, 2)) * [width, height]
        if draw(st.booleans()):
            angles = np.sort(random.uniform(0, 2 * np.pi, corners))
            radius = random.uniform(0.1, 0.7)
            points = (0.5 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)) * [width, height]
        if grid:
            points = np.round(points * grid) / grid
        if draw(st.booleans()):
            points = points.repeat(2, axis=0)  # sides of no length
        parts.append(points.ravel().tolist())
    return parts, height, width


# --- equal to COCO's tools --------------------------------------------------------------------------------------------


@given(mask=masks(), order=st.sampled_from("CF"))
def test_run_lengths_equal_cocos(mask, order):
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = encode_rle(np.array(mask, order=order))
    assert rle == {"size": list(mask.shape), "counts": expected["counts"].decode()}
    assert json.loads(json.dumps(rle)) == rle

    runs = Runs.from_rle(rle)
    assert runs.area == coco.area(expected) == mask.sum()
    assert list(runs.box) == coco.toBbox(expected).tolist()
    for counts in (rle["counts"], expected["counts"], np.diff(np.r_[0, runs.edges, mask.size]).tolist()):
        decoded = decode_rle({"size": rle["size"], "counts": counts})
        np.testing.assert_array_equal(decoded, mask)
        assert decoded.dtype == bool


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=20), height=st.integers(1, 7))
def test_counts_of_zero_are_allowed(counts, height):
    """Files may split a run in two, with nothing between."""
    counts[-1] += -sum(counts) % height
    if not sum(counts):
        counts[0] = height
    rle = {"size": [height, sum(counts) // height], "counts": counts}
    expected = coco.decode(coco.frPyObjects(rle, *rle["size"]))
    np.testing.assert_array_equal(decode_rle(rle), expected)
    assert Runs.from_rle(rle).area == expected.sum()


def test_large_numbers_in_strings():
    """Runs of up to 27 bits, and differences of both signs."""
    counts = [0, 1, 70_000_000, 33, 5, 40_000_000, 3, 1, MAX_PIXELS - 110_000_043]
    rle = coco.frPyObjects({"size": [1 << 13, 1 << 14], "counts": counts}, 1 << 13, 1 << 14)
    runs = Runs.from_rle(rle)
    assert np.diff(np.r_[0, runs.edges, MAX_PIXELS]).tolist() == counts
    assert runs.to_rle()["counts"] == rle["counts"].decode()


@settings(max_examples=400)
@given(polygons())
def test_polygons_equal_cocos(drawn):
    parts, height, width = drawn
    expected = reference_mask(parts, height, width)
    np.testing.assert_array_equal(polygons_to_mask(parts, height, width), expected)
    runs = Runs.from_polygons(parts, height, width)
    assert runs.area == expected.sum()
    assert runs.to_rle() == encode_rle(expected)


def test_polygons_of_real_annotations():
    data = json.loads(ANNOTATIONS.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"]:
        segmentation, size = annotation["segmentation"], sizes[annotation["image_id"]]
        expected = reference_mask(segmentation, *size)
        np.testing.assert_array_equal(segmentation_to_mask(segmentation, *size), expected)
        assert expected.any()


def test_a_polygon_by_hand():
    """A pixel belongs to a polygon when its middle lies inside; what a polygon surrounds twice is outside."""
    square = polygons_to_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 4, 5)
    np.testing.assert_array_equal(np.argwhere(square), [(y, x) for y in (1, 2) for x in (1, 2, 3)])
    ring = polygons_to_mask([[0, 0, 5, 0, 5, 5, 0, 5, 0, 0, 1, 1, 1, 4, 4, 4, 4, 1, 1, 1]], 5, 5)
    assert ring.sum() == 25 - 9


@given(st.data())
def test_overlaps_equal_cocos(data):
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    left = data.draw(st.lists(masks(shape), min_size=1, max_size=4))
    right = data.draw(st.lists(masks(shape), min_size=1, max_size=4))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(right), max_size=len(right)))
    expected = coco.iou(
        *([coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in side] for side in (left, right)), crowd
    )
    found = mask_ious([Runs.from_mask(mask) for mask in left], [Runs.from_mask(mask) for mask in right], crowd)
    np.testing.assert_array_equal(found, expected)


def test_overlaps_of_nothing():
    assert mask_ious([], [Runs.from_mask(np.ones((2, 2), bool))], [False]).shape == (0, 1)
    with pytest.raises(ShapeError, match=r"is_crowd: found shape \(0,\), expected \(1,\)"):
        mask_ious([], [Runs.from_mask(np.ones((2, 2), bool))], [])
    with pytest.raises(ShapeError, match="masks: found the sizes"):
        mask_ious([Runs.from_mask(np.ones((2, 1), bool))], [Runs.from_mask(np.ones((2, 2), bool))], [False])


# --- what is no mask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, [[True]], np.ones((2, 2), np.uint8), np.ones(4, bool), np.ones((0, 3), bool)])
def test_encoding_something_else(mask):
    with pytest.raises(ShapeError, match=r"^mask: found .*, expected \(height, width\) of bool$"):
        encode_rle(mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "RLE: found None, expected an object with 'size' and 'counts'"),
        ({"counts": "4"}, "expected an object with 'size' and 'counts'"),
        ({"size": [2], "counts": "4"}, r"RLE: size: found \[2\], expected \[height, width\]"),
        ({"size": [2, "2"], "counts": "4"}, "width: found '2', expected a whole number"),
        ({"size": [0, 2], "counts": []}, "height: found 0, expected a whole number of at least 1"),
        ({"size": [True, 4], "counts": "4"}, "height: found True"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "size: found 1000000000 x 1000000000 pixels, expected at most"),
        ({"size": [2, 2], "counts": "3"}, "their sum is 3, expected height x width = 2 x 2 = 4"),
        ({"size": [2, 2], "counts": ""}, "their sum is 0"),
        ({"size": [2, 2], "counts": [5, 0]}, "counts: found 0 to 5, expected 0 to 4"),
        ({"size": [2, 2], "counts": [-1, 5]}, "counts: found -1 to 5"),
        ({"size": [2, 2], "counts": [2**64 - 1, 5]}, "counts: found"),
        ({"size": [2, 2], "counts": [2**70, 5]}, "counts: found .*, expected a string or a list of whole numbers"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "expected a string or a list of whole numbers"),
        ({"size": [2, 2], "counts": [[4], [1, 2]]}, "expected a string or a list of whole numbers"),
        ({"size": [2, 2], "counts": None}, "expected a string or a list of whole numbers"),
        ({"size": [2, 2], "counts": "4é"}, "expected characters from '0' to 'o'"),
        ({"size": [2, 2], "counts": "4\n"}, r"found '4\\n', expected characters"),
        ({"size": [2, 2], "counts": "4o"}, "the string breaks off inside a number"),
        ({"size": [2, 2], "counts": "ooooooooooooo0"}, "found a number of 14 characters, expected at most 6"),
    ],
)
def test_a_run_length_encoding_that_is_none(rle, message):
    with pytest.raises(DatasetError, match=message) as caught:
        decode_rle(rle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        (None, "polygons: found None, expected a list of at least one"),
        ([], r"polygons: found \[\], expected a list of at least one"),
        ([[1, 2, 3, 4]], r"polygon: found \[1, 2, 3, 4\], expected \[x1, y1, x2, y2, ...\], at least three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "expected .* at least three corners"),
        ([1, 2, 3, 4, 5, 6], "polygon: found 1, expected"),
        ([["1", "2", "3", "4", "5", "6"]], "polygon: found .*, expected"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected coordinates of at most"),
        ([[1, 2, 3, 4, 5, -(2**63)]], "expected coordinates of at most"),
        ([[1, 2, 3, 4, 5, 1e300]], "expected coordinates of at most"),
        ([[0, 0, 1e7, 1e7, 0, 1e7]], "polygon: its boundary is .* pixels long, expected at most"),
        ([[0, 0, 1, 1, 0, 1] * 200_000], "polygon: its boundary is"),
    ],
)
def test_polygons_that_are_none(polygons, message):
    with pytest.raises(DatasetError, match=message) as caught:
        polygons_to_mask(polygons, 10, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [np.eye(2, 3) > 0, encode_rle(np.eye(2, 3) > 0)])
def test_a_mask_of_another_size(mask):
    np.testing.assert_array_equal(segmentation_to_mask(mask, 2, 3), np.eye(2, 3) > 0)
    with pytest.raises(
        DatasetError, match=r"^mask: found 2 x 3 pixels \(height x width\), expected the picture's 3 x 2$"
    ):
        segmentation_to_mask(mask, 3, 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=20,
)


@settings(max_examples=300)
@given(
    VALUES
    | st.fixed_dictionaries({"size": st.just([2, 3]) | VALUES, "counts": VALUES | st.text("0123@PQo", max_size=9)})
)
def test_anything_else_raises_our_errors_alone(value):
    with contextlib.suppress(MinidatError):
        assert segmentation_to_mask(value, 2, 3).shape == (2, 3)
