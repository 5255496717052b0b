"""Resizing 8-bit pictures by two neighbors a side, to the byte of OpenCV, and label maps by the nearest pixel.

The detectors and segmentors were trained with `cv2.resize`. Unlike Pillow's filters, its bilinear one does not widen as
the picture shrinks, and it computes in integers: weights have 11 bits after the point, and rounding is part of it.
"""

from __future__ import annotations

import numpy as np

from ._checks import check_setting

WEIGHT_ONE = np.float32(2048)  # a weight of 1
ROWS_AT_ONCE = 32  # of the result, so that what they are made of stays in the cache


def keep_ratio_size(size: tuple[int, int], longest: int, shortest: int) -> tuple[int, int]:
    """The largest (height, width) of the same ratio whose sides are at most `longest` and `shortest`.

    size: (height, width). factor = min(longest / its longer side, shortest / its shorter side); a new side is
    side x factor, rounded, half a pixel up; at least one. Raises ConfigError for sides below 1.
    """
    for name, value in (("size", min(size)), ("longest", longest), ("shortest", shortest)):
        check_setting(value >= 1, "keep_ratio_size", name, value, "at least 1 pixel")
    factor = min(longest / max(size), shortest / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to `size` = (h, w) as `cv2.resize(..., interpolation=cv2.INTER_LINEAR)` does, to the byte.

    image: (H, W, 3) uint8 -> (h, w, 3) uint8. Pixel d of the result lies at s = (d + 1/2) H / h - 1/2 of the picture,
    between its pixels i = floor(s) and i + 1; their weights 1 - (s - i) and s - i are rounded to 1/2048, first across,
    then down. Beyond the border, the outermost pixel goes on. Raises ConfigError for a size below 1.
    """
    check_setting(min(size) >= 1, "resize_bilinear", "size", size, "(height, width) of at least 1 pixel")
    if image.shape[:2] == size:
        return image
    (height, width), (source_height, source_width) = size, image.shape[:2]
    left, right, a0, a1 = (_thrice(values) for values in _neighbors(source_width, width, whole_at_border=True))
    left, right = (3 * columns + np.tile(np.arange(3), width) for columns in (left, right))
    upper, lower, b0, b1 = _neighbors(source_height, height, whole_at_border=False)

    pixels = image.reshape(source_height, 3 * source_width)
    result = np.empty((height, 3 * width), np.uint8)
    for start in range(0, height, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        needed, index = np.unique(np.concatenate((upper[part], lower[part])), return_inverse=True)
        source = pixels[needed]
        rows = (source.take(left, axis=1) * a0 + source.take(right, axis=1) * a1) >> 4  # int32, 7 bits after the point
        above, below = np.split(rows[index], 2)
        above = (above * b0[part, None]) >> 16  # 2 bits after the point
        below = (below * b1[part, None]) >> 16
        result[part] = (above + below + 2) >> 2
    return result.reshape(height, width, 3)


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to `size` = (h, w): pixel (y, x) is the one at (floor(y H / h), floor(x W / w)), as cv2.INTER_NEAREST.

    labels: (H, W) of any dtype -> (h, w). Raises ConfigError for a size below 1.
    """
    check_setting(min(size) >= 1, "resize_nearest", "size", size, "(height, width) of at least 1 pixel")
    rows, columns = (
        np.minimum(np.floor(np.arange(n) * (1 / (n / n_source))).astype(np.intp), n_source - 1)
        for n, n_source in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def _neighbors(n_source: int, n: int, *, whole_at_border: bool) -> tuple[np.ndarray, ...]:
    """For each of n pixels: the two it lies between, (n,) each, and their weights, in 1/2048, (n,) int32 each.

    whole_at_border: a pixel beyond the outermost one takes it with the weight 1, instead of twice with two weights,
    whose rounding errors differ. OpenCV does the former across, the latter down.
    """
    place = ((np.arange(n) + 0.5) * (1 / (n / n_source)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.intp)
    share = place - first.astype(np.float32)
    if whole_at_border:
        share[(first < 0) | (first >= n_source - 1)] = 0
    weights = (np.rint(weight * WEIGHT_ONE).astype(np.int32) for weight in (1 - share, share))
    return (np.clip(first, 0, n_source - 1), np.clip(first + 1, 0, n_source - 1), *weights)


def _thrice(values: np.ndarray) -> np.ndarray:
    """(W,) -> (3 W,), a value for each channel."""
    return np.repeat(values, 3)
