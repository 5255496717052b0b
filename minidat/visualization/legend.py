"""Colors for any number of classes, and a legend that says which is whose."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from .canvas import COLORS, INK, RULE, Canvas, Color, text_width

SMALLEST_SIDE, LARGEST_SIDE = 640, 2048  # pixels of a photograph's longer side on a sheet with letters
NARROWEST = 320  # pixels of a sheet
LETTERS, PATCH, GAP = 14, 14, 12
LINE = 24  # pixels
GOLDEN = 0.618034  # of the circle of hues: any number of steps spreads them evenly
SHADES = ((0.85, 0.62), (0.95, 0.45), (0.55, 0.78))  # (value, saturation), in turn

Entry = tuple[Color, str]


def class_colors(number: int) -> list[Color]:
    """Colors of the classes 0 ... number - 1: those that color-blind people can tell, then hues all around."""
    colors = list(COLORS[:number])
    for i in range(len(colors), number):
        value, saturation = SHADES[i % len(SHADES)]
        red, green, blue = colorsys.hsv_to_rgb(i * GOLDEN % 1, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def size_on_sheet(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) that a picture of shape (H, W, ...) has beside letters: its own, unless too small or large."""
    longest = max(shape[:2])
    factor = min(max(longest, SMALLEST_SIDE), LARGEST_SIDE) / longest
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def shortened(text: str, width: float, letters: float) -> str:
    """A text that is at most so many pixels wide: its end gives way to dots."""
    if text_width(text, letters) <= width:
        return text
    kept = len(text)
    while kept and text_width(f"{text[:kept]}...", letters) > width:
        kept -= 1
    return f"{text[:kept]}..."


def legend_height(entries: Sequence[Entry], width: int) -> int:
    """Pixels that `put_legend` needs below a picture."""
    return 2 * GAP + LINE * len(_rows(entries, width))


def put_legend(canvas: Canvas, entries: Sequence[Entry], *, top: int, width: int) -> None:
    """Patches of color and what they stand for, in rows of at most `width` pixels, below `top`."""
    for i, row in enumerate(_rows(entries, width)):
        middle, left = top + GAP + (i + 0.5) * LINE, float(GAP)
        for color, text in row:
            canvas.rectangle((middle - PATCH / 2, left), (PATCH, PATCH), fill=color, outline=RULE, width=0.5)
            canvas.text((middle, left + PATCH + 6), text, size=LETTERS, color=INK, anchor="lm")
            left += _entry_width(text)


def _rows(entries: Sequence[Entry], width: int) -> list[list[Entry]]:
    """The entries, cut to `width`, in rows that are as full as can be."""
    rows: list[list[Entry]] = [[]]
    left = float(GAP)
    for color, text in entries:
        text = shortened(text, width - 2 * GAP - PATCH - 6, LETTERS)
        if rows[-1] and left + _entry_width(text) > width:
            rows.append([])
            left = float(GAP)
        rows[-1].append((color, text))
        left += _entry_width(text)
    return rows


def _entry_width(text: str) -> float:
    return PATCH + 6 + text_width(text, LETTERS) + 1.5 * GAP
