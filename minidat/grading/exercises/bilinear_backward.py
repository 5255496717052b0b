"""Chapter 7: the two gradients of bilinear sampling."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..exercise import Exercise, Function, Hints, Mistake
from .bilinear import SIZES, case, pixels, read, sample


def d_positions(x: np.ndarray, positions: np.ndarray, d_output: np.ndarray) -> np.ndarray:
    return sample(x, positions)[1](d_output)[1]


def d_pixels(x: np.ndarray, positions: np.ndarray, d_output: np.ndarray) -> np.ndarray:
    """The derivatives by the pixel coordinates: from each pixel to the next, the samples change linearly."""
    low = np.floor(pixels(x, positions))
    y, column = low.T
    fy, fx = (pixels(x, positions) - low).T[..., None]
    along_y = (1 - fx) * (read(x, y + 1, column) - read(x, y, column)) + fx * (
        read(x, y + 1, column + 1) - read(x, y, column + 1)
    )
    along_x = (1 - fy) * (read(x, y, column + 1) - read(x, y, column)) + fy * (
        read(x, y + 1, column + 1) - read(x, y + 1, column)
    )
    return np.stack([(along * d_output).sum(axis=1) for along in (along_y, along_x)], axis=-1)


def d_map_without_repeats(
    x: np.ndarray, positions: np.ndarray, d_output: np.ndarray, *, outside: bool = True
) -> np.ndarray:
    """d_x[y, x] += ... with arrays of indices: of several points at one pixel only the last counts.

    outside: points outside the map count too, with a weight of 0 at the nearest pixel; otherwise they are left out.
    """
    height, width, _ = x.shape
    low = np.floor(pixels(x, positions)).astype(int)
    fraction = pixels(x, positions) - low
    d_x = np.zeros_like(x)
    for dy, weight_y in ((0, 1 - fraction[:, 0]), (1, fraction[:, 0])):
        for dx, weight_x in ((0, 1 - fraction[:, 1]), (1, fraction[:, 1])):
            y, column = low[:, 0] + dy, low[:, 1] + dx
            inside = (y >= 0) & (y < height) & (column >= 0) & (column < width)
            share = (weight_y * weight_x * inside)[:, None] * d_output
            counted = slice(None) if outside else inside
            d_x[y.clip(0, height - 1)[counted], column.clip(0, width - 1)[counted]] += share[counted]
    return d_x


REPEATS = (
    "points that share a pixel overwrite each other: `d_x[rows, columns] += ...` counts a repeated index once. "
    "np.add.at(d_x, (rows, columns), ...) adds them all"
)

EXERCISE = Exercise(
    chapter="07-bilinear-sampling",
    functions=(
        Function(
            name="bilinear",
            hints=Hints(
                where="`corners` holds all that is needed. What does output[n] depend on? On four pixels, each with a "
                "weight, and on the position through the four weights. Which pixels do two samples share?",
                idea="d_x: each sample gives weight * d_output[n] to its four pixels; d_x[rows, columns] += ... "
                "forgets all but one of the samples at a pixel, np.add.at(d_x, (rows, columns), ...) does not. "
                "d_positions: d_output[n] . x[row, column], a sum over the channels, times the derivative of the "
                "weight; that is by pixels, and a step of 1 in positions is not one pixel.",
                formula="at each corner, with inside as a factor of everything,\n"
                "    d_x gets weight_y * weight_x * d_output\n"
                "    d_py gets slope_y * weight_x * (d_output . x[row, column])\n"
                "    d_px gets slope_x * weight_y * (d_output . x[row, column])\n"
                "and, as a step of 1 in positions is (n - 1) / 2 pixels,\n"
                "    d_positions = d_py * (H - 1) / 2,  d_px * (W - 1) / 2",
            ),
            sizes=SIZES,
            case=case,
            reference=sample,
            gradients=("x", "positions"),
            fixed=frozenset({"positions"}),
            mistakes=(
                Mistake("d_x", REPEATS, d_map_without_repeats),
                Mistake("d_x", REPEATS, partial(d_map_without_repeats, outside=False)),
                Mistake(
                    "d_positions", "y and x are swapped: d_positions[:, 0] is the derivative by y",
                    lambda x, positions, d_output: d_positions(x, positions, d_output)[:, ::-1],
                ),
                Mistake(
                    "d_positions", "the factor (n - 1) / 2 is missing: a step in positions is (n - 1) / 2 pixels",
                    d_pixels,
                ),
                Mistake(
                    "d_positions", "the factor is n - 1 where it should be (n - 1) / 2: positions run from -1 to 1",
                    lambda x, positions, d_output: 2 * d_positions(x, positions, d_output),
                ),
            ),
        ),
    ),
)  # fmt: skip
