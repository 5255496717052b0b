"""minidat.data.box_transforms and box_augmentation: boxes and masks stay with the pixels, choices by statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.data import box_transforms
from minidat.data.box_augmentation import BoxAugmentation, random_crop, random_flip, random_resize
from minidat.data.dense_preprocessing import normalize_pixels, preprocess_detection
from minidat.data.masks import encode_rle, polygons_to_mask
from minidat.data.resizing import resize_bilinear
from minidat.data.targets import BoxTargets
from minidat.errors import ConfigError, ShapeError

from .strategies import map_sizes, seeds

KINDS = ("polygons", "runs", "pixels")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2, y1, x2, y2, x1, y2]


@st.composite
def scenes(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> tuple[np.ndarray, BoxTargets]:
    """A picture with rectangular objects, whole pixels wide: brighter than the rest, and with a mask that says so."""
    height, width = draw(map_sizes(shortest=3, longest=40))
    rng = np.random.default_rng(draw(seeds()))
    count = draw(st.integers(0, 4))
    boxes = np.zeros((count, 4), np.float32)
    masks: list[Any] = []
    kind = draw(st.sampled_from(kinds))
    for i in range(count):
        (x1, x2), (y1, y2) = (np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (width, height))
        boxes[i] = x1, y1, x2, y2
        pixels = np.zeros((height, width), bool)
        pixels[y1:y2, x1:x2] = True
        masks.append({"polygons": [rectangle(x1, y1, x2, y2)], "runs": encode_rle(pixels), "pixels": pixels}[kind])
    labels = rng.integers(0, 9, count)
    for array in (boxes, labels, *(mask for mask in masks if isinstance(mask, np.ndarray))):
        array.flags.writeable = False
    return noise(height, width, int(rng.integers(1 << 30))), BoxTargets(boxes, labels, masks)


def box_of(mask: Any) -> list[float]:
    """(x1, y1, x2, y2) around a mask."""
    if isinstance(mask, list):
        points = np.array(mask).reshape(-1, 2)
        return [*points.min(axis=0), *points.max(axis=0)]
    assert mask.dtype == bool
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def assert_equal(got: BoxTargets, expected: BoxTargets) -> None:
    np.testing.assert_array_equal(got.boxes, expected.boxes)
    np.testing.assert_array_equal(got.labels, expected.labels)
    assert (got.masks is None) == (expected.masks is None)
    for mask, other in zip(got.masks or [], expected.masks or [], strict=True):
        np.testing.assert_array_equal(mask, other)


# --- transforms -------------------------------------------------------------------------------------------------------


@given(scenes(("polygons", "pixels")))
def test_a_flip_twice_is_the_identity(scene: tuple[np.ndarray, BoxTargets]) -> None:
    image, targets = scene
    flipped, flipped_targets = box_transforms.flip(image, targets)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    if image.shape[1] > 1 and len(targets.boxes):
        centered = np.allclose(targets.boxes[:, 0] + targets.boxes[:, 2], image.shape[1])
        assert centered or (flipped_targets.boxes != targets.boxes).any()
    again, again_targets = box_transforms.flip(flipped, flipped_targets)
    np.testing.assert_array_equal(again, image)
    assert_equal(again_targets, targets)
    assert again_targets.boxes.dtype == np.float32


@given(scenes())
def test_the_box_of_a_flipped_mask_is_the_flipped_box(scene: tuple[np.ndarray, BoxTargets]) -> None:
    _, flipped = box_transforms.flip(*scene)
    assert flipped.masks is not None
    for box, mask in zip(flipped.boxes, flipped.masks, strict=True):
        np.testing.assert_array_equal(box_of(mask), box)


@given(scenes(), map_sizes(shortest=3, longest=80))
def test_the_box_of_a_resized_mask_is_the_resized_box(
    scene: tuple[np.ndarray, BoxTargets], size: tuple[int, int]
) -> None:
    image, targets = scene
    resized, resized_targets = box_transforms.resize(image, targets, size)
    np.testing.assert_array_equal(resized, resize_bilinear(image, size))
    assert resized_targets.masks is not None
    for box, mask, before in zip(resized_targets.boxes, resized_targets.masks, targets.boxes, strict=True):
        np.testing.assert_allclose(box[::2], before[::2] * size[1] / image.shape[1], rtol=1e-6)
        np.testing.assert_allclose(box[1::2], before[1::2] * size[0] / image.shape[0], rtol=1e-6)
        if isinstance(mask, list):
            np.testing.assert_allclose(box_of(mask), box, rtol=1e-6)
        elif mask.any():  # a shrunk one may fall between the pixels
            assert mask.shape == size
            assert np.abs(box_of(mask) - box).max() <= 1.001
        else:
            assert (box[2:] - box[:2]).min() < 1
    np.testing.assert_array_equal(resized_targets.labels, targets.labels)


@given(scenes(), seeds())
def test_a_crop_keeps_what_it_shows(scene: tuple[np.ndarray, BoxTargets], seed: int) -> None:
    """Boxes and masks equal those found among the pixels of the piece."""
    image, targets = scene
    (top, bottom), (left, right) = (
        np.sort(np.random.default_rng(seed).choice(side + 1, 2, replace=False)).tolist() for side in image.shape[:2]
    )
    piece, kept = box_transforms.crop(image, targets, (top, left), (bottom - top, right - left))
    np.testing.assert_array_equal(piece, image[top:bottom, left:right])
    assert kept.masks is not None
    assert len(kept.boxes) == len(kept.labels) == len(kept.masks)
    expected = []
    for (x1, y1, x2, y2), label in zip(targets.boxes.astype(int).tolist(), targets.labels, strict=True):
        inside = np.zeros(image.shape[:2], bool)
        inside[y1:y2, x1:x2] = True
        inside = inside[top:bottom, left:right]
        if inside.any():
            expected.append((box_of(inside), label, inside))
    assert len(expected) == len(kept.boxes)
    for box, label, mask, (expected_box, expected_label, inside) in zip(
        kept.boxes, kept.labels, kept.masks, expected, strict=True
    ):
        np.testing.assert_array_equal(box, expected_box)
        assert label == expected_label
        pixels = polygons_to_mask(mask, *inside.shape) if isinstance(mask, list) else mask
        np.testing.assert_array_equal(pixels, inside)


def test_boxes_without_masks_and_with_other_polygons() -> None:
    image = noise(10, 20)
    targets = BoxTargets(np.array([[2, 3, 8, 9], [12, 1, 19.5, 4]]), np.array([4, 1]))
    _, kept = box_transforms.crop(image, targets, (2, 7), (8, 6))
    np.testing.assert_array_equal(kept.boxes, [[0, 1, 1, 7], [5, 0, 6, 2]])
    assert (kept.boxes.dtype, kept.masks) == (np.float64, None)
    assert box_transforms.flip(image, targets)[1].masks is None
    # of several polygons each moves
    two = BoxTargets(np.array([[0, 0, 10, 10.0]]), np.array([0]), [[rectangle(0, 0, 2, 2), rectangle(8, 8, 10, 10)]])
    assert box_transforms.crop(image, two, (1, 1), (9, 19))[1].masks == [
        [rectangle(-1, -1, 1, 1), rectangle(7, 7, 9, 9)]
    ]
    resized = box_transforms.resize(image, two, (5, 40))[1].masks
    assert resized == [[rectangle(0, 0, 4, 1), rectangle(16, 4, 20, 5)]]


def test_resizing_is_that_of_the_test_time() -> None:
    image = noise(61, 83)
    prepared = preprocess_detection(image, scale=(150, 100))
    resized, targets = box_transforms.resize(
        image, BoxTargets(np.array([[1, 2, 60, 50]], np.float32), np.array([0])), prepared.size
    )
    height, width = prepared.size
    np.testing.assert_array_equal(normalize_pixels(resized), prepared.pixels[:height, :width])
    np.testing.assert_array_equal(targets.boxes, np.array([[1, 2, 60, 50]], np.float32) * prepared.scale_factor)


# --- random choices ---------------------------------------------------------------------------------------------------

NOTHING = BoxTargets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [])


def test_half_of_the_pictures_are_mirrored() -> None:
    image, rng = noise(2, 3), np.random.default_rng(0)
    flips = [(random_flip(image, NOTHING, rng)[0] != image).any() for _ in range(2000)]
    assert 0.46 < np.mean(flips) < 0.54


def test_the_shorter_side_is_one_of_those_given() -> None:
    rng = np.random.default_rng(0)
    sizes = [random_resize(noise(6, 9), NOTHING, rng, shortest=(4, 8, 20), longest=24)[0].shape[:2] for _ in range(600)]
    assert set(sizes) == {(4, 6), (8, 12), (16, 24)}  # 20 x 30 would be too long
    assert all(150 < sizes.count(size) < 250 for size in set(sizes))
    assert random_resize(noise(9, 6), NOTHING, rng, shortest=(8,), longest=100)[0].shape[:2] == (12, 8)


@given(map_sizes(longest=30), st.integers(1, 20), st.integers(0, 20), seeds())
def test_a_crop_is_inside_the_picture(size: tuple[int, int], low: int, more: int, seed: int) -> None:
    image = noise(*size)
    piece, _ = random_crop(image, NOTHING, np.random.default_rng(seed), limits=(low, low + more))
    for side, whole in zip(piece.shape[:2], size, strict=True):
        assert min(low, whole) <= side <= min(low + more, whole)
    windows = np.lib.stride_tricks.sliding_window_view(image, piece.shape)
    assert (windows == piece).all(axis=(-3, -2, -1)).any()


def test_sides_and_places_of_crops_are_uniform() -> None:
    ramp = np.zeros((12, 15, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.mgrid[:12, :15]
    rng = np.random.default_rng(0)
    pieces = [random_crop(ramp, NOTHING, rng, limits=(4, 8))[0] for _ in range(5000)]
    for axis in (0, 1):
        sides = np.array([piece.shape[axis] for piece in pieces])
        assert set(sides) == {4, 5, 6, 7, 8}
        assert np.bincount(sides)[4:].min() > 850
        starts = np.array([piece[0, 0, axis] for piece in pieces])
        for side in (4, 8):
            places = starts[sides == side]
            assert set(places) == set(range(ramp.shape[axis] - side + 1))
            assert abs(places.mean() - (ramp.shape[axis] - side) / 2) < 0.5


def test_the_recipe_gives_pictures_of_the_published_sizes() -> None:
    image = noise(90, 120)
    boxes = np.array([[10, 20, 60, 70], [0, 0, 120, 90]], np.float32)
    targets = BoxTargets(boxes, np.array([3, 5]), [[rectangle(*box.tolist())] for box in boxes])
    rng = np.random.default_rng(0)
    recipe, seen = BoxAugmentation(), []
    for _ in range(40):
        pixels, found = recipe(image, targets, rng)
        assert pixels.dtype == np.float32
        height, width = pixels.shape[:2]
        assert min(height, width) in range(480, 801, 32) or max(height, width) == 1333
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert ((found.boxes >= 0) & (found.boxes <= [width, height] * 2)).all()
        assert found.labels.tolist() in ([3, 5], [5])
        assert found.masks is not None
        assert len(found.masks) == len(found.boxes)
        seen.append(abs(width / height - 4 / 3) < 0.01)
    assert 8 <= sum(seen) <= 32  # half of them are whole
    np.testing.assert_array_equal(targets.boxes, boxes)
    assert targets.masks == [[rectangle(*box.tolist())] for box in boxes]


def test_the_shorter_schedule_resizes_as_at_test_time() -> None:
    recipe = BoxAugmentation(flip=False, crop=None, shortest=(800,))
    image = noise(61, 83)
    pixels, _ = recipe(image, NOTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, preprocess_detection(image, multiple=1).pixels)


def test_a_seed_decides() -> None:
    image = noise(50, 40)
    results = [BoxAugmentation()(image, NOTHING, np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0].shape != results[2].shape or (results[0] != results[2]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": (0, 5)}, r"random_crop: limits: found \(0, 5\), expected \(low, high\) with 1 <= low <= high"),
        ({"crop": (6, 5)}, "random_crop: limits"),
        ({"shortest": ()}, r"random_resize: shortest: found \(\), expected numbers of at least 1 pixel"),
        ({"crop_shortest": (0,)}, "random_resize: shortest"),
        ({"longest": 0}, "BoxAugmentation: longest: found 0, expected at least 1 pixel"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(BoxAugmentation(), **settings)


def test_pictures_that_are_none_are_refused() -> None:
    rng = np.random.default_rng(0)
    for image in (np.zeros((4, 5)), np.zeros((4, 5, 3)), np.zeros((2, 4, 5, 3), np.uint8)):
        for change in (
            lambda image: random_flip(image, NOTHING, rng),
            lambda image: random_resize(image, NOTHING, rng, shortest=(3,), longest=5),
            lambda image: random_crop(image, NOTHING, rng, limits=(1, 2)),
        ):
            with pytest.raises(ShapeError, match="image: found"):
                change(image)
