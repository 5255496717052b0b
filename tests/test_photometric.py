"""minidat.data.photometric: HSV against colorsys and Pillow, each step against its formula, choices by statistics."""

from __future__ import annotations

import colorsys
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidat.data import photometric
from minidat.data.photometric import (
    adjust_saturation,
    adjust_values,
    hsv_to_rgb,
    photometric_distortion,
    rgb_to_hsv,
    turn_hue,
)
from minidat.errors import ConfigError, ShapeError

from .strategies import seeds

COLORS = np.stack(np.meshgrid(*[np.r_[0:256:15, 1, 254]] * 3), axis=-1).reshape(1, -1, 3).astype(np.uint8)  # 8000


def noise(height: int = 12, width: int = 17, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def hue_distance(a: np.ndarray, b: np.ndarray, circle: int = 180) -> np.ndarray:
    difference = np.abs(a.astype(float) - b)
    return np.minimum(difference, circle - difference)


def test_hsv_is_colorsys_rounded() -> None:
    hsv = rgb_to_hsv(COLORS)[0]
    exact = np.array([colorsys.rgb_to_hsv(*color) for color in COLORS[0] / 255]) * (180, 255, 255)
    assert hue_distance(hsv[:, 0], exact[:, 0]).max() < 0.6  # the divisions come from a table
    np.testing.assert_allclose(hsv[:, 1:], exact[:, 1:], rtol=0, atol=0.51)
    assert hsv[:, 0].max() == 179


def test_hsv_is_pillows_in_coarser_hues() -> None:
    """Pillow cuts off where OpenCV rounds, and has 256 hues."""
    hsv = rgb_to_hsv(COLORS)[0].astype(int)
    pillows = np.asarray(Image.fromarray(COLORS).convert("HSV"))[0].astype(int)
    np.testing.assert_array_equal(hsv[:, 2], pillows[:, 2])
    assert np.abs(hsv[:, 1] - pillows[:, 1]).max() <= 1
    assert hue_distance(hsv[:, 0], pillows[:, 0] * 180 / 256).max() < 1.8


def test_a_few_colors_have_the_hsv_of_opencv() -> None:
    """Recorded from cv2.cvtColor(..., cv2.COLOR_RGB2HSV), OpenCV 4.10."""
    colors = np.array([[(255, 0, 1), (12, 200, 77), (200, 200, 199), (3, 1, 2), (90, 17, 254), (7, 7, 7)]], np.uint8)
    recorded = [(0, 255, 255), (70, 240, 200), (30, 1, 200), (165, 170, 3), (129, 238, 254), (0, 0, 7)]
    np.testing.assert_array_equal(rgb_to_hsv(colors)[0], recorded)


def test_rgb_of_hsv_is_colorsys_rounded() -> None:
    hues, saturations, values = np.r_[0:180:3, 179], np.r_[0:256:17], np.r_[0:256:15, 254]
    hsv = np.stack(np.meshgrid(hues, saturations, values), axis=-1).reshape(1, -1, 3).astype(np.uint8)
    exact = np.array([colorsys.hsv_to_rgb(*color) for color in hsv[0] / (180, 255, 255)]) * 255
    assert np.abs(hsv_to_rgb(hsv)[0] - exact).max() < 0.501


def test_there_and_back_changes_little() -> None:
    """At most as far as half a step of hue and of saturation lead."""
    difference = np.abs(hsv_to_rgb(rgb_to_hsv(COLORS)).astype(int) - COLORS)
    assert difference.max() <= 5
    assert difference.mean() < 0.9


@given(st.floats(0.5, 1.5), st.floats(-32, 32), seeds())
def test_values_are_adjusted_as_the_formula_has_it(factor: float, addition: float, seed: int) -> None:
    image = noise(seed=seed)
    adjusted = adjust_values(image, factor, addition)
    expected = np.clip(image.astype(np.float32) * np.float32(factor) + np.float32(addition), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(adjusted, expected)
    assert adjusted.dtype == np.uint8


@given(st.floats(0.5, 1.5), seeds())
def test_saturation_is_multiplied(factor: float, seed: int) -> None:
    image = noise(seed=seed)
    expected = []
    for color in image.reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        expected.append(colorsys.hsv_to_rgb(hue, min(1, saturation * factor), value))
    difference = adjust_saturation(image, factor).reshape(-1, 3) - 255 * np.array(expected)
    assert np.abs(difference).max() < 7  # three roundings, of which a hue's and a saturation's count several levels


@given(st.integers(-18, 18), seeds())
def test_hue_is_turned(steps: int, seed: int) -> None:
    image = noise(seed=seed)
    expected = []
    for color in image.reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        expected.append(colorsys.hsv_to_rgb((hue + steps / 180) % 1, saturation, value))
    difference = turn_hue(image, steps).reshape(-1, 3) - 255 * np.array(expected)
    assert np.abs(difference).max() < 7


def test_gray_stays_gray() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    np.testing.assert_array_equal(turn_hue(gray, 17), gray)
    np.testing.assert_array_equal(adjust_saturation(gray, 1.5), gray)


def test_each_step_comes_half_the_time_and_in_order() -> None:
    """Two orders, equally likely: contrast second or last."""
    steps: list[tuple[str, float]] = []

    def record(name: str, setting: int):  # type: ignore[no-untyped-def]
        def step(image: np.ndarray, *settings: float) -> np.ndarray:
            is_brightness = name == "values" and settings[0] == 1.0
            steps.append(("brightness" if is_brightness else name, settings[setting or int(is_brightness)]))
            return image

        return step

    rng, count, orders = np.random.default_rng(0), 4000, Counter()  # type: ignore[var-annotated]
    drawn: dict[str, list[float]] = {"brightness": [], "values": [], "saturation": [], "hue": []}
    with (
        mock.patch.object(photometric, "adjust_values", record("values", 0)),
        mock.patch.object(photometric, "adjust_saturation", record("saturation", 0)),
        mock.patch.object(photometric, "turn_hue", record("hue", 0)),
    ):
        for _ in range(count):
            steps.clear()
            photometric_distortion(noise(), rng)
            orders[tuple(name for name, _ in steps)] += 1
            for name, setting in steps:
                drawn[name].append(setting)
    for name, low, high in (
        ("brightness", -32, 32),
        ("values", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ):
        settings = np.array(drawn[name])
        assert 0.47 < len(settings) / count < 0.53
        assert low <= settings.min() < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < settings.max() <= high
        assert abs(settings.mean() - (low + high) / 2) < 0.05 * (high - low)
    assert set(drawn["hue"]) == set(range(-18, 18))
    first, last = ("brightness", "values", "saturation", "hue"), ("brightness", "saturation", "hue", "values")
    assert set(orders) == {
        tuple(name for name, taken in zip(order, f"{bits:04b}", strict=True) if taken == "1")
        for order in (first, last)
        for bits in range(16)
    }
    assert 0.6 < orders[first] / orders[last] < 1.6


def test_the_picture_stays_as_it_is_and_a_seed_decides() -> None:
    image = noise()
    before = image.copy()
    results = [photometric_distortion(image, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    assert all((result.shape, result.dtype) == (image.shape, np.uint8) for result in results)


def test_what_cannot_be_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="image: found shape"):
        photometric_distortion(np.zeros((3, 4, 3)), rng)
    for setting in ({"brightness": -1}, {"brightness": 256}, {"hue": 0}, {"contrast": (0, 1)}, {"saturation": (2, 1)}):
        with pytest.raises(ConfigError, match=f"photometric_distortion: {next(iter(setting))}: found"):
            photometric_distortion(noise(), rng, **setting)  # type: ignore[arg-type]
