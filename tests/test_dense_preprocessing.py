"""Resizing, normalizing and padding for the dense models: against the authors' recording, and against the formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.data.dense_preprocessing import (
    PIXEL_MEAN,
    PIXEL_STD,
    normalize_pixels,
    pad_batch,
    preprocess_detection,
    preprocess_segmentation,
)
from minidat.data.resizing import keep_ratio_size, resize_bilinear, resize_nearest
from minidat.errors import ConfigError, ShapeError

from .strategies import map_sizes, seeds

RECORDED = dict(np.load(Path(__file__).parent / "golden" / "dense" / "preprocess.npz"))
SCALES = {"det": (1333, 800), "seg": (2048, 512), "tiny": (150, 100)}
MULTIPLES = {"det": 32, "seg": 1, "tiny": 32}
RECORDINGS = sorted({tuple(name.split("/")[:2]) for name in RECORDED})


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def recorded_input(pair: str) -> np.ndarray:
    """RGB; the recording's pictures are drawn as BGR."""
    height, width = map(int, pair.split("x"))
    return np.ascontiguousarray(noise(height, width, height * 1000 + width)[..., ::-1])


def assert_sampled(array: np.ndarray, name: str) -> None:
    """`array` against what is stored of it: shape, mean, standard deviation, and 64 values exactly."""
    assert array.shape == tuple(RECORDED[f"{name}/shape"])
    index = np.random.default_rng(7).integers(0, array.size, 64)
    np.testing.assert_array_equal(array.reshape(-1)[index], RECORDED[f"{name}/vals"])
    assert array.dtype == RECORDED[f"{name}/vals"].dtype
    assert array.mean(dtype=np.float64) == pytest.approx(RECORDED[f"{name}/mean"], rel=1e-5)
    assert array.std(dtype=np.float64) == pytest.approx(RECORDED[f"{name}/std"], rel=1e-5)


@pytest.mark.parametrize(("pair", "group"), RECORDINGS)
def test_preprocessing_is_the_authors(pair: str, group: str) -> None:
    image, name = recorded_input(pair), f"{pair}/{group}"
    before = image.copy()
    prepared = preprocess_detection(image, scale=SCALES[group], multiple=MULTIPLES[group])
    assert prepared.size == tuple(RECORDED[f"{name}/new_hw"])
    assert prepared.pixels.shape[:2] == tuple(RECORDED[f"{name}/pad_hw"])
    np.testing.assert_array_equal(prepared.scale_factor, RECORDED[f"{name}/scale_factor"])
    assert prepared.scale_factor.dtype == np.float32
    assert_sampled(resize_bilinear(image, prepared.size)[..., ::-1], f"{name}/resized_uint8_hwc_bgr")
    assert_sampled(prepared.pixels.transpose(2, 0, 1), f"{name}/tensor_chw_rgb")
    np.testing.assert_array_equal(image, before)


def test_resizing_is_opencvs_to_the_last_byte() -> None:
    image = recorded_input("61x83")
    np.testing.assert_array_equal(image[..., ::-1], RECORDED["61x83/tiny/input_full"])
    resized = resize_bilinear(image, (100, 136))
    np.testing.assert_array_equal(resized[..., ::-1], RECORDED["61x83/tiny/resized_full"])


def test_the_defaults_are_the_published_settings() -> None:
    image = recorded_input("640x480")
    prepared = preprocess_detection(image)
    assert (prepared.size, prepared.pixels.shape) == ((1067, 800), (1088, 800, 3))
    assert_sampled(prepared.pixels.transpose(2, 0, 1), "640x480/det/tensor_chw_rgb")
    assert_sampled(preprocess_segmentation(image).transpose(2, 0, 1), "640x480/seg/tensor_chw_rgb")


def by_formula(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation in double precision, the outermost pixels going on beyond the border."""
    result = image.astype(np.float64)
    for axis, n in enumerate(size):
        n_source = image.shape[axis]
        place = np.clip((np.arange(n) + 0.5) * n_source / n - 0.5, 0, n_source - 1)
        first = np.floor(place).astype(int)
        share = (place - first).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        second = np.minimum(first + 1, n_source - 1)
        result = result.take(first, axis) * (1 - share) + result.take(second, axis) * share
    return result


@given(map_sizes(longest=90), map_sizes(longest=90), seeds())
def test_resizing_is_bilinear_interpolation_but_for_rounding(
    size: tuple[int, int], new_size: tuple[int, int], seed: int
) -> None:
    image = noise(*size, seed)
    resized = resize_bilinear(image, new_size)
    assert (resized.shape, resized.dtype) == ((*new_size, 3), np.uint8)
    # half a unit of the last rounding, a quarter of a unit twice, and 255 weights' errors of 1 / 4096 on both axes
    assert np.abs(resized - by_formula(image, new_size)).max() <= 1.1


@given(map_sizes(longest=40), st.integers(0, 255))
def test_resizing_keeps_a_single_color_and_the_same_size(size: tuple[int, int], value: int) -> None:
    image = np.full((5, 7, 3), value, np.uint8)
    assert (resize_bilinear(image, size) == value).all()
    picture = noise(*size)
    np.testing.assert_array_equal(resize_bilinear(picture, size), picture)


@given(map_sizes(longest=50), map_sizes(longest=50), seeds())
def test_resizing_labels_takes_the_pixel_that_holds_the_upper_left_corner(
    size: tuple[int, int], new_size: tuple[int, int], seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    resized = resize_nearest(labels, new_size)
    (height, width), (new_height, new_width) = size, new_size
    for y, x in np.random.default_rng(seed).integers(0, new_size, (10, 2)):
        near = {  # a corner exactly on the edge of a pixel may fall to either side of it
            labels[min(int(y * height / new_height + e), height - 1), min(int(x * width / new_width + f), width - 1)]
            for e in (-1e-9, 0, 1e-9)
            for f in (-1e-9, 0, 1e-9)
        }
        assert resized[y, x] in near
    assert (resized.shape, resized.dtype) == (new_size, np.uint8)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 2000))
def test_the_size_keeps_the_ratio_and_fits(height: int, width: int, longest: int, shortest: int) -> None:
    new_height, new_width = keep_ratio_size((height, width), longest, shortest)
    assert max(new_height, new_width) <= longest
    assert min(new_height, new_width) <= shortest
    factor = min(longest / max(height, width), shortest / min(height, width))
    for new, old in ((new_height, height), (new_width, width)):
        assert abs(new - old * factor) <= 0.5 + 1e-9 or new == 1


def test_normalizing_is_the_formula_rounded_once() -> None:
    image = noise(40, 30)
    exact = (image - PIXEL_MEAN.astype(np.float64)) * (1 / PIXEL_STD.astype(np.float64))
    np.testing.assert_array_equal(normalize_pixels(image), exact.astype(np.float32))


@given(st.lists(map_sizes(longest=40), min_size=1, max_size=4), st.integers(1, 33))
def test_a_batch_holds_every_picture_and_zeros(sizes: list[tuple[int, int]], multiple: int) -> None:
    images = [1 + noise(*size, seed).astype(np.float32) for seed, size in enumerate(sizes)]
    batch, found = pad_batch(images, multiple=multiple)
    assert found == sizes
    assert batch.dtype == np.float32
    for side, sides in zip(batch.shape[1:3], zip(*sizes, strict=True), strict=True):
        assert side % multiple == 0
        assert 0 <= side - max(sides) < multiple
    for image, padded, (height, width) in zip(images, batch, sizes, strict=True):
        np.testing.assert_array_equal(padded[:height, :width], image)
        assert np.count_nonzero(padded) == image.size


def test_what_cannot_be_prepared_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"image: found shape \(3, 4\) of float64, expected \(height, width, 3\)"):
        preprocess_detection(np.zeros((3, 4)))
    with pytest.raises(ShapeError, match="image: found list"):
        preprocess_segmentation([1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keep_ratio_size: shortest: found 0, expected at least 1 pixel"):
        preprocess_detection(noise(3, 4), scale=(10, 0))
    with pytest.raises(ConfigError, match="multiple: found 0"):
        preprocess_detection(noise(3, 4), multiple=0)
    with pytest.raises(ConfigError, match=r"resize_nearest: size: found \(0, 3\)"):
        resize_nearest(np.zeros((3, 4)), (0, 3))
    with pytest.raises(ConfigError, match=r"resize_bilinear: size: found \(3, 0\)"):
        resize_bilinear(noise(3, 4), (3, 0))
    with pytest.raises(ShapeError, match="images: found none"):
        pad_batch([])
    with pytest.raises(ShapeError, match=r"images: found shape \(3, 4\)"):
        pad_batch([np.zeros((3, 4))])
