"""Chapter 7: the two gradients of bilinear sampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..exercise import Exercise, Function, Hints, Mistake
from .bilinear import (
    FX_FOR_FY,
    FY_FOR_FX,
    OF_X,
    OF_Y,
    SIZES,
    X_FOR_Y,
    Y_FOR_X,
    Weight,
    case,
    corner_weight,
    pixels,
    read,
    sample,
)  # fmt: skip


def d_positions(x: np.ndarray, positions: np.ndarray, d_output: np.ndarray) -> np.ndarray:
    return sample(x, positions)[1](d_output)[1]


def d_pixels(
    x: np.ndarray,
    positions: np.ndarray,
    d_output: np.ndarray,
    *,
    weights: tuple[Weight | None, Weight | None] = (OF_X, OF_Y),
    clamp: bool = False,
) -> np.ndarray:
    """The derivatives by the pixel coordinates: a corner's slope, -1 or 1, times its weight on the other axis.

    weights: what the slopes of y and x are multiplied by; None: by nothing. clamp: pixels outside are read as those at
    the border.
    """
    low = np.floor(pixels(x, positions))
    fraction = pixels(x, positions) - low
    d = np.zeros_like(positions)
    for step in np.ndindex(2, 2):
        agreement = (d_output * read(x, *(low + step).T, clamp=clamp)).sum(axis=1)
        for axis, weight in enumerate(weights):
            factor = 1 if weight is None else corner_weight(fraction, step, (weight,))
            d[:, axis] += agreement * (2 * step[axis] - 1) * factor
    return d


def wrong_d_positions(**change: Any) -> Callable[..., np.ndarray]:
    def result(x: np.ndarray, positions: np.ndarray, d_output: np.ndarray) -> np.ndarray:
        return d_pixels(x, positions, d_output, **change) * (np.array(x.shape[:2]) - 1) / 2

    return result


def d_map(
    x: np.ndarray,
    positions: np.ndarray,
    d_output: np.ndarray,
    *,
    weights: tuple[Weight, Weight] = (OF_Y, OF_X),
    masked: bool = True,
    repeats: bool = True,
    outside: bool = True,
) -> np.ndarray:
    """d_x, with the ways to go wrong as settings.

    masked: pixels outside have the weight 0. repeats: points that share a pixel add up, as with np.add.at; otherwise,
    as with d_x[y, x] += ..., only the last counts. outside: then points outside count too, at the nearest pixel.
    """
    height, width, _ = x.shape
    low = np.floor(pixels(x, positions)).astype(int)
    fraction = pixels(x, positions) - low
    d_x = np.zeros_like(x)
    for dy, dx in np.ndindex(2, 2):
        y, column = low[:, 0] + dy, low[:, 1] + dx
        inside = (y >= 0) & (y < height) & (column >= 0) & (column < width)
        weight = corner_weight(fraction, (dy, dx), weights) * (inside if masked else 1)
        counted = slice(None) if outside else inside
        place = y.clip(0, height - 1)[counted], column.clip(0, width - 1)[counted]
        share = (weight[:, None] * d_output)[counted]
        if repeats:
            np.add.at(d_x, place, share)
        else:
            d_x[place] += share
    return d_x


OWN_WEIGHT = (
    "a slope is multiplied by the weight of its own axis: the derivative of weight_y * weight_x by y is slope_y * "
    "weight_x, that by x slope_x * weight_y"
)
NO_WEIGHT = (
    "a slope is not multiplied by the other weight: the derivative of weight_y * weight_x by y is slope_y * weight_x, "
    "that by x slope_x * weight_y"
)
NO_MASK = (
    "the mask `inside` is forgotten: the index of a pixel outside the map is clipped, but nothing was read there, so "
    "it gets no gradient and gives none"
)
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
                Mistake("d_x", REPEATS, partial(d_map, repeats=False)),
                Mistake("d_x", REPEATS, partial(d_map, repeats=False, outside=False)),
                Mistake("d_x", NO_MASK, partial(d_map, masked=False)),
                Mistake("d_x", X_FOR_Y, partial(d_map, weights=(OF_X, OF_X))),
                Mistake("d_x", X_FOR_Y, partial(d_map, weights=(FX_FOR_FY, OF_X))),
                Mistake("d_x", Y_FOR_X, partial(d_map, weights=(OF_Y, OF_Y))),
                Mistake("d_x", Y_FOR_X, partial(d_map, weights=(OF_Y, FY_FOR_FX))),
                Mistake(
                    "d_positions", "y and x are swapped: d_positions[:, 0] is the derivative by y",
                    lambda x, positions, d_output: d_positions(x, positions, d_output)[:, ::-1],
                ),
                Mistake(
                    "d_positions", "the factor (n - 1) / 2 is missing: a step in positions is (n - 1) / 2 pixels",
                    d_pixels,
                ),
                Mistake("d_positions", NO_MASK, wrong_d_positions(clamp=True)),
                *(
                    Mistake("d_positions", text, wrong_d_positions(weights=weights))
                    for text, of_y, of_x in (
                        (OWN_WEIGHT, OF_Y, OF_X), (OWN_WEIGHT, FY_FOR_FX, FX_FOR_FY), (NO_WEIGHT, None, None),
                    )
                    for weights in ((of_y, of_x), (of_y, OF_Y), (OF_X, of_x))
                ),
                Mistake(
                    "d_positions", "the factor is n - 1 where it should be (n - 1) / 2: positions run from -1 to 1",
                    lambda x, positions, d_output: 2 * d_positions(x, positions, d_output),
                ),
            ),
        ),
    ),
)  # fmt: skip
