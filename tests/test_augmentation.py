"""Augmentation: every operation against Pillow's, random choices by their statistics, mixtures by their definition."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from minidat.data import adjustments, augmentation, warping
from minidat.data.augmentation import Augmentation
from minidat.data.image import MEAN, STD
from minidat.errors import ConfigError, ShapeError
from minidat.ops import cross_entropy

from .strategies import seeds

FILL = (124, 116, 104)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(batch: int, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    """Random images that nobody may write to."""
    images = np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    images.flags.writeable = False
    return images


KINDS = ("noise", "one value", "few values", "narrow", "ramp")


@st.composite
def batches(draw: st.DrawFn) -> np.ndarray:
    """Images of some of KINDS and of any size, none square unless 1 x 1."""
    batch, height = draw(st.integers(1, 5)), draw(st.integers(1, 24))
    width = draw(st.integers(1, 24).filter(lambda side: side != height or side == 1))
    rng = np.random.default_rng(draw(seeds()))
    y, x = np.mgrid[:height, :width, :3][:2]
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "noise": lambda: rng.integers(0, 256, (height, width, 3)),
        "few values": lambda: rng.choice(rng.integers(0, 256, 3), (height, width, 3)),
        "one value": lambda: np.broadcast_to(rng.integers(0, 256, 3), (height, width, 3)),
        "narrow": lambda: rng.integers(100, 110, (height, width, 3)),
        "ramp": lambda: (rng.integers(1, 20) * x + rng.integers(1, 20) * y) % 256,
    }
    drawn = draw(st.lists(st.sampled_from(KINDS), min_size=batch, max_size=batch))
    images = np.stack([kinds[kind]() for kind in drawn]).astype(np.uint8)
    images.flags.writeable = False
    return images


def by_pillow(images: np.ndarray, adjust: Callable[[Image.Image, int], Image.Image]) -> np.ndarray:
    """`adjust` of a picture and its index, for each image."""
    return np.stack([np.asarray(adjust(Image.fromarray(image), i)) for i, image in enumerate(images)])


def assert_same(got: np.ndarray, expected: np.ndarray, *, share_off_by_one: float = 0.0) -> None:
    """uint8 images, equal but for a share of values that may be off by one."""
    assert (got.dtype, got.shape) == (np.uint8, expected.shape)
    off = np.abs(got.astype(int) - expected)
    assert off.max(initial=0) <= (share_off_by_one > 0), f"off by {off.max()} at {np.argwhere(off == off.max())[0]}"
    assert (off > 0).sum() <= share_off_by_one * off.size


# --- adjustments against Pillow ---------------------------------------------------------------------------------------


@given(batches())
def test_autocontrast_equalize_and_invert_are_pillows(images: np.ndarray) -> None:
    for ours, pillows in (
        (adjustments.autocontrast, ImageOps.autocontrast),
        (adjustments.equalize, ImageOps.equalize),
        (adjustments.invert, ImageOps.invert),
    ):
        assert_same(ours(images), by_pillow(images, lambda picture, _, f=pillows: f(picture)))  # type: ignore[misc]


def test_many_pixels_make_a_level_of_an_equalized_image() -> None:
    """2 to 40, of which half is added before rounding down."""
    rng = np.random.default_rng(0)
    images = np.stack([np.floor(255 * rng.random((100, 110, 3)) ** power) for power in (1, 2, 5)]).astype(np.uint8)
    for piece in (images, images[:, :30, :25]):
        expected = by_pillow(np.ascontiguousarray(piece), lambda picture, _: ImageOps.equalize(picture))
        assert_same(adjustments.equalize(piece), expected)


@given(batches(), seeds())
def test_posterize_and_solarize_are_pillows(images: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits, thresholds = rng.integers(1, 9, len(images)), rng.integers(0, 257, len(images))
    thresholds[0] = rng.choice([0, 1, 128, 255, 256])
    posterized = by_pillow(images, lambda picture, i: ImageOps.posterize(picture, int(bits[i])))
    assert_same(adjustments.posterize(images, bits), posterized)
    assert not adjustments.posterize(images, np.zeros(len(images), int)).any()
    solarized = by_pillow(images, lambda picture, i: ImageOps.solarize(picture, int(thresholds[i])))
    assert_same(adjustments.solarize(images, thresholds), solarized)


@given(batches(), seeds())
def test_solarize_add_is_a_table_of_values(images: np.ndarray, seed: int) -> None:
    additions = np.random.default_rng(seed).integers(0, 129, len(images))
    tables = [[min(255, v + int(added)) if v < 128 else v for v in range(256)] * 3 for added in additions]
    expected = by_pillow(images, lambda picture, i: picture.point(tables[i]))
    assert_same(adjustments.solarize_add(images, additions), expected)


@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_enhancements_are_pillows(name: str) -> None:
    @given(batches(), seeds())
    def check(images: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(seed)
        factors = np.where(rng.random(len(images)) < 0.3, rng.choice([0.0, 0.1, 1.0, 1.9]), rng.uniform(0, 3))
        enhancer = getattr(ImageEnhance, name)
        expected = by_pillow(images, lambda picture, i: enhancer(picture).enhance(float(factors[i])))
        assert_same(getattr(adjustments, name.lower())(images, factors), expected)

    check()


# --- warps against Pillow ---------------------------------------------------------------------------------------------


Fill = tuple[int, int, int] | float


def assert_warped(got: np.ndarray, images: np.ndarray, warp: Callable[[Image.Image, int, Fill], Image.Image]) -> None:
    """Equal to Pillow's `warp` of a picture, its index and a fill color, but next to an integer, where one off may be.

    How near a value is to an integer tells Pillow's warp of floating-point pictures, channel by channel.
    """
    expected = by_pillow(images, lambda picture, i: warp(picture, i, FILL))
    assert_same(got, expected, share_off_by_one=1.0)
    outside = 0.5  # between two integers: wherever there is no image, too, all must be equal
    channels = np.moveaxis(images, -1, 0).astype(np.float32)
    exact = np.stack([by_pillow(c, lambda picture, i: warp(picture, i, outside)) for c in channels], axis=-1)
    next_to_an_integer = np.abs(exact - exact.round()) < 2e-3
    assert np.array_equal(got[~next_to_an_integer], expected[~next_to_an_integer])


def pillows_affine(picture: Image.Image, data: Sequence[float], fill: Fill, interpolation: str) -> Image.Image:
    """Pillow's affine map: `data` are the six numbers of a matrix of (x, y)."""
    method, resampling = Image.Transform.AFFINE, RESAMPLING[interpolation]
    return picture.transform(picture.size, method, tuple(data), resample=resampling, fillcolor=fill)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_affine_maps_are_pillows(interpolation: str) -> None:
    """Those along one axis, which go their own way, and all others; also cut into pieces that fit the cache."""

    @given(batches(), seeds(), st.sampled_from([1, 300, 100_000]))
    def check(images: np.ndarray, seed: int, pixels: int) -> None:
        rng = np.random.default_rng(seed)
        matrices = np.eye(2, 3) + rng.normal(0, 0.3, (len(images), 2, 3)) * [1, 1, 10]
        for matrix in matrices:  # leave an axis alone, or both
            matrix[rng.random(2) < 0.4] = 0
            matrix += np.eye(2, 3) * (matrix == 0).all(axis=1, keepdims=True)
        with mock.patch.object(warping, "CACHE_PIXELS", pixels):
            warped = warping.affine(images, matrices, interpolation=interpolation, fill=FILL)
        (yy, yx, y0), (xy, xx, x0) = np.moveaxis(matrices, 0, -1)
        data = np.stack((xx, xy, x0, yx, yy, y0), axis=-1).tolist()
        assert_warped(warped, images, lambda picture, i, fill: pillows_affine(picture, data[i], fill, interpolation))

    check()


@given(batches(), st.sampled_from([0.0, 90.0, 180.0, 270.0, None]), seeds())
def test_rotations_are_pillows(images: np.ndarray, degrees: float | None, seed: int) -> None:
    height, width = images.shape[1:3]
    if degrees is None:  # no point on a border
        degrees = np.random.default_rng(seed).uniform(-400, 400)
    matrices = warping.rotations(np.full(len(images), degrees), height, width)
    assert_warped(
        warping.affine(images, matrices, fill=FILL),
        images,
        lambda picture, _, fill: picture.rotate(degrees, Image.Resampling.BICUBIC, expand=False, fillcolor=fill),
    )


@given(batches(), st.sampled_from(["shears_x", "shears_y", "translations_x", "translations_y"]), seeds())
def test_shears_and_translations_are_pillows(images: np.ndarray, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(-0.4, 0.4, len(images)) if "shear" in name else rng.uniform(-8, 8, len(images))
    positions = {"shears_x": 1, "shears_y": 3, "translations_x": 2, "translations_y": 5}  # in Pillow's six numbers

    def warp(picture: Image.Image, i: int, fill: Fill) -> Image.Image:
        data = [1.0, 0, 0, 0, 1, 0]
        data[positions[name]] = amounts[i]
        return pillows_affine(picture, data, fill, "bicubic")

    assert_warped(warping.affine(images, getattr(warping, name)(amounts), fill=FILL), images, warp)


def test_whole_pixels_and_right_angles_are_exact() -> None:
    images = noise(2, 9, 9)
    moved = warping.affine(images, warping.translations_x(np.array([3, -2])), fill=(1, 2, 3))
    assert np.array_equal(moved[0, :, :6], images[0, :, 3:])
    assert np.array_equal(moved[1, :, 2:], images[1, :, :7])
    assert np.all(moved[1, :, :2] == (1, 2, 3))
    moved = warping.affine(images, warping.translations_y(np.array([-1, 0])))
    assert np.array_equal(moved[0, 1:], images[0, :-1])
    assert np.array_equal(moved[1], images[1])
    turned = warping.affine(images, warping.rotations(np.array([90, 180]), 9, 9))
    assert np.array_equal(turned[0], np.rot90(images[0]))
    assert np.array_equal(turned[1], images[1, ::-1, ::-1])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resized_boxes_are_pytorchs(interpolation: str) -> None:
    """Enlarged along one axis and shrunk along the other, too. Never further off than by the last rounding.

    But for a width of 1, where PyTorch 2.13 leaves rows out.
    """

    @given(batches(), st.integers(1, 30), st.integers(2, 30), seeds())
    def check(images: np.ndarray, height: int, width: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        first = rng.integers(0, images.shape[1:3], (len(images), 2))
        sides = rng.integers(1, np.array(images.shape[1:3]) - first + 1)
        boxes = np.concatenate((first, sides), axis=1)
        resized = warping.resize_boxes(images, boxes, (height, width), interpolation=interpolation)
        assert (resized.shape, resized.dtype) == ((len(images), height, width, 3), np.uint8)
        for image, (top, left, box_height, box_width), got in zip(images, boxes.tolist(), resized, strict=True):
            piece = image[top : top + box_height, left : left + box_width]
            planar = torch.tensor(np.ascontiguousarray(np.moveaxis(piece, -1, 0)[None], np.float64))
            expected = torch.nn.functional.interpolate(
                planar, (height, width), mode=interpolation, align_corners=False, antialias=True
            )
            off = np.abs(got - np.clip(np.moveaxis(expected[0].numpy(), 0, -1), 0, 255))
            assert off.max() <= 0.5 + 1e-3

    check()


@pytest.mark.parametrize("size", [(32, 32), (20, 24), (70, 65), (16, 80), (5, 1), (1, 5)])
def test_resized_boxes_of_a_picture_are_pillows(size: tuple[int, int]) -> None:
    """Up to its rounding between the two axes."""
    y, x = np.mgrid[:40, :50]
    picture = np.stack((6 * y, 5 * x, 128 + 100 * np.sin(x / 5) * np.cos(y / 4)), axis=-1).astype(np.uint8)
    boxes = np.array([(0, 0, 40, 50), (3, 5, 30, 20), (20, 1, 7, 45)])
    expected = [
        np.asarray(Image.fromarray(picture[t : t + h, w0 : w0 + w]).resize(size[::-1], Image.Resampling.BICUBIC))
        for t, w0, h, w in boxes
    ]
    resized = warping.resize_boxes(np.stack([picture] * 3), boxes, size)
    assert_same(resized, np.stack(expected), share_off_by_one=0.25)


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, 0, 0, 3), (0, 3, 3, 6), (8, 0, 2, 1)])
def test_a_box_must_lie_in_its_image(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="boxes: found"):
        warping.resize_boxes(noise(2, 9, 8), np.array([(0, 0, 9, 8), box]), (4, 4))


# --- random crops and flips -------------------------------------------------------------------------------------------


@given(batches(), st.integers(0, 5), st.sampled_from(["zero", "reflect"]), seeds())
def test_a_random_crop_is_a_piece_of_the_padded_image(images: np.ndarray, padding: int, mode: str, seed: int) -> None:
    height, width = images.shape[1:3]
    if mode == "reflect":
        padding = min(padding, min(height, width) - 1)
    cropped = augmentation.random_crop(images, np.random.default_rng(seed), padding=padding, mode=mode)
    assert (cropped.shape, cropped.dtype) == (images.shape, np.uint8)
    pad = torch.nn.ReflectionPad2d(padding) if mode == "reflect" else torch.nn.ZeroPad2d(padding)
    planar = torch.tensor(np.moveaxis(images, -1, 1).astype(np.float32))
    padded = np.moveaxis(pad(planar).numpy(), 1, -1)
    for image, whole in zip(cropped, padded, strict=True):
        places = range(2 * padding + 1)
        assert any(np.array_equal(image, whole[y : y + height, x : x + width]) for y in places for x in places)


def test_all_places_of_a_crop_are_equally_likely() -> None:
    marked = np.zeros((9000, 4, 4, 3), np.uint8)
    marked[:, 1, 1] = 255  # with a padding of 1 this pixel ends in the upper left nine, each for one place
    cropped = augmentation.random_crop(marked, np.random.default_rng(0), padding=1)
    share = cropped[..., 0].mean(axis=0) / 255
    np.testing.assert_allclose(share[:3, :3], 1 / 9, atol=0.015)
    assert share[3:].sum() == share[:, 3:].sum() == 0


@given(batches(), seeds())
def test_an_image_is_flipped_or_not(images: np.ndarray, seed: int) -> None:
    flipped = augmentation.random_flip(images, np.random.default_rng(seed))
    for before, after in zip(images, flipped, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_half_of_the_images_are_flipped() -> None:
    images = noise(4000, 2, 3)
    flipped = augmentation.random_flip(images, np.random.default_rng(0))
    assert abs((flipped == images).all(axis=(1, 2, 3)).mean() - 0.5) < 0.03


def drawn_boxes(height: int, width: int, **choices: Any) -> np.ndarray:
    """(B, 4): the boxes that random_resized_crop cuts out of 4000 images."""
    images = np.zeros((4000, height, width, 3), np.uint8)
    with mock.patch.object(warping, "resize_boxes", side_effect=lambda images, boxes, size, **_: boxes):
        return augmentation.random_resized_crop(images, np.random.default_rng(0), size=(8, 8), **choices)


def test_boxes_of_resized_crops_have_the_areas_aspects_and_places_asked_for() -> None:
    top, left, height, width = drawn_boxes(100, 80, area=(0.05, 0.3), aspect=(0.5, 1.5)).T
    areas, aspects = height * width / 8000, np.log(width / height)
    np.testing.assert_allclose(np.quantile(areas, [0, 0.25, 0.5, 0.75, 1]), np.linspace(0.05, 0.3, 5), atol=0.01)
    quantiles = np.linspace(math.log(0.5), math.log(1.5), 5)
    np.testing.assert_allclose(np.quantile(aspects, [0, 0.25, 0.5, 0.75, 1]), quantiles, atol=0.06)
    for start, side, length in ((top, height, 100), (left, width, 80)):
        assert start.min() == 0
        assert (start + side).max() == length
        assert abs((start / (length - side)).mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("size", "box"), [((4, 100), (0, 47, 4, 5)), ((100, 4), (47, 0, 5, 4)), ((1, 50), (0, 24, 1, 1))]
)
def test_a_box_that_never_fits_is_replaced_by_the_largest_central_one(
    size: tuple[int, int], box: tuple[int, ...]
) -> None:
    """Of aspect 3/4 to 4/3, as torchvision's RandomResizedCrop does."""
    boxes = drawn_boxes(*size, area=(0.9, 1.0))
    assert np.array_equal(boxes, np.broadcast_to(box, (4000, 4)))


def test_a_resized_crop_of_everything_changes_nothing() -> None:
    images = noise(3, 8, 8)
    crop = augmentation.random_resized_crop(
        images, np.random.default_rng(0), size=(8, 8), area=(1.0, 1.0), aspect=(1.0, 1.0)
    )
    assert np.array_equal(crop, images)
    assert augmentation.random_resized_crop(images, np.random.default_rng(0), size=(5, 6)).shape == (3, 5, 6, 3)


# --- RandAugment ------------------------------------------------------------------------------------------------------


def pillows_operation(name: str, level: float, sign: int, picture: Image.Image, fill: Fill = FILL) -> Image.Image:
    """What timm's "rand-...-inc1" does with its levels 0 to 10, for one picture (its bicubic choice)."""
    width, height = picture.size
    share = level / 10

    def warp(*data: float) -> Image.Image:
        return pillows_affine(picture, data, fill, "bicubic")

    if name in ("color", "contrast", "brightness", "sharpness"):
        return getattr(ImageEnhance, name.capitalize())(picture).enhance(max(0.1, 1 + sign * share * 0.9))
    if name == "solarize_add":
        return picture.point([v + int(share * 110) if v < 128 else v for v in range(256)] * 3)
    if name == "rotate":
        return picture.rotate(sign * share * 30, Image.Resampling.BICUBIC, fillcolor=fill)
    operations: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, 4 - int(share * 4)),
        "solarize": lambda: ImageOps.solarize(picture, 256 - int(share * 256)),
        "shear_x": lambda: warp(1, sign * share * 0.3, 0, 0, 1, 0),
        "shear_y": lambda: warp(1, 0, 0, sign * share * 0.3, 1, 0),
        "translate_x": lambda: warp(1, 0, sign * share * 0.45 * width, 0, 1, 0),
        "translate_y": lambda: warp(1, 0, 0, 0, 1, sign * share * 0.45 * height),
    }
    return operations[name]()


@pytest.mark.parametrize("name", augmentation.OPERATIONS)
def test_each_operation_is_timms(name: str) -> None:
    """Its way from a level to Pillow's arguments; the choice is forced on the generator."""

    @settings(max_examples=25)
    @given(batches(), seeds())
    def check(images: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(seed)
        levels, heads = rng.uniform(0, 10, len(images)), rng.random(len(images))
        loaded = mock.Mock(spec=np.random.Generator)
        loaded.random.side_effect = [np.zeros(len(images)), heads]
        loaded.integers.return_value = np.full(len(images), augmentation.OPERATIONS.index(name))
        loaded.normal.return_value = levels
        augmented = augmentation.rand_augment(images, loaded, operations=1)
        signs = np.where(heads < 0.5, -1, 1)

        def operation(picture: Image.Image, i: int, fill: Fill = FILL) -> Image.Image:
            return pillows_operation(name, float(levels[i]), int(signs[i]), picture, fill)

        if name in augmentation.WARPS:
            assert_warped(augmented, images, operation)
        else:
            assert_same(augmented, by_pillow(images, operation))

    check()


def test_operations_and_their_strengths_are_drawn_as_asked() -> None:
    counts: Counter[str] = Counter()
    strengths, signs = [], []

    def adjusting(name: str) -> augmentation.Adjustment:
        def record(images: np.ndarray, strength: np.ndarray, signed: np.ndarray) -> np.ndarray:
            assert np.array_equal(np.abs(signed), strength)
            counts[name] += len(images)
            strengths.extend(strength)
            signs.extend(np.sign(signed))
            return images

        return record

    def warps(name: str) -> Callable[[np.ndarray, int, int], np.ndarray]:
        def record(signed: np.ndarray, height: int, width: int) -> np.ndarray:
            assert (height, width) == (2, 3)
            counts[name] += len(signed)
            return np.tile(np.eye(2, 3), (len(signed), 1, 1))

        return record

    images = noise(20_000, 2, 3)
    with (
        mock.patch.dict(augmentation.ADJUSTMENTS, {name: adjusting(name) for name in augmentation.ADJUSTMENTS}),
        mock.patch.dict(augmentation.WARPS, {name: warps(name) for name in augmentation.WARPS}),
    ):
        same = augmentation.rand_augment(
            images, np.random.default_rng(0), operations=3, magnitude=8.0, magnitude_std=0.5, probability=0.7
        )
    assert np.array_equal(same, images)
    assert set(counts) == set(augmentation.OPERATIONS)
    expected = 3 * 20_000 * 0.7 / 15
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5
    assert abs(np.mean(strengths) - 0.8) < 0.002
    assert abs(np.std(strengths) - 0.05) < 0.002
    assert abs(np.mean(signs)) < 0.03


def test_strengths_end_at_the_scale() -> None:
    seen: list[float] = []

    def record(images: np.ndarray, strength: np.ndarray, signed: np.ndarray) -> np.ndarray:
        seen.extend(strength)
        return images

    with mock.patch.dict(augmentation.ADJUSTMENTS, dict.fromkeys(augmentation.ADJUSTMENTS, record)):
        for magnitude in (0.0, 10.0):
            augmentation.rand_augment(
                noise(500, 2, 2), np.random.default_rng(0), magnitude=magnitude, magnitude_std=3.0, probability=1.0
            )
    assert (min(seen), max(seen)) == (0.0, 1.0)


def test_no_operations_change_nothing() -> None:
    images, rng = noise(5), np.random.default_rng(0)
    assert np.array_equal(augmentation.rand_augment(images, rng, operations=0), images)
    assert np.array_equal(augmentation.rand_augment(images, rng, probability=0.0), images)


# --- normalization and erasing ----------------------------------------------------------------------------------------


@given(batches())
def test_images_are_normalized_as_at_test_time(images: np.ndarray) -> None:
    normalized = augmentation.normalize(images)
    assert normalized.dtype == np.float32
    assert np.array_equal(normalized, (images.astype(np.float32) / 255 - MEAN) / STD)


def erased_boxes(images: np.ndarray, **choices: Any) -> np.ndarray:
    """(B, H, W): where images of 1 have been erased to 0."""
    erased = augmentation.random_erasing(images, np.random.default_rng(0), fill="constant", **choices)
    assert set(np.unique(erased)) <= {0, 1}
    assert (erased == erased[..., :1]).all()
    return erased[..., 0] == 0


def test_erased_boxes_have_the_areas_aspects_and_places_asked_for() -> None:
    images = np.ones((3000, 60, 50, 3), np.float32)
    boxes = erased_boxes(images, probability=0.4, area=(0.05, 0.3), aspect=(0.5, 1.0))
    chosen = boxes.any(axis=(1, 2))
    assert abs(chosen.mean() - 0.4) < 0.04
    boxes = boxes[chosen]
    rows, columns = boxes.any(axis=2), boxes.any(axis=1)
    assert np.array_equal(boxes, rows[:, :, None] & columns[:, None, :])
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    for marks, side in ((rows, height), (columns, width)):
        assert np.array_equal(np.abs(np.diff(marks.astype(int), prepend=0, append=0, axis=1)).sum(axis=1), 2 + 0 * side)
    areas, aspects = boxes.mean(axis=(1, 2)), np.log(height / width)
    np.testing.assert_allclose(np.quantile(areas, [0, 0.5, 1]), [0.05, 0.175, 0.3], atol=0.02)
    np.testing.assert_allclose(np.quantile(aspects, [0, 0.5, 1]), [-math.log(2), -math.log(2) / 2, 0], atol=0.1)
    start = rows.argmax(axis=1) / (60 - height)
    assert (start.min(), start.max()) == (0, 1)
    assert abs(start.mean() - 0.5) < 0.05


def test_erasing_noise_is_standard_normal_and_the_rest_stays() -> None:
    images = np.full((400, 16, 16, 3), 7, np.float32)
    images.flags.writeable = False
    erased = augmentation.random_erasing(images, np.random.default_rng(0), probability=1.0)
    assert (erased.dtype, erased.shape) == (np.float32, images.shape)
    noise = erased[erased != 7]
    assert 0.1 < noise.size / images.size < 0.25  # (1/50 + 1/3) / 2 is 0.18
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_a_box_that_never_fits_erases_nothing() -> None:
    images = np.ones((200, 4, 4, 3), np.float32)
    assert not erased_boxes(images, probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0)).any()
    assert not erased_boxes(images, probability=0.0).any()


# --- mixing -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0, 1), seeds())
def test_soft_targets_give_pytorchs_loss_with_label_smoothing(
    batch: int, classes: int, smoothing: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, classes, batch), rng.standard_normal((batch, classes))
    targets = augmentation.soft_targets(labels, classes=classes, label_smoothing=smoothing)
    assert (targets.shape, targets.dtype) == ((batch, classes), np.float32)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing)
    assert float(cross_entropy(logits, targets=targets)[0]) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


@st.composite
def mixtures(draw: st.DrawFn) -> dict[str, Any]:
    batch, classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(seeds()))
    shape = (batch, draw(st.integers(1, 9)), draw(st.integers(1, 9)), 3)
    images, labels = rng.standard_normal(shape).astype(np.float32), rng.integers(0, classes, batch)
    images.flags.writeable = labels.flags.writeable = False
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    return {"images": images, "labels": labels, "rng": rng, "classes": classes, "label_smoothing": smoothing}


def plain_targets(mixture: dict[str, Any]) -> np.ndarray:
    return augmentation.soft_targets(
        mixture["labels"], classes=mixture["classes"], label_smoothing=mixture["label_smoothing"]
    )


@given(mixtures())
def test_mixup_mixes_images_and_targets_by_the_same_share(mixture: dict[str, Any]) -> None:
    share = 0.3
    mixture["rng"] = mock.Mock(spec=np.random.Generator)
    mixture["rng"].random.return_value, mixture["rng"].integers.return_value = 0.0, 0
    mixture["rng"].beta.return_value = share
    images, targets = augmentation.mix(**mixture, cutmix_alpha=None)
    assert images.dtype == targets.dtype == np.float32
    expected = [share * a + (1 - share) * a[::-1] for a in (mixture["images"], plain_targets(mixture))]
    np.testing.assert_allclose(images, expected[0], atol=1e-6)
    np.testing.assert_allclose(targets, expected[1], atol=1e-6)
    mixture["rng"].beta.assert_called_once_with(0.8, 0.8)


@given(mixtures())
def test_cutmix_puts_a_box_of_the_other_image_into_each(mixture: dict[str, Any]) -> None:
    images, targets = augmentation.mix(**mixture, mixup_alpha=None)
    before = mixture["images"]
    other = before[::-1]
    from_other = (images == other).all(axis=(0, 3)) & (len(before) > 1)  # the same box for all
    from_own = (images == before).all(axis=(0, 3))
    assert (from_other | from_own).all()
    box = ~from_own
    assert np.array_equal(box, box.any(axis=1)[:, None] & box.any(axis=0)[None, :])
    if len(before) > 1:
        share = 1 - box.mean()
        expected = share * plain_targets(mixture) + (1 - share) * plain_targets(mixture)[::-1]
        np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_the_share_of_cutmix_is_the_area_it_left() -> None:
    """The side of the box is sqrt(1 - share) of the image's; its center is anywhere."""
    for center, height in ((8, 8), (0, 4), (15, 5)):
        rng = mock.Mock(spec=np.random.Generator)
        rng.random.return_value = 0.0
        rng.integers.side_effect = [0, center, center]
        rng.beta.return_value = 0.75  # half of 16 pixels
        images = np.stack((np.zeros((16, 16, 3)), np.ones((16, 16, 3)))).astype(np.float32)
        mixed, targets = augmentation.mix(
            images, np.array([0, 1]), rng, classes=2, mixup_alpha=None, label_smoothing=0.0
        )
        assert mixed[0].sum() == 3 * height**2
        np.testing.assert_allclose(targets[0], [1 - height**2 / 256, height**2 / 256], atol=1e-6)


def test_kinds_of_mixture_and_their_shares_are_drawn_as_asked() -> None:
    images = np.stack((np.zeros((8, 8, 3)), np.ones((8, 8, 3)))).astype(np.float32)
    labels = np.array([0, 1])
    rng = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    shares = []
    for _ in range(3000):
        mixed, targets = augmentation.mix(images, labels, rng, classes=2, probability=0.8, label_smoothing=0.0)
        if mixed is images:
            kinds["neither"] += 1
        elif len(np.unique(mixed[0])) == 1 and 0 < mixed[0].mean() < 1:
            kinds["mixup"] += 1
            shares.append(targets[0, 0])
        else:
            kinds["cutmix"] += 1
    assert abs(kinds["neither"] / 3000 - 0.2) < 0.03
    assert abs(kinds["mixup"] / 3000 - 0.4) < 0.03
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.1)  # of Beta(0.8, 0.8)


def test_without_any_kind_of_mixture_there_are_targets_only() -> None:
    images = np.ones((3, 2, 2, 3), np.float32)
    mixed, targets = augmentation.mix(
        images, np.array([1, 0, 2]), np.random.default_rng(0), classes=3, mixup_alpha=None, cutmix_alpha=None
    )
    assert np.array_equal(mixed, images)
    np.testing.assert_allclose(targets, 0.9 * np.eye(3)[[1, 0, 2]] + 0.1 / 3, rtol=1e-6)


# --- the recipe -------------------------------------------------------------------------------------------------------

RECIPES = (Augmentation(), Augmentation(padding=None, crop_area=(0.3, 1.0), flip=False, padding_mode="reflect"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_determined_by_its_seed_and_keeps_its_arguments(recipe: Augmentation) -> None:
    images, labels = noise(12, 16, 18), np.arange(12) % 5
    labels.flags.writeable = False
    (first, targets), again, other = (
        recipe(images, labels, np.random.default_rng(seed), classes=5) for seed in (1, 1, 2)
    )
    assert (first.shape, first.dtype) == (images.shape, np.float32)
    assert (targets.shape, targets.dtype) == ((12, 5), np.float32)
    assert np.array_equal(first, again[0])
    assert np.array_equal(targets, again[1])
    assert not np.array_equal(first, other[0])
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


def test_each_field_of_a_recipe_does_its_step_alone() -> None:
    images, labels = noise(64, 16, 18), np.arange(64) % 5
    nothing = Augmentation(
        padding=None, flip=False, operations=0, erasing=0.0, mixup_alpha=None, cutmix_alpha=None, label_smoothing=0.0
    )
    plain, targets = nothing(images, labels, np.random.default_rng(0), classes=5)
    assert np.array_equal(plain, augmentation.normalize(images))
    assert np.array_equal(targets, np.eye(5, dtype=np.float32)[labels])
    for change in (
        {"padding": 2},
        {"crop_area": (0.2, 0.4)},
        {"flip": True},
        {"operations": 1},
        {"erasing": 0.5},
        {"mixup_alpha": 0.8},
        {"cutmix_alpha": 1.0},
    ):
        recipe = dataclasses.replace(nothing, **change)  # type: ignore[arg-type]
        assert not np.array_equal(recipe(images, labels, np.random.default_rng(0), classes=5)[0], plain)
    smooth = dataclasses.replace(nothing, label_smoothing=0.1)(images, labels, np.random.default_rng(0), classes=5)[1]
    np.testing.assert_allclose(smooth.max(axis=1), 0.92, rtol=1e-6)
    strong = dataclasses.replace(nothing, operations=1, magnitude=10.0)
    weak = dataclasses.replace(nothing, operations=1, magnitude=0.0)
    changes = [np.abs(r(images, labels, np.random.default_rng(0), classes=5)[0] - plain).mean() for r in (strong, weak)]
    assert changes[0] > 1.2 * changes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": -1}, "padding: found -1, expected 0 to 1024"),
        ({"padding_mode": "edge"}, "mode: found 'edge'"),
        ({"crop_area": (0.1, 1.0)}, "padding and crop_area: found both"),
        ({"padding": None, "crop_area": (0.5, 0.1)}, "area: found"),
        ({"padding": None, "crop_area": (0.5, 1.1)}, "area: found"),
        ({"operations": -1}, "operations: found -1"),
        ({"magnitude": 10.5}, "magnitude: found 10.5"),
        ({"magnitude": math.nan}, "magnitude: found nan"),
        ({"erasing": 1.5}, "probability: found 1.5"),
        ({"mixup_alpha": 0.0}, "mixup_alpha: found 0.0"),
        ({"cutmix_alpha": -1.0}, "cutmix_alpha: found -1.0"),
        ({"mixing": 2.0}, "probability: found 2.0"),
        ({"label_smoothing": 1.1}, "label_smoothing: found 1.1"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_when_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Augmentation(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, rng: f.random_crop(noise(2, 3, 9), rng, padding=3, mode="reflect"), "at most 2 mirrored pixels"),
        (lambda f, rng: f.random_resized_crop(noise(2), rng, size=(0, 3)), "size: found"),
        (lambda f, rng: f.random_resized_crop(noise(2), rng, size=(3, 3), aspect=(0.0, 1.0)), "aspect: found"),
        (lambda f, rng: f.rand_augment(noise(2), rng, magnitude_std=-1.0), "magnitude_std: found -1.0"),
        (lambda f, rng: f.rand_augment(noise(2), rng, probability=1.5), "probability: found 1.5"),
        (lambda f, rng: f.rand_augment(noise(2), rng, interpolation="nearest"), "interpolation: found 'nearest'"),
        (lambda f, rng: f.random_erasing(f.normalize(noise(2)), rng, fill="gray"), "fill: found 'gray'"),
        (lambda f, rng: f.random_erasing(f.normalize(noise(2)), rng, aspect=(1.0, math.inf)), "aspect: found"),
        (lambda f, rng: f.soft_targets(np.zeros(2, int), classes=0), "classes: found 0"),
    ],
)
def test_settings_out_of_range_are_refused(call: Callable[[Any, np.random.Generator], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(augmentation, np.random.default_rng(0))


UINT8 = [
    *(f for name in augmentation.ADJUSTMENTS for f in [getattr(adjustments, name)]),
    warping.affine,
    warping.resize_boxes,
    augmentation.random_crop,
    augmentation.random_flip,
    augmentation.random_resized_crop,
    augmentation.rand_augment,
    augmentation.normalize,
]
FLOATS = [augmentation.random_erasing, augmentation.mix]


@pytest.mark.parametrize("function", UINT8 + FLOATS)
def test_other_arrays_than_images_are_refused(function: Callable[..., Any]) -> None:
    dtype: Any = np.uint8 if function in UINT8 else np.float32
    other: Any = np.float32 if function in UINT8 else np.float64
    rest = {
        adjustments.posterize: [np.ones(2)],
        augmentation.mix: [np.zeros(2, int), np.random.default_rng(0)],
        warping.resize_boxes: [np.zeros((2, 4)), (3, 3)],
        augmentation.normalize: [],
        adjustments.autocontrast: [],
        adjustments.equalize: [],
        adjustments.invert: [],
    }.get(function, [np.random.default_rng(0)])
    keywords: dict[Any, dict[str, Any]] = {
        augmentation.random_resized_crop: {"size": (3, 3)},
        augmentation.mix: {"classes": 3},
    }
    for images in (
        np.zeros((2, 4, 4, 3), other),
        np.zeros((2, 4, 4, 4), dtype),
        np.zeros((4, 4, 3), dtype),
        np.zeros((2, 0, 4, 3), dtype),
    ):
        with pytest.raises(ShapeError, match="images: found shape"):
            function(images, *rest, **keywords.get(function, {}))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(2), "labels: found shape .2,. of float64"),
        (np.zeros((2, 1), int), "labels: found shape .2, 1."),
        (np.array([0, 3]), "labels: found 0 to 3, expected 0 to 2"),
        (np.array([-1, 0]), "labels: found -1 to 0"),
        (np.array([0, 1, 2]), "labels: found 3, expected 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        augmentation.mix(np.zeros((2, 4, 4, 3), np.float32), labels, np.random.default_rng(0), classes=3)
