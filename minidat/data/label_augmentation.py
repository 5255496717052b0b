"""Training pictures for segmentors made different each time, with their label maps.

As `augmentation` does for classifiers, but for one picture at a time. Functions take a picture (H, W, 3) uint8, its
labels (H, W) uint8, in which 255 stands for no class, and a random generator, and return new ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from ._checks import check_range, check_setting
from .dense_preprocessing import normalize_pixels
from .image import check_image
from .photometric import photometric_distortion
from .resizing import keep_ratio_size, resize_bilinear, resize_nearest

IGNORED = 255
ATTEMPTS = 10  # crops drawn before one whose classes are too unequal is taken


@dataclass(frozen=True)
class LabelAugmentation:
    """A recipe: what happens to a training picture, in the order of the fields.

    scale: what the longer and the shorter side may be at most (`random_resize`); ratio: the limits of a factor that
    scale is multiplied by; crop: (height, width) of the piece that is cut out (`random_crop`); largest_share: of it
    that one class may cover, if another place can be found; flip: mirror half of the pictures; distort: change
    brightness, contrast, saturation and hue (`photometric_distortion`). At the end the picture gets the size of the
    crop, if it is smaller. The defaults are the authors'. Raises ConfigError for settings out of range.
    """

    scale: tuple[int, int] = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    crop: tuple[int, int] = (512, 512)
    largest_share: float = 0.75
    flip: bool = True
    distort: bool = True

    def __post_init__(self) -> None:
        # a rehearsal: what is wrong with a setting shows now, not when the data set has been loaded
        picture, labels, rng = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), np.random.default_rng(0)
        fits = len(self.scale) == 2 and min(self.scale) >= 1
        check_setting(fits, "LabelAugmentation", "scale", self.scale, "two sides of at least 1 pixel")
        random_resize(picture, labels, rng, scale=(1, 1), ratio=self.ratio)
        random_crop(picture, labels, rng, size=self.crop, largest_share=self.largest_share)

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a segmentor trains on: the picture (h, w, 3) float32, normalized, and labels (h, w), of the crop's size.

        image: (H, W, 3) uint8, labels: (H, W) uint8. Raises ShapeError for others.
        """
        image, labels = random_resize(image, labels, rng, scale=self.scale, ratio=self.ratio)
        image, labels = random_crop(image, labels, rng, size=self.crop, largest_share=self.largest_share)
        if self.flip:
            image, labels = random_flip(image, labels, rng)
        if self.distort:
            image = photometric_distortion(image, rng)
        return pad(normalize_pixels(image), labels, self.crop)


def random_resize(
    image: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    scale: tuple[int, int],
    ratio: tuple[float, float] = (0.5, 2.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Resize, the picture's own ratio kept, to fit into `scale` times a factor that is uniform in `ratio`.

    scale: what the longer and the shorter side may be at most. Raises ShapeError for another kind of picture or labels,
    ConfigError for settings out of range. Source: mmsegmentation's Resize.
    """
    _check(image, labels)
    check_range(ratio, "random_resize", "ratio")
    factor = rng.uniform(*ratio)
    longest, shortest = (max(1, int(side * factor)) for side in scale)
    size = keep_ratio_size(image.shape[:2], longest, shortest)
    return resize_bilinear(image, size), resize_nearest(labels, size)


def random_crop(
    image: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    largest_share: float = 0.75,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut out a piece of (height, width) `size`, or the picture's where that is less, its place being uniform.

    Of ten places the first is taken at which less than `largest_share` of the pixels that have a class belong to one,
    or the last. Raises ShapeError for another kind of picture or labels, ConfigError for settings out of range.
    Source: mmsegmentation's RandomCrop with `cat_max_ratio`.
    """
    _check(image, labels)
    check_setting(len(size) == 2 and min(size) >= 1, "random_crop", "size", size, "two sides of at least 1 pixel")
    check_setting(0 < largest_share <= 1, "random_crop", "largest_share", largest_share, "a number above 0, up to 1")
    height, width = np.minimum(size, labels.shape).tolist()
    for _ in range(ATTEMPTS):
        top, left = rng.integers((0, 0), (labels.shape[0] - height, labels.shape[1] - width), endpoint=True).tolist()
        part = slice(top, top + height), slice(left, left + width)
        counts = np.bincount(labels[part].reshape(-1), minlength=256)[:IGNORED]
        if counts.max() < largest_share * counts.sum():
            break
    return np.ascontiguousarray(image[part]), np.ascontiguousarray(labels[part])


def random_flip(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, left to right, with probability 1/2. Raises ShapeError for another kind of picture or labels."""
    _check(image, labels)
    if rng.random() < 0.5:
        image, labels = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
    return image, labels


def pad(pixels: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Fill up to (height, width) `size` at the right and bottom, the picture with 0, the labels with 255.

    pixels: (h, w, 3) of any dtype, labels: (h, w) -> (height, width, 3) and (height, width). Raises ShapeError for a
    picture that is larger, or labels of another size.
    """
    (height, width), (full_height, full_width) = labels.shape, size
    if pixels.shape[:2] != labels.shape or height > full_height or width > full_width:
        raise ShapeError(
            f"pixels, labels: found {pixels.shape} and {labels.shape}, expected one size of at most {size}"
        )
    margins = (0, full_height - height), (0, full_width - width)
    return np.pad(pixels, (*margins, (0, 0))), np.pad(labels, margins, constant_values=IGNORED)


def _check(image: np.ndarray, labels: np.ndarray) -> None:
    check_image(image)
    if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
        raise ShapeError(
            f"labels: found shape {labels.shape} of {labels.dtype}, expected the picture's {image.shape[:2]} of uint8"
        )
