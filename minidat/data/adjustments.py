"""Adjustments of color, contrast and sharpness: Pillow's ImageOps and ImageEnhance on a whole batch at once.

Every function takes images (B, H, W, 3) of uint8, and what it needs to know of each as an array (B,), and returns new
images of the same shape and dtype, equal to Pillow's to the last bit. Raises ShapeError for other images.
"""

from __future__ import annotations

import numpy as np

from ._checks import check_images

# 65536 times the weights of red, green and blue in ITU-R BT.601's luma, as Pillow rounds them.
LUMA = (19595, 38470, 7471)


def autocontrast(images: np.ndarray) -> np.ndarray:
    """Stretch each channel of each image so that its darkest value becomes 0 and its brightest 255.

    A channel of a single value stays as it is. Source: PIL.ImageOps.autocontrast.
    """
    check_images(images)
    low, high = (
        f(f(_rows(images), axis=1).reshape(len(images), images.shape[2], 3), axis=1)[..., None].astype(np.float64)
        for f in (np.min, np.max)
    )  # (B, 3, 1)
    values = np.arange(256)
    span = high - low
    scale = 255 / np.maximum(span, 1)
    stretched = np.clip(values * scale - low * scale, 0, 255).astype(np.uint8)  # toward zero, as Pillow does
    tables = np.where(span > 0, stretched, values.astype(np.uint8))
    return _look_up(tables, _table_index(images), images.shape)


def equalize(images: np.ndarray) -> np.ndarray:
    """Flatten the histogram of each channel of each image: a value maps to the share of pixels that are darker.

    A channel of a single value stays as it is. Source: PIL.ImageOps.equalize.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    index = _table_index(images)
    histogram = np.bincount(index.reshape(-1), minlength=batch * 768).reshape(batch, 3, 256)
    brightest = 255 - np.argmax(histogram[..., ::-1] > 0, axis=-1)  # (B, 3)
    in_brightest = np.take_along_axis(histogram, brightest[..., None], axis=-1)  # (B, 3, 1)
    step = (height * width - in_brightest) // 255  # pixels that make one level
    darker = np.cumsum(histogram, axis=-1) - histogram
    flattened = np.minimum((step // 2 + darker) // np.maximum(step, 1), 255)
    tables = np.where(step > 0, flattened, np.arange(256)).astype(np.uint8)
    return _look_up(tables, index, images.shape)


def invert(images: np.ndarray) -> np.ndarray:
    """The negative: 255 - value. Source: PIL.ImageOps.invert."""
    check_images(images)
    return 255 - images


def posterize(images: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Keep the upper `bits` (B,) of each value, 0 (which is black) to 8. Source: PIL.ImageOps.posterize, from 1 bit."""
    check_images(images)
    masks = (256 - 2 ** (8 - np.asarray(bits))).astype(np.uint8)
    return images & _each(masks)


def solarize(images: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Invert the values that are at least `thresholds` (B,), 0 to 256. Source: PIL.ImageOps.solarize."""
    check_images(images)
    return images ^ ((images >= _each(np.asarray(thresholds, np.int16))) * np.uint8(255))  # v ^ 255 is 255 - v


def solarize_add(images: np.ndarray, additions: np.ndarray) -> np.ndarray:
    """Add `additions` (B,), 0 to 128, to the values below 128. Source: timm's RandAugment, after arXiv 1909.13719."""
    check_images(images)
    return images + (images < 128) * _each(np.asarray(additions, np.uint8))


def color(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Saturation: 0 makes an image gray, 1 keeps it. factors: (B,). Source: PIL.ImageEnhance.Color."""
    check_images(images)
    return _blend(np.repeat(_gray(images)[..., None], 3, axis=-1), images, factors)


def contrast(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Contrast: 0 leaves the mean gray alone, 1 keeps the image. factors: (B,). Source: PIL.ImageEnhance.Contrast."""
    check_images(images)
    return _blend(_each(np.floor(_gray(images).mean(axis=(1, 2)) + 0.5)), images, factors)


def brightness(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Brightness: 0 is black, 1 keeps the image. factors: (B,). Source: PIL.ImageEnhance.Brightness."""
    check_images(images)
    return _blend(np.zeros((1, 1, 1, 1)), images, factors)


def sharpness(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Sharpness: 0 is smoothed, 1 keeps the image, more than 1 sharpens. factors: (B,).

    Smoothing weighs a pixel 5 and its eight neighbors 1, over 13; the pixels at the border stay as they are.
    Source: PIL.ImageEnhance.Sharpness with PIL.ImageFilter.SMOOTH.
    """
    check_images(images)
    wide = _rows(images).astype(np.uint16)
    vertical = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]  # neighbors in a row are 3 numbers apart
    total = vertical[:, :, :-6] + vertical[:, :, 3:-3] + vertical[:, :, 6:] + 4 * wide[:, 1:-1, 3:-3]
    smooth = _rows(images).copy()
    smooth[:, 1:-1, 3:-3] = (2 * total + 13) // 26  # total / 13, rounded
    return _blend(smooth.reshape(images.shape), images, factors)


def _each(settings: np.ndarray) -> np.ndarray:
    """(B,) -> (B, 1, 1, 1), to be combined with images."""
    return settings.reshape(-1, 1, 1, 1)


def _rows(images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) -> (B, H, 3 W): NumPy is slow along an axis of three."""
    batch, height, width, _ = images.shape
    return images.reshape(batch, height, 3 * width)


def _gray(images: np.ndarray) -> np.ndarray:
    """Luma of each pixel, (B, H, W) of uint8, as Pillow converts "RGB" to "L"."""
    red, green, blue = (images[..., i].astype(np.int32) for i in range(3))
    return ((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 0x8000) >> 16).astype(np.uint8)


def _blend(degenerate: np.ndarray, images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """degenerate + factor (image - degenerate), cut to 0..255 and then toward zero, in Pillow's single precision."""
    degenerate = degenerate.astype(np.float32)
    blended = images - degenerate
    blended *= _each(np.asarray(factors, np.float32))
    blended += degenerate
    return np.clip(blended, 0, 255, out=blended).astype(np.uint8)


def _table_index(images: np.ndarray) -> np.ndarray:
    """Where each value of images stands in tables of shape (B, 3, 256), laid out flat: (B, H, 3 W)."""
    batch, _, width, _ = images.shape
    starts = np.arange(0, batch * 768, 256).reshape(batch, 1, 1, 3)
    return np.broadcast_to(starts, (batch, 1, width, 3)).reshape(batch, 1, 3 * width) + _rows(images)


def _look_up(tables: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Replace every value by its entry in the table of its image and channel; tables: (B, 3, 256) of uint8."""
    return tables.reshape(-1).take(index).reshape(shape)
