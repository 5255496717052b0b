"""Masks as COCO's files hold them, run lengths (also packed into a string) and polygons; areas, boxes, overlaps.

All forms meet in `Runs`: where the runs of a mask begin and end, its pixels taken column by column. Results equal those
of COCO's own tools (pycocotools.mask) bit by bit, whose rules, such as how a polygon's edge decides about a pixel that
it crosses, are spelled out here. What cannot be a mask raises a DatasetError, and nothing is allocated for it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DatasetError, ShapeError, printable

MAX_PIXELS = 1 << 27  # of a mask; a file may claim any size
MAX_COORDINATE = 1 << 26  # of a polygon: five times it fits in COCO's 32-bit integers
MAX_BOUNDARY = 1 << 21  # steps along the boundary of a polygon, five a pixel
UPSAMPLING = 5  # of polygons before they are walked along
CHARACTER_ZERO = 48  # "0": a character of a string holds six bits, above this code
MAX_DIGITS = 6  # characters of a number in a string: 29 bits and a sign, more than any mask needs


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask as its runs of pixels, in column-major order: pixel (y, x) is number x height + y.

    height, width: of the mask; edges: (2 N,) int64, strictly increasing: the N runs' first pixel and the one after
    their last, in turn.
    """

    height: int
    width: int
    edges: np.ndarray

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> Runs:
        """mask: (H, W) of bool. Raises ShapeError for anything else."""
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != bool or not mask.size:
            found = f"shape {mask.shape} of {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ShapeError(f"mask: found {found}, expected (height, width) of bool")
        pixels = mask.ravel(order="F")
        edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
        height, width = mask.shape
        return cls(height, width, _closed(np.r_[np.zeros(int(pixels[0]), np.int64), edges], mask.size))

    @classmethod
    def from_rle(cls, rle: Mapping[str, Any]) -> Runs:
        """From {"size": [height, width], "counts": ...}: a string, bytes, or a list of numbers.

        Counts are the lengths of the runs, of background and foreground in turn. Raises DatasetError unless they fill
        the mask.
        """
        if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
            raise DatasetError(f"RLE: found {_shown(rle)}, expected an object with 'size' and 'counts'")
        size = rle["size"]
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise DatasetError(f"RLE: size: found {_shown(size)}, expected [height, width]")
        height, width = check_mask_size(*size)
        counts = rle["counts"]
        counts = _unpack(counts) if isinstance(counts, str | bytes) else _integers(counts)
        if len(counts) and (counts.min() < 0 or counts.max() > height * width):
            raise DatasetError(f"RLE: counts: found {counts.min()} to {counts.max()}, expected 0 to {height * width}")
        if counts.sum() != height * width:
            raise DatasetError(
                f"RLE: counts: their sum is {counts.sum()}, expected height x width = {height} x {width} = "
                f"{height * width}"
            )
        return cls(height, width, _toggles(np.cumsum(counts), height * width))

    @classmethod
    def from_polygons(cls, polygons: Sequence[Sequence[float]], height: int, width: int) -> Runs:
        """The union of polygons, each [x1, y1, x2, y2, ...]. Raises DatasetError for anything else.

        A polygon is enlarged five times and its boundary walked in whole steps. Where that passes the middle of a
        pixel's column, the pixels below change sides; a polygon that crosses itself has holes.
        """
        height, width = check_mask_size(height, width)
        if not isinstance(polygons, list | tuple) or not polygons:
            raise DatasetError(f"polygons: found {_shown(polygons)}, expected a list of at least one")
        parts = [_toggles(_crossings(_corners(polygon), height, width), height * width) for polygon in polygons]
        return cls(height, width, parts[0] if len(parts) == 1 else _union(parts))

    @classmethod
    def from_segmentation(cls, segmentation: Any, height: int, width: int) -> Runs:
        """From polygons, RLE (what an annotation's 'segmentation' holds) or a mask (H, W), for a picture of this size.

        Raises DatasetError for anything else and for another size, ShapeError for an array that is no mask.
        """
        if isinstance(segmentation, Mapping):
            runs = cls.from_rle(segmentation)
        elif isinstance(segmentation, np.ndarray):
            runs = cls.from_mask(segmentation)
        else:
            return cls.from_polygons(segmentation, height, width)
        if (runs.height, runs.width) != (height, width):
            raise DatasetError(
                f"mask: found {runs.height} x {runs.width} pixels (height x width), expected the picture's "
                f"{height} x {width}"
            )
        return runs

    @cached_property
    def area(self) -> int:
        """The number of pixels in the mask."""
        return int(self.edges[1::2].sum() - self.edges[::2].sum())

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest (x, y, width, height) around the mask; zeros if it is empty."""
        if not len(self.edges):
            return 0, 0, 0, 0
        first, last = self.edges[::2], self.edges[1::2] - 1
        left, right = int(first[0]) // self.height, int(last[-1]) // self.height
        if (first // self.height != last // self.height).any():  # a run that goes on in the next column
            return left, 0, right - left + 1, self.height
        top = int((first % self.height).min())
        return left, top, right - left + 1, int((last % self.height).max()) - top + 1

    @cached_property
    def _covered(self) -> np.ndarray:
        """The number of the mask's pixels before each edge, (2 N,)."""
        covered = np.repeat(np.cumsum(self.edges[1::2] - self.edges[::2]), 2)
        covered[::2] -= self.edges[1::2] - self.edges[::2]
        return covered

    def overlap(self, other: Runs) -> int:
        """The number of pixels in both masks, which have the same size."""
        few, many = (self, other) if len(self.edges) < len(other.edges) else (other, self)
        if not len(few.edges):
            return 0
        last = many.edges.searchsorted(few.edges, side="right") - 1  # the edge of `many` at or before each of `few`
        covered = many._covered[last]  # the pixels of `many` before each edge of `few`
        covered += (few.edges - many.edges[last]) * (last % 2 == 0)  # ... of which the last run may go on
        covered[last < 0] = 0
        return int(covered[1::2].sum() - covered[::2].sum())

    def to_mask(self) -> np.ndarray:
        """The mask, (H, W) of bool."""
        pixels = np.zeros(self.height * self.width, bool)
        for start, stop in self.edges.reshape(-1, 2).tolist():
            pixels[start:stop] = True
        return np.ascontiguousarray(pixels.reshape(self.width, self.height).T)

    def to_rle(self) -> dict[str, Any]:
        """{"size": [height, width], "counts": string}, as COCO's files hold it."""
        counts = np.diff(np.r_[0, self.edges, self.height * self.width])
        if len(counts) > 1 and counts[-1] == 0:
            counts = counts[:-1]
        return {"size": [self.height, self.width], "counts": _pack(counts)}


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO's results files hold it: {"size": [height, width], "counts": string}.

    mask: (H, W) of bool. Raises ShapeError for anything else.
    """
    return Runs.from_mask(mask).to_rle()


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask of a run-length encoding, (H, W) of bool.

    rle: {"size": [height, width], "counts": ...}, where the counts are a string or bytes, or a list of numbers: the
    lengths of the runs, of background and foreground in turn. Raises DatasetError unless they fill the mask.
    """
    return Runs.from_rle(rle).to_mask()


def polygons_to_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The union of polygons as a mask, (H, W) of bool, drawn exactly as COCO's tools do.

    polygons: a list of [x1, y1, x2, y2, ...], at least three corners each, in pixels; what lies outside of the picture
    is cut off. Raises DatasetError for anything else, and for a boundary of more than some 400,000 pixels.
    """
    return Runs.from_polygons(polygons, height, width).to_mask()


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask of an annotation's 'segmentation', be it polygons, RLE or already a mask: (H, W) of bool.

    Raises DatasetError for anything else and for another size, ShapeError for an array that is no mask.
    """
    return Runs.from_segmentation(segmentation, height, width).to_mask()


def mask_ious(masks: Sequence[Runs], others: Sequence[Runs], is_crowd: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Intersection over union of M masks and N others, (M, N) float64.

    is_crowd: (N,), which of the others mark a crowd: with these, the union is the mask alone, so that any part of a
    crowd is a full hit. Raises ShapeError for masks of several sizes and another number of flags.
    """
    crowd = np.asarray(is_crowd, bool)
    if crowd.shape != (len(others),):
        raise ShapeError(f"is_crowd: found shape {crowd.shape}, expected ({len(others)},), one for each of the others")
    sizes = {(runs.height, runs.width) for runs in (*masks, *others)}
    if len(sizes) > 1:
        raise ShapeError(f"masks: found the sizes {sorted(sizes)}, expected one")
    first, second = np.indices((len(masks), len(others))).reshape(2, -1)
    return paired_mask_ious(masks, others, crowd, first, second).reshape(len(masks), len(others))


def paired_mask_ious(
    masks: Sequence[Runs] | np.ndarray,
    others: Sequence[Runs] | np.ndarray,
    is_crowd: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    """`mask_ious` of some pairs alone: of masks[first] and others[second], (P,) integers each -> (P,) float64.

    Only the two masks of a pair need to have the same size.
    """
    boxes = np.array([runs.box for runs in masks], np.int64).reshape(-1, 4)[first]
    other_boxes = np.array([runs.box for runs in others], np.int64).reshape(-1, 4)[second]
    starts = np.maximum(boxes[:, :2], other_boxes[:, :2])
    stops = np.minimum(boxes[:, :2] + boxes[:, 2:], other_boxes[:, :2] + other_boxes[:, 2:])
    ious = np.zeros(len(first))
    for pair in np.flatnonzero((starts < stops).all(axis=1)).tolist():
        mask, other = masks[first[pair]], others[second[pair]]
        overlap = mask.overlap(other)
        if overlap:
            union = mask.area if is_crowd[second[pair]] else mask.area + other.area - overlap
            ious[pair] = overlap / union
    return ious


def check_mask_size(height: Any, width: Any) -> tuple[int, int]:
    """The size of a mask, as integers. Raises DatasetError unless it has between 1 and MAX_PIXELS pixels."""
    for name, side in (("height", height), ("width", width)):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise DatasetError(f"{name}: found {_shown(side)}, expected a whole number of at least 1")
    if int(height) * int(width) > MAX_PIXELS:
        raise DatasetError(f"size: found {height} x {width} pixels, expected at most {MAX_PIXELS:,} in all")
    return int(height), int(width)


# --- runs -------------------------------------------------------------------------------------------------------------


def _closed(edges: np.ndarray, size: int) -> np.ndarray:
    """Edges, of which the last run's end may be missing: then it is the mask's."""
    return np.append(edges, size) if len(edges) % 2 else edges


def _toggles(positions: np.ndarray, size: int) -> np.ndarray:
    """The edges of a mask that changes sides at each of these sorted positions: twice at one place is not at all."""
    if not (positions[1:] > positions[:-1]).all():
        positions, counts = np.unique(positions, return_counts=True)
        positions = positions[counts % 2 == 1]
    return _closed(positions[: positions.searchsorted(size)], size)


def _union(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The edges of the union of masks, from the edges of each."""
    edges = np.concatenate(parts)
    order = np.argsort(edges, kind="stable")
    covers = np.cumsum(np.concatenate([1 - 2 * (np.arange(len(part)) % 2) for part in parts])[order])
    edges = edges[order]
    last = np.diff(edges, append=-1) != 0  # of equal edges: only then all of them are counted
    edges, is_inside = edges[last], covers[last] > 0
    return edges[np.diff(is_inside, prepend=False)]


def _corners(polygon: Any) -> np.ndarray:
    """The corners of a polygon on the grid of fifths of a pixel, (K + 1, 2) int64 as (x, y), the first one repeated."""
    numbers = _array(polygon)
    if numbers is None or numbers.ndim != 1 or len(numbers) < 6 or len(numbers) % 2:
        raise DatasetError(f"polygon: found {_shown(polygon)}, expected [x1, y1, x2, y2, ...], at least three corners")
    numbers = numbers.astype(np.float64)
    if not (np.abs(numbers) <= MAX_COORDINATE).all():  # nor a NaN
        raise DatasetError(
            f"polygon: found {_shown(polygon)}, expected coordinates of at most {MAX_COORDINATE:,} pixels"
        )
    points = (UPSAMPLING * numbers + 0.5).astype(np.int64).reshape(-1, 2)  # cut off toward 0
    return np.concatenate([points, points[:1]])


def _crossings(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where the boundary through these points passes the middle of a column: sorted numbers of pixels.

    Each is the first pixel whose middle lies below the boundary, x height + y; y = height if there is none. Raises
    DatasetError for a boundary that is too long.
    """
    # Each side is walked along its longer direction, computed from its left or upper end whichever way it goes.
    step = points[1:] - points[:-1]
    is_flat = np.abs(step[:, 0]) >= np.abs(step[:, 1])
    main, minor = np.where(is_flat, step.T, step.T[::-1])
    is_backwards = main < 0
    origin = np.where(is_backwards[:, np.newaxis], points[1:], points[:-1])
    main_origin, minor_origin = np.where(is_flat, origin.T, origin.T[::-1])
    length = np.abs(main)
    slope = minor / np.maximum(length, 1) * np.where(is_backwards, -1, 1)
    stops = np.cumsum(length + 1)  # both ends included: corners come twice
    if stops[-1] > MAX_BOUNDARY:
        raise DatasetError(
            f"polygon: its boundary is {stops[-1] // UPSAMPLING} pixels long, expected at most "
            f"{MAX_BOUNDARY // UPSAMPLING}"
        )

    side = np.repeat(np.arange(len(length)), length + 1)
    place = np.arange(len(side)) - (stops - length - 1)[side]
    place = np.where(is_backwards[side], length[side] - place, place)
    across = (minor_origin[side] + slope[side] * place + 0.5).astype(np.int64)  # cut off toward 0
    along = main_origin[side] + place
    is_flat = is_flat[side]
    x = np.where(is_flat, along, across)

    # The middle of column n lies between the fifths 5 n + 2 and 5 n + 3.
    turn = (x[1:] != x[:-1]).nonzero()[0]
    left = np.minimum(x[turn], x[turn + 1])
    column = left // UPSAMPLING
    is_middle = (left % UPSAMPLING == UPSAMPLING // 2) & (column >= 0) & (column < width)
    turn, column = turn[is_middle], column[is_middle]
    before, after = (np.where(is_flat[at], across[at], along[at]) for at in (turn, turn + 1))
    row = np.ceil((np.minimum(before, after) + 0.5) / UPSAMPLING - 0.5).astype(np.int64)
    crossings = column * height + np.minimum(np.maximum(row, 0), height)
    crossings.sort()
    return crossings


# --- strings of counts ------------------------------------------------------------------------------------------------


def _pack(counts: np.ndarray) -> str:
    """Counts as a string: from the fourth on the difference to the count before the last, five bits a character.

    The lowest bits come first; bit 5 says that more follow, bit 4 of the last character is the number's sign.
    """
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    digits = np.stack([numbers >> 5 * k for k in range(MAX_DIGITS)], axis=1)  # (N, digits)
    is_last = (digits >= -16) & (digits < 16)  # these five bits say it all
    used: np.ndarray = np.cumsum(is_last, axis=1) - is_last == 0
    characters = (digits & 31) + np.where(is_last, 0, 32) + CHARACTER_ZERO
    return characters[used].astype(np.uint8).tobytes().decode("ascii")


def _unpack(text: str | bytes) -> np.ndarray:
    """Counts from a string, (N,) int64. Raises DatasetError for what `_pack` cannot have written."""
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - CHARACTER_ZERO
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise DatasetError(f"RLE: counts: found {_shown(text)}, expected characters from '0' to 'o'")
    if codes[-1] >= 32:
        raise DatasetError("RLE: counts: the string breaks off inside a number")
    ends = np.flatnonzero(codes < 32)  # of the numbers
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_DIGITS:
        raise DatasetError(f"RLE: counts: found a number of {lengths.max()} characters, expected at most {MAX_DIGITS}")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << 5 * places, starts)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * lengths, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _integers(counts: Any) -> np.ndarray:
    """A list of counts as an array, (N,) int64."""
    numbers = _array(counts)
    if numbers is None or numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and numbers.size):
        raise DatasetError(f"RLE: counts: found {_shown(counts)}, expected a string or a list of whole numbers")
    return np.minimum(numbers, MAX_PIXELS + 1).astype(np.int64)  # an unsigned one may not fit; too large it is anyway


def _array(numbers: Any) -> np.ndarray | None:
    """A list of numbers as an array; None if it is something else."""
    try:
        array = np.array(numbers) if isinstance(numbers, list | tuple | np.ndarray) else None
    except (ValueError, TypeError, OverflowError):  # lists of several lengths
        return None
    return array if array is not None and array.dtype.kind in "iuf" else None


def _shown(value: Any) -> str:
    """A value from a file, for a message: its beginning."""
    return printable(reprlib.repr(value))
