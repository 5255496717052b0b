"""What detectors and segmentors take: pictures of any size, resized with their ratio kept, normalized, and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ShapeError
from ._checks import check_setting
from .image import check_image
from .resizing import keep_ratio_size, resize_bilinear

# ImageNet's means and standard deviations of red, green and blue as the dense models' configs have them, for values of
# 0 to 255. They are not exactly 255 times those of the classifiers.
PIXEL_MEAN = np.array((123.675, 116.28, 103.53), np.float32)
PIXEL_STD = np.array((58.395, 57.12, 57.375), np.float32)

DETECTION_SCALE = (1333, 800)  # the longer and the shorter side are at most this
SEGMENTATION_SCALE = (2048, 512)
DETECTION_MULTIPLE = 32  # of which the padded sides are multiples: the stride of the coarsest map of a backbone


class DetectorInput(NamedTuple):
    """A picture as a detector takes it.

    pixels: (h, w, 3) float32, normalized, and 0 beyond the picture; scale_factor: (4,) float32, by which boxes
    (x1, y1, x2, y2) of the original were multiplied; size: (height, width) of the resized picture inside `pixels`.
    """

    pixels: np.ndarray
    scale_factor: np.ndarray
    size: tuple[int, int]


def preprocess_detection(
    image: np.ndarray, *, scale: tuple[int, int] = DETECTION_SCALE, multiple: int = DETECTION_MULTIPLE
) -> DetectorInput:
    """Resize a picture as the authors' detectors do at test time, normalize it, then pad it at the right and bottom.

    image: (H, W, 3) uint8 RGB -> pixels: (h, w, 3) float32 with their scale_factor and size (see DetectorInput).
    scale: the longest its longer and its shorter side may be (`keep_ratio_size`); multiple: of the padded sides.
    Raises ShapeError for another kind of array, ConfigError for a scale or multiple below 1.
    """
    check_image(image)
    size = keep_ratio_size(image.shape[:2], *scale)
    (pixels,), _ = pad_batch([normalize_pixels(resize_bilinear(image, size))], multiple=multiple)
    return DetectorInput(pixels, scale_factor(image.shape[:2], size), size)


def preprocess_segmentation(image: np.ndarray, *, scale: tuple[int, int] = SEGMENTATION_SCALE) -> np.ndarray:
    """Resize a picture as the authors' segmentors do at test time, and normalize it; there is no padding.

    image: (H, W, 3) uint8 RGB -> (h, w, 3) float32. scale: the longest its longer and its shorter side may be.
    Raises ShapeError for another kind of array, ConfigError for a scale below 1.
    """
    check_image(image)
    return normalize_pixels(resize_bilinear(image, keep_ratio_size(image.shape[:2], *scale)))


def normalize_pixels(image: np.ndarray) -> np.ndarray:
    """(value - mean) (1 / std) with PIXEL_MEAN and PIXEL_STD, in double precision, rounded once.

    image: (H, W, 3) uint8 -> (H, W, 3) float32. Raises ShapeError for another kind of array.
    """
    check_image(image)
    mean, std = PIXEL_MEAN.astype(np.float64), PIXEL_STD.astype(np.float64)
    table = ((np.arange(256)[:, None] - mean) * (1 / std)).astype(np.float32)  # (256, 3): there are no other results
    height, width, _ = image.shape
    index = image.reshape(height, 3 * width) * np.int32(3) + np.tile(np.arange(3, dtype=np.int32), width)
    return table.reshape(-1).take(index).reshape(image.shape)


def scale_factor(size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """What boxes (x1, y1, x2, y2) are multiplied by if a picture of `size`, (height, width), gets `new_size`.

    (4,) float32. Rounding the sides makes the factors of x and y differ a little.
    """
    y, x = (new / old for new, old in zip(new_size, size, strict=True))
    return np.array((x, y, x, y), np.float32)


def pad_batch(images: Sequence[np.ndarray], *, multiple: int = 1) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Make one array of normalized pictures of several sizes, 0 at the right and bottom of the smaller ones.

    images: B arrays (h, w, 3) of one dtype -> (B, H, W, 3) and the sizes (h, w) inside it; H and W are the smallest
    multiples of `multiple` that hold them all. Raises ShapeError for no pictures or other arrays, ConfigError for a
    multiple below 1.
    """
    check_setting(multiple >= 1, "pad_batch", "multiple", multiple, "at least 1")
    wrong = [image.shape for image in images if image.ndim != 3 or image.shape[-1] != 3]
    if wrong or not images:
        found = f"shape {wrong[0]}" if wrong else "none"
        raise ShapeError(f"images: found {found}, expected arrays (height, width, 3), at least one")
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*sizes, strict=True))
    batch = np.zeros((len(images), height, width, 3), images[0].dtype)
    for padded, image in zip(batch, images, strict=True):
        padded[: image.shape[0], : image.shape[1]] = image
    return batch, sizes
