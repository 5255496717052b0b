"""The confusion matrix as a picture, drawn with Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, MinidatError, ShapeError, printable
from ..files.atomic import writing
from ..visualization.canvas import INK, PAPER, colors_of

if TYPE_CHECKING:
    from PIL.Image import Image

COLORS = ((247, 250, 253), (158, 202, 225), (49, 130, 189), (8, 48, 107))  # of the shares 0, 1/3, 2/3 and 1
LIGHT_INK_FROM = 0.5  # the share from which numbers are written in white
MATRIX_SIDE = 720  # pixels, about
LARGEST_CELL = 64
SMALLEST_LABELED_CELL = 9
SMALLEST_NUMBERED_CELL = 28
LONGEST_LABEL = 24  # characters
TITLE_SIZE, TICK_SIZE = 18, 15  # of the letters
MARGIN = 32
SCALE_WIDTH = 14


def draw_confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> Image:
    """A confusion matrix as an RGB picture: a row for each true class, a column for each predicted one.

    matrix: (K, K) counts [true, predicted]; labels: the K classes. The darker a cell, the larger its share of its row:
    the diagonal is the accuracy of each class. Cells show their share in percent, and labels are written out, if there
    is room: numbers up to about 25 classes, labels up to about 80. Classes without images have empty rows.

    Raises ShapeError for another kind of array, ConfigError for another number of labels.
    """
    from PIL import Image, ImageDraw

    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or matrix.dtype.kind not in "iu":
        raise ShapeError(f"matrix: found shape {matrix.shape} of {matrix.dtype}, expected (K, K) of integers")
    if len(labels) != len(matrix):
        raise ConfigError(f"labels: found {len(labels)}, expected {len(matrix)}, one for each row of the matrix")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)  # (K, K), in [0, 1]

    cell = int(np.clip(MATRIX_SIDE // len(matrix), 1, LARGEST_CELL))
    side = cell * len(matrix)
    font_size = int(np.clip(cell * 0.42, 8, 16))
    names = [_text(label, font_size) for label in labels] if cell >= SMALLEST_LABELED_CELL else []
    name_space = max((name.width for name in names), default=0) + font_size
    left = top = 2 * MARGIN + name_space
    scale_left, scale_height = left + side + MARGIN, max(side, 8 * TICK_SIZE)

    canvas = Image.new("RGB", (scale_left + SCALE_WIDTH + 5 * TICK_SIZE, top + scale_height + MARGIN), PAPER)
    cells = Image.fromarray(colors_of(shares, COLORS)).resize((side, side), Image.Resampling.NEAREST)
    canvas.paste(cells, (left, top))
    ImageDraw.Draw(canvas).rectangle([left - 1, top - 1, left + side, top + side], outline=INK)

    for i, name in enumerate(names):
        middle = round((i + 0.5) * cell)
        _write(canvas, name, (left - font_size // 2 - name.width, top + middle - name.height // 2))
        upright = name.transpose(Image.Transpose.ROTATE_90)
        _write(canvas, upright, (left + middle - upright.width // 2, top - font_size // 2 - upright.height))
    predicted, true = _text("predicted class", TITLE_SIZE), _text("true class", TITLE_SIZE)
    true = true.transpose(Image.Transpose.ROTATE_90)
    _write(canvas, predicted, (left + max(0, (side - predicted.width) // 2), MARGIN // 2))
    _write(canvas, true, (MARGIN // 2, top + max(0, (side - true.height) // 2)))

    if cell >= SMALLEST_NUMBERED_CELL:
        for (row, column), share in np.ndenumerate(shares):
            if matrix[row, column]:
                number = _text(_percent(share), font_size)
                x, y = left + round((column + 0.5) * cell), top + round((row + 0.5) * cell)
                corner = (x - number.width // 2, y - number.height // 2)
                _write(canvas, number, corner, PAPER if share >= LIGHT_INK_FROM else INK)

    _draw_scale(canvas, scale_left, top, scale_height)
    return canvas


def check_picture_path(path: str | os.PathLike[str]) -> None:
    """Raise MinidatError unless a .png file can be written at `path`, as far as can be told before."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise MinidatError(f"{path}: found the suffix {path.suffix!r}, expected .png for a picture")
    if not path.parent.is_dir():
        raise MinidatError(f"{path}: there is no folder {path.parent}; make it first")


def save_picture(picture: Image, path: str | os.PathLike[str]) -> None:
    """Write a .png file, which appears under its name only when it is complete. Raises MinidatError."""
    check_picture_path(path)
    with writing(path) as file:
        picture.save(file, format="PNG")


def _percent(share: float) -> str:
    """At most three characters: 100, 68, 4.2, <.1"""
    if share >= 0.0995:
        return f"{100 * share:.0f}"
    return f"{100 * share:.1f}" if share >= 0.001 else "<.1"


def _draw_scale(canvas: Image, left: int, top: int, height: int) -> None:
    """Which color means which share."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(canvas)
    right = left + SCALE_WIDTH
    shades = np.linspace(1, 0, height)[:, np.newaxis].repeat(SCALE_WIDTH, axis=1)
    canvas.paste(Image.fromarray(colors_of(shades, COLORS)), (left, top))
    draw.rectangle([left - 1, top - 1, right, top + height], outline=INK)
    for percent in (0, 25, 50, 75, 100):
        tick = _text(f"{percent} %", TICK_SIZE)
        y = top + round((1 - percent / 100) * height)
        draw.line([right, y, right + 4, y], fill=INK)
        _write(canvas, tick, (right + 8, y - tick.height // 2))


def _text(text: str, size: int) -> Image:
    """A line of text as a mask: a gray picture, white where there is ink."""
    from PIL import Image, ImageDraw, ImageFont

    text = printable(text)
    if len(text) > LONGEST_LABEL:
        text = text[: LONGEST_LABEL - 3] + "..."
    font = ImageFont.load_default(size)
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    width, height = measure.textlength(text, font), measure.textbbox((0, 0), "Áy", font)[3]
    mask = Image.new("L", (max(1, math.ceil(width)), math.ceil(height)))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask


def _write(canvas: Image, mask: Image, corner: tuple[int, int], color: tuple[int, int, int] = INK) -> None:
    canvas.paste(color, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
