"""Training images made different each time: random crops, RandAugment, erasing, and mixtures of two images.

Functions take a batch (B, H, W, 3) and a random generator, decide for each image on its own (mixing: for the batch),
and leave their arguments as they are. The same state of the generator gives the same result. `Augmentation` puts them
in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from . import adjustments, warping
from ._checks import check_images, check_labels, check_range, check_setting
from .image import MEAN, STD

MEAN_COLOR = (124, 116, 104)  # ImageNet's mean: what RandAugment shows beyond the border of an image
ATTEMPTS = 10  # boxes drawn for an image before the search for one that fits is given up, as timm does
MAX_PADDING = 1024
MAX_OPERATIONS = 100  # one after the other on each image
PADDING_MODES = {"zero": "constant", "reflect": "reflect"}  # our names and NumPy's


@dataclass(frozen=True)
class Augmentation:
    """A recipe: what happens to a training batch, in the order of the fields. None leaves a step out.

    padding: pixels added to each side, before a piece of the old size is cut out (`random_crop`); padding_mode: what
    they show, "zero" or "reflect"; crop_area: instead of padding, the smallest and the largest share of the image that
    is cut out and resized (`random_resized_crop`); flip: mirror half of the images; operations: changes of color or
    shape an image (`rand_augment`); magnitude: how far they go, 0 to 10; erasing: the probability that a box of an
    image is replaced by noise (`random_erasing`); mixup_alpha, cutmix_alpha: of the distribution that the shares of two
    mixed images are drawn from (`mix`), None for no such mixtures; mixing: the probability that a batch is mixed;
    label_smoothing: the share of a target that all classes get alike. The defaults are the authors' for small images.
    Raises ConfigError for settings out of range.
    """

    padding: int | None = 4
    padding_mode: str = "zero"
    crop_area: tuple[float, float] | None = None
    flip: bool = True
    operations: int = 2
    magnitude: float = 9.0
    erasing: float = 0.25
    mixup_alpha: float | None = 0.8
    cutmix_alpha: float | None = 1.0
    mixing: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        both = self.padding is not None and self.crop_area is not None
        check_setting(not both, "Augmentation", "padding and crop_area", "both", "one of them to be None")
        # a rehearsal without images: what is wrong with a setting shows now, not when the data set has been loaded
        self(np.zeros((0, 999, 999, 3), np.uint8), np.zeros(0, np.intp), np.random.default_rng(0), classes=1)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a model trains on: images (B, H, W, 3) float32, normalized, and targets (B, classes), probabilities.

        images: (B, H, W, 3) uint8, labels: (B,) integers in [0, classes). Raises ShapeError for others.
        """
        if self.padding is not None:
            images = random_crop(images, rng, padding=self.padding, mode=self.padding_mode)
        if self.crop_area is not None:
            images = random_resized_crop(images, rng, size=images.shape[1:3], area=self.crop_area)
        if self.flip:
            images = random_flip(images, rng)
        images = rand_augment(images, rng, operations=self.operations, magnitude=self.magnitude)
        normalized = random_erasing(normalize(images), rng, probability=self.erasing)
        return mix(
            normalized,
            labels,
            rng,
            classes=classes,
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            probability=self.mixing,
            label_smoothing=self.label_smoothing,
        )


def random_crop(images: np.ndarray, rng: np.random.Generator, *, padding: int = 4, mode: str = "zero") -> np.ndarray:
    """Pad each side by `padding` pixels, black ("zero") or mirrored ("reflect"), and cut out a piece of the old size.

    All (2 padding + 1)^2 places are equally likely. images: (B, H, W, 3) uint8 -> the same shape and dtype.
    Raises ShapeError for other images, ConfigError for a negative padding, an unknown mode, and mirrors that are too
    wide for the image.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    check_setting(0 <= padding <= MAX_PADDING, "random_crop", "padding", padding, f"0 to {MAX_PADDING}")
    check_setting(mode in PADDING_MODES, "random_crop", "mode", repr(mode), f"one of {tuple(PADDING_MODES)}")
    shortest = min(height, width)
    fits = mode == "zero" or padding < shortest
    check_setting(fits, "random_crop", "padding", padding, f"at most {shortest - 1} mirrored pixels")
    margin = (padding, padding)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)), PADDING_MODES[mode])  # type: ignore[call-overload]
    # every piece as a view, (B, 2 padding + 1, 2 padding + 1, H, 3 W), of which we copy one an image
    rows = padded.reshape(batch, height + 2 * padding, 3 * (width + 2 * padding))
    pieces = np.lib.stride_tricks.sliding_window_view(rows, (height, 3 * width), axis=(1, 2))[:, :, ::3]
    top, left = rng.integers(0, 2 * padding + 1, (2, batch))
    return pieces[np.arange(batch), top, left].reshape(images.shape)


def random_resized_crop(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
) -> np.ndarray:
    """Resize a random box of each image to `size` = (h, w).

    Its share of the image's area is uniform in `area`, its width / height log-uniform in `aspect`, its place uniform
    among those inside the image. If none of ten such boxes fits, it is the largest central one of an allowed aspect.
    images: (B, H, W, 3) uint8 -> (B, h, w, 3) uint8. Raises ShapeError for other images, ConfigError for settings out
    of range. Source: arXiv 1409.4842, section 6; torchvision.transforms.RandomResizedCrop. Resizing: `resize_boxes`.
    """
    check_images(images)
    _, image_height, image_width, _ = images.shape
    check_setting(min(size) >= 1, "random_resized_crop", "size", size, "two numbers of at least 1")
    check_range(area, "random_resized_crop", "area", largest=1)
    check_range(aspect, "random_resized_crop", "aspect")
    heights, widths = _random_boxes(images, rng, area, aspect)
    fits = (heights <= image_height) & (widths <= image_width) & (np.minimum(heights, widths) >= 1)
    height, width = _first(heights, fits), _first(widths, fits)
    found = fits.any(axis=1)
    height[~found] = max(1, min(image_height, round(image_width / aspect[0])))
    width[~found] = max(1, min(image_width, round(image_height * aspect[1])))
    top, left = rng.integers(0, image_height - height + 1), rng.integers(0, image_width - width + 1)
    top[~found] = (image_height - height[~found]) // 2
    left[~found] = (image_width - width[~found]) // 2
    return warping.resize_boxes(images, np.stack((top, left, height, width), 1), size, interpolation=interpolation)


def random_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror each image, left to right, with probability 1/2. images: (B, H, W, 3) uint8 -> the same shape and dtype.

    Raises ShapeError for other images.
    """
    check_images(images)
    flipped = images.copy()
    chosen = np.flatnonzero(rng.random(len(images)) < 0.5)
    flipped[chosen] = images[chosen, :, ::-1]
    return flipped


# What RandAugment may do, in a fixed order: the functions of the images and of two numbers of each, (B,): the strength
# in [0, 1], and the same with a random sign. A level m of 10 is the strength 1.
Adjustment = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
ADJUSTMENTS: dict[str, Adjustment] = {
    "autocontrast": lambda images, strength, signed: adjustments.autocontrast(images),
    "equalize": lambda images, strength, signed: adjustments.equalize(images),
    "invert": lambda images, strength, signed: adjustments.invert(images),
    "posterize": lambda images, strength, signed: adjustments.posterize(images, 4 - (4 * strength).astype(int)),
    "solarize": lambda images, strength, signed: adjustments.solarize(images, 256 - (256 * strength).astype(int)),
    "solarize_add": lambda images, strength, signed: adjustments.solarize_add(images, (110 * strength).astype(int)),
    "color": lambda images, strength, signed: adjustments.color(images, _enhancement(signed)),
    "contrast": lambda images, strength, signed: adjustments.contrast(images, _enhancement(signed)),
    "brightness": lambda images, strength, signed: adjustments.brightness(images, _enhancement(signed)),
    "sharpness": lambda images, strength, signed: adjustments.sharpness(images, _enhancement(signed)),
}
# Those that move pixels: the matrices for images of (height, width).
WARPS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "rotate": lambda signed, height, width: warping.rotations(30 * signed, height, width),
    "shear_x": lambda signed, height, width: warping.shears_x(0.3 * signed),
    "shear_y": lambda signed, height, width: warping.shears_y(0.3 * signed),
    "translate_x": lambda signed, height, width: warping.translations_x(0.45 * signed * width),
    "translate_y": lambda signed, height, width: warping.translations_y(0.45 * signed * height),
}
OPERATIONS = (*ADJUSTMENTS, *WARPS)


def _enhancement(signed: np.ndarray) -> np.ndarray:
    """The factor of an ImageEnhance: 1 changes nothing."""
    return np.maximum(0.1, 1 + 0.9 * signed)


def rand_augment(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    operations: int = 2,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
    interpolation: str = "bicubic",
    fill: tuple[int, int, int] = MEAN_COLOR,
) -> np.ndarray:
    """Do `operations` times: choose one of the 15 OPERATIONS for each image, and do it with `probability`.

    How far each goes: a normal number of mean `magnitude` and standard deviation `magnitude_std`, cut to [0, 10]; 0
    changes least, but for autocontrast, equalize and invert, which know no degrees. Signs are random. `interpolation`
    and `fill` are for those that move pixels. images: (B, H, W, 3) uint8 -> the same shape and dtype.
    Raises ShapeError for other images, ConfigError for settings out of range.
    Source: RandAugment, arXiv 1909.13719, in timm's version "rand-m9-mstd0.5-inc1", which the authors use.
    """
    check_images(images)
    for setting, found, fits, expected in (
        ("operations", operations, 0 <= operations <= MAX_OPERATIONS, f"0 to {MAX_OPERATIONS}"),
        ("magnitude", magnitude, 0 <= magnitude <= 10, "a number in [0, 10]"),
        ("magnitude_std", magnitude_std, 0 <= magnitude_std < math.inf, "a number of at least 0"),
        ("probability", probability, 0 <= probability <= 1, "a number in [0, 1]"),
    ):
        check_setting(fits, "rand_augment", setting, found, expected)
    batch, height, width, _ = images.shape
    augmented = images.copy()
    for _ in range(operations):
        choice = np.where(rng.random(batch) < probability, rng.integers(0, len(OPERATIONS), batch), -1)  # -1: none
        strength = np.clip(rng.normal(magnitude, magnitude_std, batch), 0, 10) / 10
        signed = np.where(rng.random(batch) < 0.5, -strength, strength)
        # 1. adjustments, each of the images that drew it
        for i, adjust in enumerate(ADJUSTMENTS.values()):
            if len(chosen := np.flatnonzero(choice == i)):
                augmented[chosen] = adjust(augmented[chosen], strength[chosen], signed[chosen])
        # 2. all warps together: they are matrices
        moving = np.flatnonzero(choice >= len(ADJUSTMENTS))
        matrices = np.empty((batch, 2, 3))
        for i, warp in enumerate(WARPS.values(), start=len(ADJUSTMENTS)):
            chosen = choice == i
            matrices[chosen] = warp(signed[chosen], height, width)
        augmented[moving] = warping.affine(augmented[moving], matrices[moving], interpolation=interpolation, fill=fill)
    return augmented


def normalize(images: np.ndarray) -> np.ndarray:
    """(value / 255 - mean) / std with ImageNet's mean and std of each channel, as `minidat.preprocess` does.

    images: (B, H, W, 3) uint8 -> float32 of the same shape. Raises ShapeError for other images.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    rows = images.reshape(batch, height, 3 * width).astype(np.float32)  # NumPy is slow along an axis of three
    rows /= 255
    rows -= np.tile(MEAN, width)
    rows /= np.tile(STD, width)
    return rows.reshape(images.shape)


def random_erasing(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    probability: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: str = "noise",
) -> np.ndarray:
    """Replace a box of each image, with `probability`, by standard normal "noise" or by 0, the mean color ("constant").

    Its share of the image's area is uniform in `area`, its height / width log-uniform in `aspect`, its place uniform
    among those inside the image; if none of ten such boxes is smaller than the image, nothing is erased.
    images: (B, H, W, 3) float32, normalized -> the same shape and dtype. Raises ShapeError for other images,
    ConfigError for settings out of range. Source: arXiv 1708.04896; timm's RandomErasing, of mode "pixel" or "const".
    """
    check_images(images, np.float32)
    check_setting(0 <= probability <= 1, "random_erasing", "probability", probability, "a number in [0, 1]")
    check_setting(fill in ("noise", "constant"), "random_erasing", "fill", repr(fill), '"noise" or "constant"')
    check_range(area, "random_erasing", "area", largest=1)
    check_range(aspect, "random_erasing", "aspect")
    _, image_height, image_width, _ = images.shape
    erased = images.copy()
    chosen = np.flatnonzero(rng.random(len(images)) < probability)
    part = images[chosen]
    widths, heights = _random_boxes(part, rng, area, aspect)
    fits = (heights < image_height) & (widths < image_width)
    height, width = _first(heights, fits), _first(widths, fits)
    height[~fits.any(axis=1)] = 0
    top, left = (
        rng.integers(0, limit - side + 1)[:, None, None]
        for limit, side in ((image_height, height), (image_width, np.minimum(width, image_width)))
    )
    y, x = np.arange(image_height)[:, None], np.arange(image_width)
    box = (y >= top) & (y < top + height[:, None, None]) & (x >= left) & (x < left + width[:, None, None])
    noise = rng.standard_normal((np.count_nonzero(box), 3), np.float32)
    part[box] = noise if fill == "noise" else 0
    erased[chosen] = part
    return erased


def soft_targets(labels: np.ndarray, *, classes: int, label_smoothing: float = 0.0) -> np.ndarray:
    """Probabilities (B, classes), float32: 1 - s + s / classes for the label, s / classes for the others.

    labels: (B,) integers in [0, classes); s = label_smoothing, in [0, 1]. Raises ShapeError for other labels,
    ConfigError for s out of range. Source: arXiv 1512.00567, section 7.
    """
    check_setting(classes >= 1, "soft_targets", "classes", classes, "at least 1")
    check_labels(labels, classes)
    check_setting(0 <= label_smoothing <= 1, "soft_targets", "label_smoothing", label_smoothing, "a number in [0, 1]")
    targets = np.full((len(labels), classes), label_smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] = 1 - label_smoothing + label_smoothing / classes
    return targets


def mix(
    images: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    classes: int,
    mixup_alpha: float | None = 0.8,
    cutmix_alpha: float | None = 1.0,
    probability: float = 1.0,
    label_smoothing: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix the batch, with `probability`, with itself in reverse order, by mixup or by cutmix (either half the time).

    Both draw a share p of the image itself from Beta(alpha, alpha). Mixup: p image + (1 - p) other. Cutmix: a box of
    the other image of sides sqrt(1 - p) times the image's, its center anywhere, is put into the image; p is then
    corrected for what lay outside. The targets are mixed like the images: p target + (1 - p) other, after smoothing.
    An alpha of None leaves that kind of mixture out. p is the same for the whole batch.
    images: (B, H, W, 3) float32, labels: (B,) integers in [0, classes) -> the images, (B, classes) float32.
    Raises ShapeError for other images or labels, ConfigError for settings out of range.
    Source: arXiv 1710.09412 (mixup), arXiv 1905.04899 (cutmix); timm's Mixup of mode "batch", which the authors use.
    """
    check_images(images, np.float32)
    check_setting(0 <= probability <= 1, "mix", "probability", probability, "a number in [0, 1]")
    if len(images) != len(labels):
        raise ShapeError(f"labels: found {len(labels)}, expected {len(images)}, one for each image")
    targets = soft_targets(labels, classes=classes, label_smoothing=label_smoothing)
    alphas = {"mixup": mixup_alpha, "cutmix": cutmix_alpha}
    for kind, alpha in alphas.items():
        fits = alpha is None or 0 < alpha < math.inf
        check_setting(fits, "mix", f"{kind}_alpha", alpha, "a number above 0, or None")
    kinds = [(kind, alpha) for kind, alpha in alphas.items() if alpha is not None]
    if not kinds or rng.random() >= probability:
        return images, targets
    kind, alpha = kinds[rng.integers(0, len(kinds))]
    share = rng.beta(alpha, alpha)
    if kind == "mixup":
        mixed = images * np.float32(share)
        mixed += images[::-1] * np.float32(1 - share)
    else:
        top, bottom, left, right = _cut_box(images.shape[1], images.shape[2], share, rng)
        mixed = images.copy()
        mixed[:, top:bottom, left:right] = images[::-1, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (images.shape[1] * images.shape[2])
    return mixed, targets * np.float32(share) + targets[::-1] * np.float32(1 - share)


def _cut_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Cutmix's (top, bottom, left, right), cut off at the border of the image."""
    sides = []
    for length in (height, width):
        half, center = int(length * math.sqrt(1 - share)) // 2, int(rng.integers(0, length))
        sides += [max(0, center - half), min(length, center + half)]
    return sides[0], sides[1], sides[2], sides[3]


def _random_boxes(
    images: np.ndarray, rng: np.random.Generator, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Two sides, the second / the first being the aspect, of ATTEMPTS boxes an image: (B, ATTEMPTS) each."""
    shape = (len(images), ATTEMPTS)
    areas = rng.uniform(*area, shape) * (images.shape[1] * images.shape[2])
    aspects = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), shape))
    return np.rint(np.sqrt(areas / aspects)).astype(int), np.rint(np.sqrt(areas * aspects)).astype(int)


def _first(sides: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """The side (B,) of the first box that fits; that of the very first if none does."""
    return np.take_along_axis(sides, fits.argmax(axis=1)[:, None], axis=1)[:, 0]
