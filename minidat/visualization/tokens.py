"""Windows, masks, attention maps and matrices: what local attention sees, as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.image import check_image, resize_image
from ..errors import ConfigError, ShapeError
from .canvas import (
    BLUES,
    COLORS,
    DIVERGING,
    FAINT,
    FINE,
    HEAT,
    INK,
    NOTHING,
    PAPER,
    RULE,
    Canvas,
    check_query,
    colors_of,
    faded,
    fit,
    lightness,
    mixed,
    text_width,
)

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOGRAPH_SIDE = 400  # pixels of the longer side of a photograph
GAP = 16  # between panels
LETTERS = 14

# --- windows ----------------------------------------------------------------------------------------------------------


def draw_windows(image: np.ndarray, *, window: int, grid: tuple[int, int] | None = None, shift: int = 0) -> Image:
    """The tokens of a map over the picture it belongs to, colored by the window that they attend in.

    image: (H, W, 3) uint8; window: tokens on a window's side; grid: (rows, columns) of tokens, multiples of the window,
    None for 4 x 4 windows; shift: tokens that a map is rolled by, up and to the left, before it is cut into windows.

    Without a shift, one panel. With one, two: on the left the windows where they lie on the picture (those that the
    roll puts together from several borders have one color there and here); on the right the rolled picture, its
    windows, and white double lines where the roll made strangers neighbors: attention does not cross them. Source:
    Swin, arXiv 2103.14030, Fig. 4. Raises ShapeError for another kind of image, ConfigError for settings that do not
    fit.
    """
    check_image(image)
    if window < 1:
        raise ConfigError(f"window: found {window}, expected at least 1")
    rows, columns = (4 * window, 4 * window) if grid is None else grid
    if min(rows, columns) < 1 or rows % window or columns % window:
        raise ConfigError(f"grid: found {(rows, columns)}, expected multiples of the window, {window}")
    if not 0 <= shift < window:
        raise ConfigError(f"shift: found {shift}, expected 0 ... {window - 1}, less than the window")

    height, width = fit(image.shape, PHOTOGRAPH_SIDE)
    cell = max(2, round(height / rows)), max(2, round(width / columns))
    size = cell[0] * rows, cell[1] * columns
    pixels = resize_image(image, size)
    # the number of each token's window: first as the rolled map is cut, then rolled back to where the tokens come from
    row, column = np.arange(rows)[:, np.newaxis] // window, np.arange(columns) // window
    rolled = row * (columns // window) + column  # (rows, columns)
    home = np.roll(rolled, (shift, shift), axis=(0, 1))

    if not shift:
        canvas = Canvas(size)
        _draw_tokens(canvas, pixels, rolled, columns // window, cell, left=0)
        return canvas.picture()

    title = 2 * LETTERS
    canvas = Canvas((size[0] + title, 2 * size[1] + GAP))
    for panel, (name, tokens) in enumerate((("windows on the map", home), (f"map rolled by {shift}", rolled))):
        left = panel * (size[1] + GAP)
        canvas.text((LETTERS, left + size[1] / 2), name, size=LETTERS)
        moved = np.roll(pixels, (-shift * cell[0], -shift * cell[1]), axis=(0, 1)) if panel else pixels
        _draw_tokens(canvas, moved, tokens, columns // window, cell, top=title, left=left)
    left = size[1] + GAP
    seam_y, seam_x = title + (rows - shift) * cell[0], left + (columns - shift) * cell[1]
    for color, thickness in ((PAPER, 5.0), (INK, 1.5)):
        canvas.line([(seam_y, left), (seam_y, left + size[1])], color, thickness)
        canvas.line([(title, seam_x), (title + size[0], seam_x)], color, thickness)
    return canvas.picture()


def _draw_tokens(
    canvas: Canvas,
    pixels: np.ndarray,
    windows: np.ndarray,
    windows_across: int,
    cell: tuple[int, int],
    *,
    left: int,
    top: int = 0,
) -> None:
    """Pixels tinted by the tokens' windows (rows, columns), with lines around tokens and windows."""
    # neighbors, across a corner too, differ in color, and mostly so where the map's borders meet
    color = (windows // windows_across * 3 + windows % windows_across) % len(COLORS)
    tints = np.array(COLORS)[color].repeat(cell[0], axis=0).repeat(cell[1], axis=1)
    canvas.paste(mixed(pixels, tints, 0.42), (top, left), pixels.shape[:2])
    rows, columns = windows.shape
    bottom, right = top + rows * cell[0], left + columns * cell[1]
    if min(cell) >= 6:
        for i in range(1, rows):
            canvas.line([(top + i * cell[0], left), (top + i * cell[0], right)], PAPER, 0.5)
        for j in range(1, columns):
            canvas.line([(top, left + j * cell[1]), (bottom, left + j * cell[1])], PAPER, 0.5)
    for i, j in np.ndindex(rows, columns):
        y, x = top + i * cell[0], left + j * cell[1]
        if i and windows[i, j] != windows[i - 1, j]:
            canvas.line([(y, x), (y, x + cell[1])], INK, 2)
        if j and windows[i, j] != windows[i, j - 1]:
            canvas.line([(y, x), (y + cell[0], x)], INK, 2)
    canvas.rectangle((top, left), (bottom - top, right - left), outline=INK, width=2)


# --- masks ------------------------------------------------------------------------------------------------------------


def draw_mask(mask: np.ndarray) -> Image:
    """The masks of all windows, side by side: white where a query sees a key, black where it does not.

    mask: (windows, N, N), what is added to the scores (keys, queries): 0 where they see each other, a large negative
    number where not, as `minidat.ops.shifted_window_mask` makes it. Rows are keys, columns are queries. The masks of a
    square map stand as its windows do. Raises ShapeError for another kind of array.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3 or mask.shape[1] != mask.shape[2] or not mask.size or mask.dtype.kind not in "biuf":
        raise ShapeError(f"mask: found shape {mask.shape} of {mask.dtype}, expected (windows, N, N) of numbers")
    count, tokens = mask.shape[:2]
    across = math.ceil(math.sqrt(count))
    down = -(-count // across)
    cell = max(1, min(24, 600 // (across * tokens)))
    side = cell * tokens
    names = [f"window {i}" if side >= 80 else str(i) for i in range(count)]
    title = round(1.6 * LETTERS) if side >= text_width(names[-1], LETTERS) else 4
    bottom = GAP // 2 + down * (side + title + GAP)
    canvas = Canvas((bottom + 2 * LETTERS, max(across * (side + GAP) + GAP, 320)))
    for i, tile in enumerate(mask):
        top, left = GAP // 2 + title + i // across * (side + title + GAP), GAP + i % across * (side + GAP)
        if title >= LETTERS:
            canvas.text((top - 6, left), names[i], size=LETTERS, anchor="ls")
        pixels = np.where((tile == 0)[..., np.newaxis], PAPER, INK).astype(np.uint8)
        canvas.paste(pixels, (top, left), (side, side), smooth=False)
        if cell >= 8:
            for k in range(1, tokens):
                canvas.line([(top + k * cell, left), (top + k * cell, left + side)], RULE, 0.5)
                canvas.line([(top, left + k * cell), (top + side, left + k * cell)], RULE, 0.5)
        canvas.rectangle((top - 1, left - 1), (side + 2, side + 2), outline=FAINT)
    caption = "rows: keys, columns: queries; black: kept apart"
    canvas.text((bottom + LETTERS / 2, GAP), caption, size=LETTERS, color=FAINT, anchor="lm")
    return canvas.picture()


# --- attention maps ---------------------------------------------------------------------------------------------------


def draw_attention(
    image: np.ndarray,
    probabilities: np.ndarray,
    *,
    query: tuple[int, int] | None = None,
    side: int = PHOTOGRAPH_SIDE,
) -> Image:
    """A heat map over a picture, which is shown in gray: how much attention each token gets.

    image: (H, W, 3) uint8; probabilities: (rows, columns), not negative, over the tokens of a map that covers the
    picture; query: (row, column) of the token that attends, which gets a white frame; side: pixels of the picture's
    longer side, beside which a bar tells the colors: dark for 0, light for the largest value. Raises ShapeError for
    other kinds of arrays, ConfigError for values that are negative or not finite, and for a query beside the map.
    """
    check_image(image)
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or not probabilities.size or probabilities.dtype.kind not in "biuf":
        raise ShapeError(
            f"probabilities: found shape {probabilities.shape} of {probabilities.dtype}, expected (rows, columns) of "
            "numbers"
        )
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ConfigError("probabilities: found values that are negative or not finite, expected all at least 0")
    if query is not None:
        check_query(query, probabilities.shape)

    height, width = fit(image.shape, side)
    rows, columns = probabilities.shape
    bar_left, bar_width = width + GAP, 14
    canvas = Canvas((height, bar_left + bar_width + 52))
    share = probabilities / (probabilities.max() or 1)
    size = FINE * height, FINE * width
    cells = share[np.arange(size[0]) * rows // size[0]][:, np.arange(size[1]) * columns // size[1]]  # of that size
    photograph = faded(resize_image(image, size))
    strength = (0.25 + 0.55 * np.sqrt(cells))[..., np.newaxis]  # what gets little attention stays to be seen
    canvas.paste(mixed(photograph, colors_of(cells, HEAT), strength), (0, 0), (height, width))
    if query is not None:
        cell = height / rows, width / columns
        canvas.frame((query[0] * cell[0], query[1] * cell[1]), cell)

    shades = colors_of(np.linspace(1, 0, FINE * height)[:, np.newaxis], HEAT)
    canvas.paste(shades, (0, bar_left), (height, bar_width), smooth=False)
    numbers_left = bar_left + bar_width + 6
    canvas.text((1, numbers_left), _short(float(probabilities.max())), size=LETTERS, anchor="lt")
    canvas.text((height - 1, numbers_left), "0", size=LETTERS, anchor="ls")
    return canvas.picture()


# --- matrices ---------------------------------------------------------------------------------------------------------

MOST_NUMBERS = 16  # rows or columns of a matrix whose numbers are written out
LARGEST_MATRIX = 4096


def draw_matrix(array: np.ndarray, *, labels: tuple[Sequence[str], Sequence[str]] | None = None) -> Image:
    """A matrix as colored cells, with its numbers if it has at most 16 rows and columns.

    array: (rows, columns) of numbers. If none is negative, 0 is white and the largest dark blue; otherwise negative
    numbers are orange, positive ones blue, and 0 is white. What is not finite is gray. labels: the names of the rows
    and those of the columns, shown as far as there is room. Raises ShapeError for another kind of array, ConfigError
    for other numbers of labels.
    """
    array = np.asarray(array)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf" or max(array.shape) > LARGEST_MATRIX:
        raise ShapeError(
            f"array: found shape {array.shape} of {array.dtype}, expected (rows, columns) of numbers, at most "
            f"{LARGEST_MATRIX} of either"
        )
    rows, columns = array.shape
    if labels is not None and (len(labels) != 2 or tuple(map(len, labels)) != array.shape):
        found = tuple(map(len, labels))
        raise ConfigError(f"labels: found {found} names, expected {rows} for the rows and {columns} for the columns")

    numbered = max(rows, columns) <= MOST_NUMBERS
    texts = [[_number(value) for value in row] for row in array.tolist()] if numbered else []
    widest = max((text_width(text, LETTERS) for row in texts for text in row), default=0)
    cell_height = 30 if numbered else max(1, min(30, 480 // max(rows, columns)))
    cell_width = max(cell_height, math.ceil(widest) + 12 if numbered else 0)
    if labels is not None and numbered:
        cell_width = max(cell_width, math.ceil(max(text_width(name, LETTERS) for name in labels[1])) + 10)
    named = labels is not None and cell_height >= LETTERS
    left = math.ceil(max(text_width(name, LETTERS) for name in labels[0])) + 12 if labels and named else 4
    top = 26 if labels and named and numbered else 4
    canvas = Canvas((top + rows * cell_height + 4, left + columns * cell_width + 4))

    finite = np.isfinite(array)
    values = np.where(finite, array, 0).astype(float)
    largest = np.abs(values).max() or 1.0
    if (values < 0).any():
        pixels = colors_of((values / largest + 1) / 2, DIVERGING)
    else:
        pixels = colors_of(values / largest, BLUES)
    pixels[~finite] = NOTHING
    box = rows * cell_height, columns * cell_width
    canvas.paste(pixels, (top, left), box, smooth=False)
    if min(cell_height, cell_width) >= 8:
        for i in range(1, rows):
            canvas.line([(top + i * cell_height, left), (top + i * cell_height, left + box[1])], PAPER, 1)
        for j in range(1, columns):
            canvas.line([(top, left + j * cell_width), (top + box[0], left + j * cell_width)], PAPER, 1)
    canvas.rectangle((top - 1, left - 1), (box[0] + 2, box[1] + 2), outline=FAINT)

    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            dark = lightness(pixels[i, j]) < 140
            center = top + (i + 0.5) * cell_height, left + (j + 0.5) * cell_width
            canvas.text(center, text, size=LETTERS, color=PAPER if dark else INK)
    if labels is not None and named:
        for i, name in enumerate(labels[0]):
            canvas.text((top + (i + 0.5) * cell_height, left - 7), name, size=LETTERS, anchor="rm")
        for j, name in enumerate(labels[1] if numbered else ()):
            canvas.text((top - 8, left + (j + 0.5) * cell_width), name, size=LETTERS, anchor="ms")
    return canvas.picture()


def _number(value: float) -> str:
    """Integers in full, fractions with three digits that count: 12, 0.25, -1.5, 3.2e-05."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(int(value)) if isinstance(value, int) else str(value)
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    return f"{value:.2f}" if 0.01 <= abs(value) < 100 else f"{value:.2g}"


def _short(value: float) -> str:
    """At most five characters: 0.07, 1, 2e-06."""
    return f"{value:.2f}" if 0.095 <= value < 1 else f"{value:.2g}"
