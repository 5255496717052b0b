"""What every picture is drawn with: a canvas with smooth edges, letters, and colors that the color-blind can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]
Point = Sequence[float] | np.ndarray  # (y, x)

PAPER: Color = (255, 255, 255)
INK: Color = (30, 34, 42)
FAINT: Color = (150, 156, 166)  # axes, secondary letters
RULE: Color = (222, 226, 232)  # grid lines
NOTHING: Color = (236, 238, 241)  # where there is nothing to show

# By Okabe and Ito (https://jfly.uni-koeln.de/color), the bright ones first: they are told apart by color-blind people.
SKY, ORANGE, PINK, YELLOW = (86, 180, 233), (230, 159, 0), (204, 121, 167), (240, 228, 66)
GREEN, VERMILION, BLUE = (0, 158, 115), (213, 94, 0), (0, 114, 178)
COLORS: tuple[Color, ...] = (SKY, ORANGE, PINK, YELLOW, GREEN, VERMILION, BLUE)

# Colors of the values 0 ... 1, at equal steps; lightness only grows, so they work in gray too.
HEAT: tuple[Color, ...] = ((8, 6, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
BLUES: tuple[Color, ...] = ((255, 255, 255), (158, 202, 225), (49, 130, 189), (8, 48, 107))
# Of the values -1 ... 1: orange is negative, white 0, blue positive.
DIVERGING: tuple[Color, ...] = ((127, 59, 8), (241, 163, 64), (255, 255, 255), (103, 169, 207), (5, 70, 130))

FINE = 3  # the canvas is so many times larger than the picture that is made from it


class Canvas:
    """A picture of `size` (height, width) to draw on, in (y, x) pixels counted from the top left corner, not rounded.

    It is drawn FINE times as large and reduced by `picture`: edges come out smooth.
    """

    def __init__(self, size: tuple[int, int], color: Color = PAPER) -> None:
        from PIL import Image, ImageDraw

        self.size = size
        self._image = Image.new("RGB", (size[1] * FINE, size[0] * FINE), color)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image:
        """The RGB picture."""
        return self._image.reduce(FINE)

    def paste(self, pixels: np.ndarray, corner: Point, size: Point, *, smooth: bool = True) -> None:
        """Put (H, W, 3) uint8 pixels into the box of this upper left corner and size; not smooth: as crisp cells."""
        from PIL import Image

        (top, left), (height, width) = self._fine(corner), self._fine(size)
        method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        self._image.paste(Image.fromarray(pixels).resize((width, height), method), (left, top))

    def line(self, points: Sequence[Point], color: Color, width: float = 1) -> None:
        """A line through these points."""
        xy = [(x * FINE, y * FINE) for y, x in points]
        self._draw.line(xy, fill=color, width=max(1, round(width * FINE)), joint="curve")

    def rectangle(
        self, corner: Point, size: Point, *, fill: Color | None = None, outline: Color | None = None, width: float = 1
    ) -> None:
        """A box; its outline, `width` pixels wide, lies inside."""
        (top, left), (bottom, right) = self._fine(corner), self._fine((corner[0] + size[0], corner[1] + size[1]))
        box = [left, top, max(left, right - 1), max(top, bottom - 1)]
        self._draw.rectangle(box, fill=fill, outline=outline, width=max(1, round(width * FINE)) if outline else 0)

    def frame(self, corner: Point, size: Point, width: float = 2.5) -> None:
        """A white box with a thin dark edge, which is seen on any ground."""
        self.rectangle(corner, size, outline=PAPER, width=width + 1)
        self.rectangle(corner, size, outline=INK, width=1)

    def disc(self, center: Point, radius: float, color: Color, outline: Color | None = None) -> None:
        y, x, r = center[0] * FINE, center[1] * FINE, radius * FINE
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=color, outline=outline, width=FINE if outline else 0)

    def cross(self, center: Point, arm: float, color: Color, width: float = 1) -> None:
        """An upright cross."""
        y, x = center
        self.line([(y, x - arm), (y, x + arm)], color, width)
        self.line([(y - arm, x), (y + arm, x)], color, width)

    def text(self, point: Point, text: str, *, size: float = 14, color: Color = INK, anchor: str = "mm") -> None:
        """A line of text; anchor: which part of it is at the point, as in Pillow ("mm": its middle, "ls": its left end,
        on the line it is written on). Accents and the like show as ?: the font has only ASCII."""
        from PIL import ImageFont

        text = printable(text).encode("ascii", "replace").decode()
        font = ImageFont.load_default(size * FINE)
        self._draw.text((point[1] * FINE, point[0] * FINE), text, fill=color, font=font, anchor=anchor)

    @staticmethod
    def _fine(point: Point) -> tuple[int, int]:
        return round(point[0] * FINE), round(point[1] * FINE)


def text_width(text: str, size: float = 14) -> float:
    """Pixels that a line of text is wide on a canvas."""
    from PIL import ImageFont

    return ImageFont.load_default(size * FINE).getlength(text) / FINE


def colors_of(values: np.ndarray, scale: Sequence[Color]) -> np.ndarray:
    """Values in [0, 1], (...), as colors (..., 3) uint8 on straight lines between those of the scale."""
    steps = np.linspace(0, 1, len(scale))
    channels = [np.interp(values, steps, channel) for channel in np.transpose(scale)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def mixed(pixels: np.ndarray, color: Color | np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """Pixels (..., 3) uint8 with a share in [0, 1] of another color, or of other pixels."""
    return np.round(pixels * (1 - share) + np.asarray(color, float) * share).astype(np.uint8)


def lightness(pixels: np.ndarray) -> np.ndarray:
    """How light colors (..., 3) look: (...), 0 to 255 (luma, ITU-R BT.601)."""
    return pixels @ np.array([0.299, 0.587, 0.114])


def faded(image: np.ndarray) -> np.ndarray:
    """A photograph in dark gray, before which colors stand out: (H, W, 3) uint8 -> the same."""
    return np.repeat(0.65 * lightness(image)[..., np.newaxis], 3, axis=-1).astype(np.uint8)


def fit(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(height, width) of a picture of this shape, (H, W, ...), when its longer side has `side` pixels."""
    height, width = shape[:2]
    longest = max(height, width)
    return max(1, round(side * height / longest)), max(1, round(side * width / longest))


def check_head(head: int, heads: int) -> None:
    """Raise ConfigError unless there is a head of this number, counted from 0."""
    if not 0 <= head < heads:
        raise ConfigError(f"head: found {head}, expected 0 ... {heads - 1}")


def check_query(query: tuple[int, int], map_size: tuple[int, int]) -> None:
    """Raise ConfigError unless `query` is a (row, column) of a map of this size."""
    rows, columns = map_size
    if not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ConfigError(f"query: found {query}, expected (row, column) on the map of {rows} x {columns}")
