"""What is where in a photograph: boxes, masks, names on their objects, and a legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.image import check_image
from ..detection import Detection
from ..errors import ShapeError
from .canvas import INK, PAPER, Canvas, Color, Point, lightness, mixed, text_width
from .legend import NARROWEST, class_colors, legend_height, put_legend, shortened, size_on_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

LETTERS, MARGIN = 14, 4  # of a label: the size of its letters, and pixels around them
LINE = 2.5  # pixels
MASK_SHARE = 0.45  # of an object's color where its mask is
NOTHING_FOUND = "nothing found"


def draw_detections(image: np.ndarray, detections: Sequence[Detection], *, scores: bool = True) -> Image:
    """A photograph with the box, name and score of each object, its mask if it has one, and a legend below.

    image: (H, W, 3) uint8; detections: as `minidat.detect` returns them, best first; the better one lies on top;
    scores: whether they are written, which annotations have none of. A class has the same color in all pictures. Large
    pictures are reduced, small ones enlarged, so that names can be read. Raises ShapeError for another kind of
    image, and for a mask of another size.
    """
    check_image(image)
    height, width = size_on_sheet(image.shape)
    across = max(width, NARROWEST)
    scale = height / image.shape[0], width / image.shape[1]
    colors = class_colors(1 + max((found.index for found in detections), default=0))
    number = Counter(found.index for found in detections)
    names = {found.index: found.label for found in detections}
    entries = [(colors[index], f"{names[index]}  {count}") for index, count in number.most_common()]
    entries = entries or [(PAPER, NOTHING_FOUND)]

    canvas = Canvas((height + legend_height(entries, across), across))
    canvas.paste(_with_masks(image, detections, colors), (0, 0), (height, width))
    for found in reversed(detections):
        corner, size = _on_canvas(found, scale, (height, width))
        canvas.rectangle(corner, size, outline=PAPER, width=LINE + 1)
        canvas.rectangle(corner, size, outline=colors[found.index], width=LINE)
    taken: list[tuple[float, float, float, float]] = []
    for found in detections:
        corner, size = _on_canvas(found, scale, (height, width))
        text = f"{found.label} {found.score:.0%}" if scores else found.label
        _put_label(canvas, text, colors[found.index], corner, size, taken, (height, width))
    put_legend(canvas, entries, top=height, width=across)
    return canvas.picture()


def _with_masks(image: np.ndarray, detections: Sequence[Detection], colors: Sequence[Color]) -> np.ndarray:
    """The photograph, tinted where there are objects, whose borders have the full color."""
    pixels = image.copy()
    for found in reversed(detections):
        mask = found.mask
        if mask is None:
            continue
        if mask.shape != image.shape[:2]:
            raise ShapeError(f"mask of {found.label}: found shape {mask.shape}, expected the image's {image.shape[:2]}")
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels[mask] = mixed(pixels[mask], np.array(colors[found.index]), MASK_SHARE)
        pixels[mask & ~inside] = colors[found.index]
    return pixels


def _on_canvas(found: Detection, scale: tuple[float, float], size: tuple[int, int]) -> tuple[Point, Point]:
    """The upper left corner and the size of a box, (y, x), where the picture has `size`."""
    x1, y1, x2, y2 = found.box
    top, bottom = (min(max(y * scale[0], 0), size[0]) for y in (y1, y2))
    left, right = (min(max(x * scale[1], 0), size[1]) for x in (x1, x2))
    return (top, left), (bottom - top, right - left)


def _put_label(
    canvas: Canvas,
    text: str,
    color: Color,
    corner: Point,
    size: Point,
    taken: list[tuple[float, float, float, float]],
    picture: tuple[int, int],
) -> None:
    """Write on a ground of this color above a box, or else below it or inside: where no other label is, if possible.

    picture: what there is room in, (height, width); taken: where labels are, (y1, x1, y2, x2) each.
    """
    text = shortened(text, picture[1] - 2 * MARGIN, LETTERS)
    height, width = LETTERS + 2 * MARGIN, text_width(text, LETTERS) + 2 * MARGIN
    (top, left), bottom = corner, corner[0] + size[0]
    left = max(0, min(left, picture[1] - width))
    inside = [top + i * height for i in range(max(1, int(size[0] // height)))]
    places = [y for y in (top - height, bottom, *inside) if 0 <= y <= picture[0] - height] or [0]
    free = [y for y in places if not any(_overlap((y, left, y + height, left + width), other) for other in taken)]
    y = (free or places)[0]
    taken.append((y, left, y + height, left + width))
    canvas.rectangle((y, left), (height, width), fill=color)
    dark = lightness(np.array(color)) < 140
    canvas.text((y + height / 2, left + MARGIN), text, size=LETTERS, color=PAPER if dark else INK, anchor="lm")


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (y1, x1, y2, x2) share an area."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
