"""Training pictures for detectors made different each time, with the boxes and masks of their objects.

As `augmentation` does for classifiers, but for one picture at a time, whose size changes. Functions take a picture
(H, W, 3) uint8, its BoxTargets and a random generator, and return new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import box_transforms
from ._checks import check_setting
from .dense_preprocessing import normalize_pixels
from .image import check_image
from .resizing import keep_ratio_size
from .targets import BoxTargets


@dataclass(frozen=True)
class BoxAugmentation:
    """A recipe: what happens to a training picture, in the order of the fields.

    flip: mirror half of the pictures; crop: cut a piece out of half of them, whose sides lie between these two numbers
    of pixels (`random_crop`), None for never; crop_shortest: one of these is the shorter side of a picture before it is
    cut; shortest: one of these becomes the shorter side in the end (`random_resize`); longest: what the longer side may
    be at most, before the cut and in the end. The defaults are the authors' for 36 epochs; those for 12 are `crop=None,
    shortest=(800,)`. Raises ConfigError for settings out of range.
    """

    flip: bool = True
    crop: tuple[int, int] | None = (384, 600)
    crop_shortest: tuple[int, ...] = (400, 500, 600)
    shortest: tuple[int, ...] = tuple(range(480, 801, 32))
    longest: int = 1333

    def __post_init__(self) -> None:
        # a rehearsal: what is wrong with a setting shows now, not when the data set has been loaded
        nothing = BoxTargets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        picture, rng = np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0)
        random_resize(picture, nothing, rng, shortest=self.shortest, longest=1)
        check_setting(self.longest >= 1, "BoxAugmentation", "longest", self.longest, "at least 1 pixel")
        if self.crop is not None:
            random_resize(picture, nothing, rng, shortest=self.crop_shortest, longest=1)
            random_crop(picture, nothing, rng, limits=self.crop)

    def __call__(
        self, image: np.ndarray, targets: BoxTargets, rng: np.random.Generator
    ) -> tuple[np.ndarray, BoxTargets]:
        """What a detector trains on: the picture (h, w, 3) float32, normalized, and its targets.

        image: (H, W, 3) uint8. Raises ShapeError for others. `pad_batch` makes a batch of several.
        """
        if self.flip:
            image, targets = random_flip(image, targets, rng)
        if self.crop is not None and rng.random() < 0.5:
            image, targets = random_resize(image, targets, rng, shortest=self.crop_shortest, longest=self.longest)
            image, targets = random_crop(image, targets, rng, limits=self.crop)
        image, targets = random_resize(image, targets, rng, shortest=self.shortest, longest=self.longest)
        return normalize_pixels(image), targets


def random_flip(image: np.ndarray, targets: BoxTargets, rng: np.random.Generator) -> tuple[np.ndarray, BoxTargets]:
    """Mirror, left to right, with probability 1/2. Raises ShapeError for another kind of picture."""
    check_image(image)
    return box_transforms.flip(image, targets) if rng.random() < 0.5 else (image, targets)


def random_resize(
    image: np.ndarray, targets: BoxTargets, rng: np.random.Generator, *, shortest: Sequence[int], longest: int
) -> tuple[np.ndarray, BoxTargets]:
    """Resize, the ratio kept: the shorter side becomes one of `shortest`, or less where the longer one is `longest`.

    Raises ShapeError for another kind of picture, ConfigError for no or other sides than of at least 1 pixel.
    """
    check_image(image)
    fits = len(shortest) > 0 and min(shortest) >= 1
    check_setting(fits, "random_resize", "shortest", tuple(shortest), "numbers of at least 1 pixel")
    size = keep_ratio_size(image.shape[:2], longest, int(rng.choice(shortest)))
    return box_transforms.resize(image, targets, size)


def random_crop(
    image: np.ndarray, targets: BoxTargets, rng: np.random.Generator, *, limits: tuple[int, int]
) -> tuple[np.ndarray, BoxTargets]:
    """Cut out a piece each of whose sides is uniform from `limits`, both included, or the picture's where that is less.

    Its place is uniform; it may hold no object. Raises ShapeError for another kind of picture, ConfigError for limits
    that are not 1 <= low <= high. Source: mmdetection's RandomCrop of the type "absolute_range".
    """
    check_image(image)
    fits = len(limits) == 2 and 1 <= limits[0] <= limits[1]
    check_setting(fits, "random_crop", "limits", limits, "(low, high) with 1 <= low <= high")
    low, high = (np.minimum(image.shape[:2], limit) for limit in limits)
    height, width = rng.integers(low, high, endpoint=True).tolist()
    top, left = rng.integers((0, 0), (image.shape[0] - height, image.shape[1] - width), endpoint=True).tolist()
    return box_transforms.crop(image, targets, (top, left), (height, width))
