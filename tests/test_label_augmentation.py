"""minidat.data.label_augmentation: labels stay with the pixels, crops are mixed, choices by their statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.data.dense_preprocessing import normalize_pixels, preprocess_segmentation
from minidat.data.label_augmentation import LabelAugmentation, pad, random_crop, random_flip, random_resize
from minidat.errors import ConfigError, ShapeError

from .strategies import map_sizes, seeds


def scene(height: int, width: int, seed: int = 0, classes: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Random labels, some of them 255, and a picture whose first channel shows them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.r_[:classes, 255].astype(np.uint8), (height, width))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 0] = labels
    image.flags.writeable = labels.flags.writeable = False
    return image, labels


@given(map_sizes(longest=20), map_sizes(longest=20), seeds())
def test_a_crop_keeps_labels_with_their_pixels(size: tuple[int, int], wanted: tuple[int, int], seed: int) -> None:
    image, labels = scene(*size, seed)
    piece, piece_labels = random_crop(image, labels, np.random.default_rng(seed), size=wanted)
    assert piece_labels.shape == tuple(np.minimum(size, wanted))
    np.testing.assert_array_equal(piece[..., 0], piece_labels)
    windows = np.lib.stride_tricks.sliding_window_view(image, piece.shape)
    assert (windows == piece).all(axis=(-3, -2, -1)).any()


@given(map_sizes(longest=20), seeds())
def test_a_flip_mirrors_both(size: tuple[int, int], seed: int) -> None:
    image, labels = scene(*size, seed)
    flipped, flipped_labels = random_flip(image, labels, np.random.default_rng(seed))
    np.testing.assert_array_equal(flipped[..., 0], flipped_labels)
    if (flipped != image).any():
        np.testing.assert_array_equal(flipped, image[:, ::-1])
    again, again_labels = random_flip(flipped, flipped_labels, np.random.default_rng(seed))  # the same choice
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(again_labels, labels)


def test_half_of_the_pictures_are_mirrored() -> None:
    (image, labels), rng = scene(3, 4), np.random.default_rng(0)
    assert 0.46 < np.mean([(random_flip(image, labels, rng)[0] != image).any() for _ in range(2000)]) < 0.54


def test_resizing_keeps_labels_with_their_pixels() -> None:
    """In a picture of large areas of one color, whose bilinear mixtures are few."""
    labels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((40, 50), np.uint8))
    image = np.repeat(labels[..., None] * np.uint8(20), 3, axis=-1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        resized, resized_labels = random_resize(image, labels, rng, scale=(200, 120))
        assert resized.shape[:2] == resized_labels.shape
        assert set(np.unique(resized_labels)) == set(range(12))
        assert (np.abs(resized[..., 0].astype(int) - 20 * resized_labels) <= 2).mean() > 0.9


def test_factors_are_uniform() -> None:
    image, labels = scene(6, 8)
    rng = np.random.default_rng(0)
    sizes = [random_resize(image, labels, rng, scale=(4000, 60))[1].shape for _ in range(1000)]
    heights = np.array([height for height, _ in sizes])
    assert 30 <= heights.min() < 32
    assert 117 < heights.max() <= 120
    assert abs(heights.mean() - 75) < 4
    assert abs(np.mean(heights < 60) - 1 / 3) < 0.07
    assert all(abs(width - height * 8 / 6) <= 1 for height, width in sizes)
    # the longer side may decide as well
    assert random_resize(image, labels, rng, scale=(8, 100), ratio=(2, 2))[1].shape == (12, 16)


def test_no_class_fills_the_crop_if_another_place_helps() -> None:
    labels = np.zeros((40, 200), np.uint8)
    labels[:, 100:] = np.arange(100) % 5  # the left half is of one class, the right is mixed
    image = np.repeat(labels[..., None], 3, axis=-1)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        _, piece = random_crop(image, labels, rng, size=(20, 20))
        shares.append(np.bincount(piece.ravel()).max() / piece.size)
    assert np.mean(np.array(shares) < 0.75) > 0.97  # a place alone: about half
    # where all places are alike, the last one is taken
    _, piece = random_crop(image[:, :50], labels[:, :50], rng, size=(20, 20))
    assert piece.shape == (20, 20)


def test_ignored_pixels_do_not_count_as_a_class() -> None:
    labels = np.full((10, 40), 255, np.uint8)
    labels[:, :2], labels[:, 2:4] = 1, 2  # of what is labeled, half and half
    image = np.repeat(labels[..., None], 3, axis=-1)
    starts = [random_crop(image, labels, np.random.default_rng(seed), size=(10, 20))[1][0, 0] for seed in range(100)]
    assert np.mean(np.array(starts) != 255) > 0.5  # of 21 places 2 are mixed and 4 show any class at all


@given(map_sizes(longest=9), st.integers(0, 5), st.integers(0, 5))
def test_padding_is_black_and_ignored(size: tuple[int, int], below: int, right: int) -> None:
    image, labels = scene(*size)
    pixels = normalize_pixels(image)
    height, width = size
    padded, padded_labels = pad(pixels, labels, (height + below, width + right))
    assert padded.shape == (height + below, width + right, 3)
    assert (padded.dtype, padded_labels.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(padded[:height, :width], pixels)
    np.testing.assert_array_equal(padded_labels[:height, :width], labels)
    outside = np.ones(padded_labels.shape, bool)
    outside[:height, :width] = False
    assert (padded[outside] == 0).all()
    assert (padded_labels[outside] == 255).all()


def test_the_recipe_gives_pictures_of_one_size() -> None:
    recipe = LabelAugmentation(scale=(120, 60), crop=(48, 64))
    image, labels = scene(37, 90)
    rng = np.random.default_rng(0)
    padded = 0
    for _ in range(30):
        pixels, found = recipe(image, labels, rng)
        assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.float32)
        assert (found.shape, found.dtype) == ((48, 64), np.uint8)
        assert set(np.unique(found)) <= {*range(9), 255}
        black = (pixels == 0).all(axis=-1)
        assert (found[black] == 255).all()
        padded += black.any()
    assert 0 < padded < 30


def test_without_chance_the_recipe_is_the_test_time() -> None:
    image, labels = scene(16, 16)
    recipe = LabelAugmentation((512, 40), (1.0, 1.0), (40, 40), flip=False, distort=False)
    pixels, _ = recipe(image, labels, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, preprocess_segmentation(image, scale=(512, 40)))


def test_a_seed_decides_and_the_arguments_stay() -> None:
    image, labels = scene(20, 30)  # not writeable
    recipe = LabelAugmentation(crop=(32, 32), scale=(60, 30))
    results = [recipe(image, labels, np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (0, 5)}, r"LabelAugmentation: scale: found \(0, 5\), expected two sides of at least 1 pixel"),
        ({"ratio": (0, 1)}, "random_resize: ratio: found"),
        ({"crop": (0, 5)}, "random_crop: size: found"),
        ({"largest_share": 0}, "random_crop: largest_share: found 0, expected a number above 0, up to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(LabelAugmentation(), **settings)


def test_pictures_that_are_none_are_refused() -> None:
    image, labels = scene(4, 5)
    rng = np.random.default_rng(0)
    with pytest.raises(
        ShapeError, match=r"labels: found shape \(5, 4\) of uint8, expected the picture's \(4, 5\) of uint8"
    ):
        random_flip(image, labels.T, rng)
    with pytest.raises(ShapeError, match="labels: found shape"):
        random_crop(image, labels.astype(int), rng, size=(2, 2))
    with pytest.raises(ShapeError, match="image: found shape"):
        random_resize(image[0], labels, rng, scale=(3, 3))
    with pytest.raises(ShapeError, match="pixels, labels: found"):
        pad(image, labels, (3, 9))
