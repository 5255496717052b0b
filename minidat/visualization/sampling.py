"""Where deformable attention looks, and how it reads a map between the pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..data.image import check_image
from ..errors import ConfigError
from ..nn import AttentionRecord
from .canvas import (
    COLORS,
    FAINT,
    INK,
    NOTHING,
    PAPER,
    RULE,
    Canvas,
    Color,
    check_head,
    check_query,
    fit,
    mixed,
)

if TYPE_CHECKING:
    from PIL.Image import Image

GROUP_COLORS = COLORS
REFERENCE_COLOR = (215, 215, 215)


def draw_sampling_points(
    image: np.ndarray,
    record: AttentionRecord,
    *,
    query: tuple[int, int] | None = None,
    head: int | None = None,
    side: int = 448,
    batch_index: int = 0,
    points: int | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> Image:
    """The picture with what one deformable attention module samples from it (as in Fig. 1 of the DAT paper).

    A small cross marks each reference point and a line leads from it to the deformed point, a disc in the color of its
    channel group; the larger the disc, the more attention the heads of that group pay to it.

    image: (H, W, 3) uint8, the picture that the model saw (of any resolution: coordinates are relative); record: what
    the module left in the trace; query: (row, column) on the module's map of the query whose attention is shown,
    marked by a square, None for the mean over all queries; head: which head's attention and points, those of its
    group, None for all of them; side: pixels of the longer side of the result; batch_index: which image of the batch;
    points: how many to draw, those with most attention, None for all; box: (y1, x1, y2, x2) as shares of the picture's
    sides, which gets a white frame.
    Raises ShapeError for another kind of image, ConfigError if there is no such query or head.
    """
    check_image(image)
    if query is not None:
        check_query(query, record.map_size)
    heads, groups = record.attention.shape[1], record.positions.shape[1]
    if head is not None:
        check_head(head, heads)
    shown = range(groups) if head is None else [head * groups // heads]
    rows, columns = record.map_size
    height, width = size = fit(image.shape, side)
    unit = max(size) / 448
    canvas = Canvas(size)
    canvas.paste(mixed(image, (0, 0, 0), 0.35), (0, 0), size)

    attention = record.attention[batch_index]  # (heads, keys, queries)
    attention = attention.mean(axis=2) if query is None else attention[:, :, query[0] * columns + query[1]]
    if head is None:
        strength = attention.reshape(groups, heads // groups, -1).mean(axis=1)  # (groups, keys)
    else:
        strength = attention[[head]].repeat(groups, axis=0)
    strength = strength / strength.max()

    positions = record.positions[batch_index]  # (groups, Hk, Wk, 2)
    largest = min(8.5, max(3.0, 0.2 * 448 / max(positions.shape[1:3])))  # radius of a disc
    reference = to_picture(record.reference, record.map_size, size).reshape(-1, 2)  # (keys, 2)
    moved = to_picture(positions, record.map_size, size).reshape(groups, -1, 2)
    order = np.argsort(-strength, axis=None, kind="stable")  # small ones on top of large ones
    order = order[np.isin(order // strength.shape[1], shown)][:points]
    drawn = [divmod(int(index), strength.shape[1]) for index in order]  # (group, key)
    for key in sorted({key for _, key in drawn}):
        canvas.cross(reference[key], 2 * unit, REFERENCE_COLOR, unit)
    for group, key in sorted(drawn):
        canvas.line([reference[key], moved[group, key]], GROUP_COLORS[group % len(GROUP_COLORS)], 0.8 * unit)
    for group, key in drawn:
        radius = (1.5 + (largest - 1.5) * strength[group, key] ** 0.5) * unit
        canvas.disc(moved[group, key], radius, GROUP_COLORS[group % len(GROUP_COLORS)], INK)
    if box is not None:
        y1, x1, y2, x2 = box
        canvas.frame((y1 * height, x1 * width), ((y2 - y1) * height, (x2 - x1) * width), 2.5 * unit)
    if query is not None:
        cell = height / rows, width / columns
        canvas.frame((query[0] * cell[0], query[1] * cell[1]), cell, 2.5 * unit)
    return canvas.picture()


def to_picture(points: np.ndarray, map_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Positions (..., 2) in [-1, 1], corners aligned on a map, as pixels (y, x) of a picture of `size` it covers."""
    map_sides = np.array(map_size)
    on_map = (points + 1) / 2 * (map_sides - 1)  # the center of the map's cell (0, 0) is at (0, 0)
    return (on_map + 0.5) / map_sides * np.array(size)


# --- bilinear weights -------------------------------------------------------------------------------------------------

LARGEST_GRID = 12
MARGIN = 34  # for the numbers of rows and columns
CAPTION = 58


def draw_bilinear_weights(position: tuple[float, float], size: tuple[int, int] = (4, 4)) -> Image:
    """How bilinear sampling reads a map at a point between its pixels: with four weights, which are areas.

    A square as large as a pixel, centered at the point, covers a part of at most four pixels: these areas, (1 - |p_y -
    y|) (1 - |p_x - x|), are the weights. position: the point p, (y, x) in pixels: (0, 0) is the center of the first
    pixel; size: (rows, columns) of pixels. Pixels beside the map count as 0 (gray); they are shown if the square
    reaches them. Source: DAT, Eq. 8. Raises ConfigError for a point a pixel or more away from the map.
    """
    rows, columns = size
    if not (1 <= rows <= LARGEST_GRID and 1 <= columns <= LARGEST_GRID):
        raise ConfigError(f"size: found {(rows, columns)}, expected 1 ... {LARGEST_GRID} rows and columns")
    p_y, p_x = (float(value) for value in position)
    if not (-1 < p_y < rows and -1 < p_x < columns):
        raise ConfigError(
            f"position: found {(p_y, p_x)}, expected (y, x) in pixels, between -1 and {rows}, -1 and {columns}"
        )
    first_y, first_x = -1 if p_y < 0 else 0, -1 if p_x < 0 else 0
    last_y, last_x = rows if p_y > rows - 1 else rows - 1, columns if p_x > columns - 1 else columns - 1
    cell = min(110, 520 // max(last_y - first_y + 1, last_x - first_x + 1))

    def corner(y: float, x: float) -> tuple[float, float]:
        """Where the upper left corner of pixel (y, x) is in the picture."""
        return MARGIN + (y - first_y) * cell, MARGIN + (x - first_x) * cell

    def center(y: float, x: float) -> tuple[float, float]:
        return corner(y + 0.5, x + 0.5)

    bottom, right = corner(last_y + 1, last_x + 1)
    canvas = Canvas((round(bottom) + CAPTION, max(round(right) + 12, 430)))
    letters = max(11, min(17, cell * 0.18))
    for y in range(first_y, last_y + 1):
        canvas.text((center(y, 0)[0], MARGIN - 10), str(y), size=14, color=FAINT, anchor="rm")
        for x in range(first_x, last_x + 1):
            inside = 0 <= y < rows and 0 <= x < columns
            canvas.rectangle(corner(y, x), (cell, cell), fill=PAPER if inside else NOTHING)
    for x in range(first_x, last_x + 1):
        canvas.text((MARGIN - 10, center(0, x)[1]), str(x), size=14, color=FAINT, anchor="ms")

    weights = _bilinear_weights(p_y, p_x)
    for (y, x, weight), color in zip(weights, COLORS[:4], strict=True):
        top, left = corner(max(y, p_y), max(x, p_x))  # of the overlap of this pixel and the square around p
        overlap = (1 - abs(p_y - y)) * cell, (1 - abs(p_x - x)) * cell
        if weight:
            canvas.rectangle((top, left), overlap, fill=_tint(color))
    for y in range(first_y, last_y + 1):
        for x in range(first_x, last_x + 1):
            canvas.rectangle(corner(y, x), (cell + 1, cell + 1), outline=RULE)
            canvas.disc(center(y, x), 2.5, FAINT)
    canvas.rectangle(corner(0, 0), (rows * cell + 1, columns * cell + 1), outline=INK, width=1.5)
    canvas.rectangle(corner(p_y, p_x), (cell, cell), outline=INK, width=2.5)
    for y, x, weight in weights:
        if weight:  # written in the corner of its pixel that is farthest from p
            away_y, away_x = (-1 if y <= p_y else 1), (-1 if x <= p_x else 1)
            at = corner(y + 0.5 + 0.36 * away_y, x + 0.5 + 0.27 * away_x)
            inside = 0 <= y < rows and 0 <= x < columns
            canvas.text(at, f"{weight:.2f}", size=letters, color=INK if inside else FAINT)
    canvas.disc(center(p_y, p_x), 5, INK, PAPER)

    written = " + ".join(
        f"{weight:.2f} map[{y},{x}]" for y, x, weight in weights if weight and 0 <= y < rows and 0 <= x < columns
    )
    canvas.text((bottom + 20, MARGIN), f"p = ({p_y:.2f}, {p_x:.2f})", size=14, anchor="lm")
    canvas.text((bottom + 42, MARGIN), f"map(p) = {written}", size=12, anchor="lm")
    return canvas.picture()


def _bilinear_weights(p_y: float, p_x: float) -> list[tuple[int, int, float]]:
    """(y, x, weight) of the four pixels around p, some of weight 0 if p lies on a line between centers."""
    y0, x0 = math.floor(p_y), math.floor(p_x)
    return [(y, x, (1 - abs(p_y - y)) * (1 - abs(p_x - x))) for y in (y0, y0 + 1) for x in (x0, x0 + 1)]


def _tint(color: Color) -> Color:
    red, green, blue = mixed(np.array(color), PAPER, 0.45).tolist()
    return red, green, blue
