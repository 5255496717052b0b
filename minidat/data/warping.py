"""Geometry on a whole batch at once: affine maps, and boxes cut out and resized, each image its own; as Pillow does.

Coordinates count pixels from the upper left corner of the image, (y, x): the center of its first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._checks import check_images, check_setting

INTERPOLATIONS = ("bilinear", "bicubic")
AFFINE_CUBIC, RESIZE_CUBIC = -1.0, -0.5  # Pillow's two cubic kernels: their slope at distance 1
Tap = tuple[np.ndarray, np.ndarray]  # the index of a pixel on an axis, and its weight
CACHE_PIXELS = 16384  # worked on at once: a few arrays of this length fit in a core's second-level cache


def rotations(degrees: np.ndarray, height: int, width: int) -> np.ndarray:
    """Matrices (B, 2, 3) for `affine` that turn an image counterclockwise about its center. degrees: (B,)."""
    angle = np.radians(degrees)
    cos, sin = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)  # right angles are exact, as in Pillow
    y, x = height / 2, width / 2
    matrices = _identities(len(degrees))
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2] = cos, sin, y - cos * y - sin * x
    matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2] = -sin, cos, x + sin * y - cos * x
    return matrices


def shears_x(factors: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 3) for `affine` that move row y to the left by factor y. factors: (B,)."""
    matrices = _identities(len(factors))
    matrices[:, 1, 0] = factors
    return matrices


def shears_y(factors: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 3) for `affine` that move column x up by factor x. factors: (B,)."""
    matrices = _identities(len(factors))
    matrices[:, 0, 1] = factors
    return matrices


def translations_x(pixels: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 3) for `affine` that move an image to the left. pixels: (B,), not necessarily whole."""
    matrices = _identities(len(pixels))
    matrices[:, 1, 2] = pixels
    return matrices


def translations_y(pixels: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 3) for `affine` that move an image up. pixels: (B,), not necessarily whole."""
    matrices = _identities(len(pixels))
    matrices[:, 0, 2] = pixels
    return matrices


def affine(
    images: np.ndarray, matrices: np.ndarray, *, interpolation: str = "bicubic", fill: tuple[int, int, int] = (0, 0, 0)
) -> np.ndarray:
    """Where the output has (y, x), the input is sampled at matrix (y, x, 1); outside of it, the output is `fill`.

    The cubic kernel has the slope -1 at distance 1, border pixels extend outwards and values are cut toward zero: all
    this is Pillow's `Image.transform` with AFFINE, which it equals up to float32 rounding. There, and in the result of
    timm's RandAugment, a matrix's rows and columns come as (x, y).
    images: (B, H, W, 3) uint8, matrices: (B, 2, 3) -> the same shape and dtype as the images.
    Raises ShapeError for other images, ConfigError for an unknown interpolation.
    """
    check_images(images)
    check_setting(interpolation in INTERPOLATIONS, "affine", "interpolation", repr(interpolation), f"{INTERPOLATIONS}")
    # Most maps used in training move pixels along one axis only: a quarter of the work, so these go apart.
    moves = (matrices != np.eye(2, 3)).any(axis=2)  # (B, 2)
    output = images.copy()
    images_at_once = max(1, CACHE_PIXELS // (images.shape[1] * images.shape[2]))
    for axes in ((True, False), (False, True), (True, True)):
        group = np.flatnonzero((moves == axes).all(axis=1))
        for start in range(0, len(group), images_at_once):
            part = group[start : start + images_at_once]
            output[part] = _affine(images[part], matrices[part], axes, interpolation == "bicubic", fill)
    return output


def resize_boxes(
    images: np.ndarray, boxes: np.ndarray, size: tuple[int, int], *, interpolation: str = "bicubic"
) -> np.ndarray:
    """Cut a box out of each image and resize it to `size` = (h, w).

    Each output pixel is a weighted mean of the box's rows and columns; the kernel (triangle, or the cubic of slope
    -0.5) is stretched along an axis where the box is larger than `size`, so that nothing is skipped. That makes two
    batched matrix products: output = clip(Y image X^T), Y and X being the weights of rows and columns.
    images: (B, H, W, 3) uint8, boxes: (B, 4) integers (top, left, height, width) -> (B, h, w, 3) uint8, rounded.
    As torch.nn.functional.interpolate with `antialias`; as Pillow's `crop` and `resize`, but for its rounding (and
    clipping) between the two axes.
    Raises ShapeError for other images, ConfigError for an unknown interpolation and a box that leaves its image.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    name = "resize_boxes"
    check_setting(interpolation in INTERPOLATIONS, name, "interpolation", repr(interpolation), f"{INTERPOLATIONS}")
    top, left, box_height, box_width = np.asarray(boxes).reshape(batch, 4).T
    inside = (np.minimum(top, left) >= 0) & (np.minimum(box_height, box_width) >= 1)
    inside &= (top + box_height <= height) & (left + box_width <= width)
    outside = np.flatnonzero(~inside)
    where = boxes[outside[0]] if len(outside) else None
    check_setting(not len(outside), name, "boxes", where, f"a box inside the image of {height} x {width}")
    row_weights = _resize_weights(height, top, box_height, size[0], interpolation)  # (B, h, H)
    column_weights = _resize_weights(width, left, box_width, size[1], interpolation)  # (B, w, W)
    lowered = row_weights @ images.reshape(batch, height, width * 3).astype(np.float32)  # (B, h, W 3)
    columns_first = lowered.reshape(batch, size[0], width, 3).swapaxes(1, 2).reshape(batch, width, size[0] * 3)
    resized = column_weights @ columns_first  # (B, w, h 3)
    np.clip(resized, 0, 255, out=resized)
    resized += 0.5
    return resized.reshape(batch, size[1], size[0], 3).swapaxes(1, 2).astype(np.uint8, order="C")


def _identities(count: int) -> np.ndarray:
    """(count, 2, 3) matrices that leave everything in its place."""
    return np.tile(np.eye(2, 3), (count, 1, 1))


def _affine(
    images: np.ndarray, matrices: np.ndarray, axes: tuple[bool, bool], cubic: bool, fill: tuple[int, int, int]
) -> np.ndarray:
    """`affine` for maps that move pixels along the given axes, (y, x), and leave the other coordinate alone."""
    batch, height, width, _ = images.shape
    planes = np.moveaxis(images, -1, 0).astype(np.float32, order="C").reshape(3, -1)  # gathers of single floats
    starts = np.arange(0, batch * height * width, height * width).reshape(batch, 1, 1)
    grid = np.arange(height).reshape(-1, 1), np.arange(width)
    inside = np.ones((batch, height, width), bool)
    taps: list[list[Tap]] = []
    for axis, length in enumerate((height, width)):
        if not axes[axis]:
            taps.append([(grid[axis], np.ones((), np.float32))])
            continue
        # how far from its own place a pixel is taken: in a shear or translation the same for a whole row or column
        along, across, offset = (matrices[:, axis, i].reshape(batch, 1, 1) for i in (axis, 1 - axis, 2))
        distance = across * (grid[1 - axis] + 0.5) + offset
        if (along != 1).any():
            distance = distance + (along - 1) * (grid[axis] + 0.5)
        position = distance + (grid[axis] + 0.5)
        inside &= (position >= 0) & (position < length)
        taps.append(list(_taps(distance, grid[axis], length, cubic)))

    output = np.full((3, batch, height, width), 1e-3, np.float32)  # what rounding took must not cost a level
    for row, row_weight in taps[0]:
        row_start = starts + row * width
        for column, column_weight in taps[1]:
            values = planes.take(row_start + column, axis=1)  # (3, batch, height, width)
            values *= row_weight * column_weight
            output += values
    np.clip(output, 0, 255, out=output)
    warped = np.empty_like(images)
    for channel in range(3):
        warped[..., channel] = np.where(inside, output[channel], fill[channel])
    return warped


def _taps(distance: np.ndarray, grid: np.ndarray, length: int, cubic: bool) -> Iterator[Tap]:
    """(index, weight) of each pixel on an axis of `length` that takes part at grid + distance."""
    cells = np.floor(distance)
    fraction = (distance - cells).astype(np.float32)
    first = cells.astype(np.intp) + grid
    if cubic:
        weights = {
            -1: _cubic_outer(1 + fraction, AFFINE_CUBIC),
            0: _cubic_inner(fraction, AFFINE_CUBIC),
            1: _cubic_inner(1 - fraction, AFFINE_CUBIC),
            2: _cubic_outer(2 - fraction, AFFINE_CUBIC),
        }
    else:
        weights = {0: 1 - fraction, 1: fraction}
    for step, weight in weights.items():
        index = first + step
        np.maximum(index, 0, out=index)
        yield np.minimum(index, length - 1, out=index), weight


def _resize_weights(
    image_length: int, start: np.ndarray, length: np.ndarray, size: int, interpolation: str
) -> np.ndarray:
    """What each of `size` output pixels takes of each input pixel on an axis, (B, size, image_length), of sum 1.

    start, length: (B,), the box on this axis; pixels outside of it take no part.
    """
    start, length = start.reshape(-1, 1, 1), length.reshape(-1, 1, 1)
    scale = length / size
    centers = start + (np.arange(size).reshape(-1, 1) + 0.5) * scale  # (B, size, 1)
    pixels = np.arange(image_length)
    distance = np.abs((pixels + 0.5 - centers) / np.maximum(scale, 1)).astype(np.float32)
    if interpolation == "bicubic":
        outer = _cubic_outer(np.minimum(distance, 2), RESIZE_CUBIC)
        weights = np.where(distance < 1, _cubic_inner(distance, RESIZE_CUBIC), outer)
    else:
        weights = np.maximum(1 - distance, 0)
    weights *= (pixels >= start) & (pixels < start + length)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def _cubic_inner(distance: np.ndarray, slope: float) -> np.ndarray:
    """Keys' cubic kernel for distances in [0, 1] (IEEE Trans. ASSP 29, 1981, Eq. 4)."""
    return ((slope + 2) * distance - (slope + 3)) * distance * distance + 1


def _cubic_outer(distance: np.ndarray, slope: float) -> np.ndarray:
    """The same for distances in [1, 2], where it ends in 0."""
    return slope * (((distance - 5) * distance + 8) * distance - 4)
