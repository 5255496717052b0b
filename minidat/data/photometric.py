"""Photometric distortion: brightness, contrast, saturation and hue of a picture made different each time.

As SSD introduced it (arXiv 1512.02325) and mmsegmentation defines it: each step on 8 bits, cut off toward zero, with
OpenCV's 8-bit HSV: hue in steps of two degrees, 0 to 179, saturation and value 0 to 255.
"""

from __future__ import annotations

import numpy as np

from ._checks import check_range, check_setting
from .image import check_image

HUES = 180
FRACTION_BITS = 12  # of the tables that stand for divisions
ONE_HALF = 1 << (FRACTION_BITS - 1)
SATURATION_OF = np.r_[0, np.rint((255 << FRACTION_BITS) / np.arange(1, 256))].astype(np.int32)  # 255 / value
HUE_OF = np.r_[0, np.rint((30 << FRACTION_BITS) / np.arange(1, 256))].astype(np.int32)  # 30 / chroma

# In each sixth of the hue's circle, which of (value, value - chroma, falling, rising) are red, green and blue.
SECTORS = np.array([(0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2)])


def photometric_distortion(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    brightness: float = 32.0,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: int = 18,
) -> np.ndarray:
    """Each with probability 1/2: add to the values, multiply them, multiply the saturation, turn the hue.

    What is added is uniform in (-brightness, brightness), the factors uniform in `contrast` and in `saturation`, the
    turn one of the whole numbers from -hue to hue - 1, in steps of two degrees. Multiplying the values comes second, or
    last, equally likely. image: (H, W, 3) uint8 -> the same shape and dtype. Raises ShapeError for another kind of
    array, ConfigError for settings out of range. Source: mmsegmentation's PhotoMetricDistortion.
    """
    check_image(image)
    check_setting(0 <= brightness <= 255, "photometric_distortion", "brightness", brightness, "a number of 0 to 255")
    check_setting(1 <= hue <= HUES, "photometric_distortion", "hue", hue, f"a whole number of 1 to {HUES}")
    check_range(contrast, "photometric_distortion", "contrast")
    check_range(saturation, "photometric_distortion", "saturation")
    if rng.integers(2):
        image = adjust_values(image, 1.0, rng.uniform(-brightness, brightness))
    contrast_first = rng.integers(2)
    if contrast_first and rng.integers(2):
        image = adjust_values(image, rng.uniform(*contrast), 0.0)
    if rng.integers(2):
        image = adjust_saturation(image, rng.uniform(*saturation))
    if rng.integers(2):
        image = turn_hue(image, int(rng.integers(-hue, hue)))
    if not contrast_first and rng.integers(2):
        image = adjust_values(image, rng.uniform(*contrast), 0.0)
    return image


def adjust_values(values: np.ndarray, factor: float, addition: float) -> np.ndarray:
    """factor x value + addition in single precision, cut to 0..255 and then toward zero.

    values: of any shape, uint8 -> the same shape and dtype.
    """
    table = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(addition)
    return np.clip(table, 0, 255).astype(np.uint8).take(values)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the saturation, at most to 255. image: (H, W, 3) uint8 -> the same shape and dtype."""
    hsv = rgb_to_hsv(image)
    hsv[..., 1] = adjust_values(hsv[..., 1], factor, 0.0)
    return hsv_to_rgb(hsv)


def turn_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """Turn the hue by `steps` of two degrees. image: (H, W, 3) uint8 -> the same shape and dtype."""
    hsv = rgb_to_hsv(image)
    hsv[..., 0] = (hsv[..., 0].astype(np.int32) + steps) % HUES
    return hsv_to_rgb(hsv)


def rgb_to_hsv(image: np.ndarray) -> np.ndarray:
    """Hue (0 to 179), saturation and value (0 to 255) of each pixel, to the byte of cv2.COLOR_RGB2HSV.

    value = max(R, G, B), chroma C = value - min(R, G, B), saturation = 255 C / value,
    hue = 30 (G - B) / C if R is the largest, 30 (2 + (B - R) / C) if G is, else 30 (4 + (R - G) / C), modulo 180.
    image: (H, W, 3) uint8 -> the same shape and dtype.
    """
    red, green, blue = (image[..., i].astype(np.int32) for i in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    saturation = (chroma * SATURATION_OF[value] + ONE_HALF) >> FRACTION_BITS
    sixth = np.where(value == red, green - blue, np.where(value == green, blue - red, red - green + 2 * chroma))
    sixth += 2 * chroma * (value != red)
    hue = (sixth * HUE_OF[chroma] + ONE_HALF) >> FRACTION_BITS
    return np.stack((hue + HUES * (hue < 0), saturation, value), axis=-1).astype(np.uint8)


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_hsv` but for the 8 bits: in single precision, rounded to the nearest.

    With h = hue / 30, s = saturation / 255 and f = h - floor(h), the largest of red, green and blue is the value v, the
    smallest v (1 - s), and the third v (1 - s f) or v (1 - s (1 - f)), where h is odd or even (see SECTORS).
    hsv: (H, W, 3) uint8 -> the same shape and dtype.
    """
    sixths = hsv[..., 0].astype(np.float32) * np.float32(6 / HUES)
    value = hsv[..., 2].astype(np.float32)
    chroma = value * (hsv[..., 1].astype(np.float32) * np.float32(1 / 255))
    sector = sixths.astype(np.intp)
    falling = chroma * (sixths - sector.astype(np.float32))
    levels = np.stack((value, value - chroma, value - falling, value - chroma + falling), axis=-1)  # (H, W, 4)
    rgb = np.take_along_axis(levels, SECTORS[sector % 6], axis=-1)
    return np.rint(rgb).astype(np.uint8)
