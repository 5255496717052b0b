"""Pictures of where deformable attention looks, drawn with Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import ConfigError
from .nn import AttentionRecord

if TYPE_CHECKING:
    from PIL.Image import Image

GROUP_COLORS = ((255, 89, 94), (255, 202, 58), (138, 201, 38), (25, 130, 196), (176, 107, 255), (255, 146, 76))
QUERY_COLOR = (255, 255, 255)
REFERENCE_COLOR = (20, 20, 20)


def draw_sampling_points(
    image: np.ndarray,
    record: AttentionRecord,
    *,
    query: tuple[int, int] | None = None,
    side: int = 448,
    batch_index: int = 0,
) -> Image:
    """The picture with what one deformable attention module samples from it (as in Fig. 1 of the DAT paper).

    A small cross marks each reference point and a line leads from it to the deformed point, a disc in the color of its
    channel group; the larger the disc, the more attention the heads of that group pay to it.

    image: (H, W, 3) uint8, the picture that the model saw (of any resolution: coordinates are relative); record: what
    the module left in the trace; query: (row, column) on the module's map of the query whose attention is shown,
    marked by a square, None for the mean over all queries; side: pixels of the longer side of the result; batch_index:
    which image of the batch. Raises ConfigError if the map has no such query.
    """
    from PIL import Image, ImageDraw

    scale = 2 * side / max(image.shape[:2])  # drawn twice as large, then reduced: smooth edges
    size = (round(image.shape[0] * scale), round(image.shape[1] * scale))  # (height, width)
    canvas = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    canvas = Image.blend(canvas, Image.new("RGB", canvas.size, (0, 0, 0)), 0.35)
    draw = ImageDraw.Draw(canvas)
    unit = max(size) / 448

    rows, columns = record.map_size
    if query is not None and not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ConfigError(f"query: found {query}, expected (row, column) on the map of {rows} x {columns}")
    attention = record.attention[batch_index]  # (heads, keys, queries)
    attention = attention.mean(axis=2) if query is None else attention[:, :, query[0] * columns + query[1]]
    groups = record.positions.shape[1]
    strength = attention.reshape(groups, -1, attention.shape[-1]).mean(axis=1)  # (groups, keys)

    reference = _to_image(record.reference, record.map_size, size).reshape(-1, 2)
    for y, x in reference:
        arm = 2.0 * unit
        draw.line([(x - arm, y), (x + arm, y)], fill=REFERENCE_COLOR, width=round(unit))
        draw.line([(x, y - arm), (x, y + arm)], fill=REFERENCE_COLOR, width=round(unit))
    for group in range(groups):
        color = GROUP_COLORS[group % len(GROUP_COLORS)]
        points = _to_image(record.positions[batch_index, group], record.map_size, size).reshape(-1, 2)
        for (y, x), (y0, x0), share in zip(points, reference, strength[group] / strength.max(), strict=True):
            radius = (1.5 + 7 * share**0.5) * unit
            draw.line([(x0, y0), (x, y)], fill=color, width=max(1, round(0.8 * unit)))
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color, outline=REFERENCE_COLOR)
    if query is not None:
        cell = size[0] / rows, size[1] / columns
        top, left = query[0] * cell[0], query[1] * cell[1]
        box = [left, top, left + cell[1], top + cell[0]]
        draw.rectangle(box, outline=QUERY_COLOR, width=round(2.5 * unit))
    return canvas.reduce(2)


def _to_image(points: np.ndarray, map_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Positions (..., 2) in [-1, 1], corners aligned on a map, as pixels (y, x) of a picture of `size` it covers."""
    map_sides = np.array(map_size)
    on_map = (points + 1) / 2 * (map_sides - 1)  # the centre of the map's cell (0, 0) is at (0, 0)
    return (on_map + 0.5) / map_sides * np.array(size)
