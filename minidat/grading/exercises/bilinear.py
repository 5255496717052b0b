"""Chapter 7: reading a map between its pixels; what the wrong ways have in common is shared with its backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

SIZES = {"height": (1, 2, 3, 5), "width": (1, 2, 3, 5), "channels": (1, 2), "points": (1, 2, 3)}


def case(numbers: Numbers, *, height: int, width: int, channels: int, points: int) -> dict[str, Any]:
    return {
        "x": numbers.normal(height, width, channels),
        "positions": numbers.positions(points, height, width),
    }


def sample(
    x: np.ndarray, positions: np.ndarray, *, align_corners: bool = True
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """ops.grid_sample of one map (H, W, C) at a list of points (N, 2) -> (N, C)."""
    output, backward = ops.grid_sample(x[None], positions[None, None, None], align_corners=align_corners)

    def backward_of_one(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_x, d_positions = backward(d_output[None, None])
        return d_x[0], d_positions[0, 0, 0]

    return output[0, 0], backward_of_one


def forward(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return sample(x, positions)[0]


def pixels(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N, 2) pixel coordinates (y, x)."""
    return (positions + 1) / 2 * (np.array(x.shape[:2]) - 1)


def read(x: np.ndarray, y: np.ndarray, column: np.ndarray, *, clamp: bool = False) -> np.ndarray:
    """x at whole pixels: (N, C), zeros outside the map, or the nearest pixel."""
    height, width, _ = x.shape
    inside = (y >= 0) & (y < height) & (column >= 0) & (column < width)
    values = x[y.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int)]
    return values if clamp else values * inside[:, None]


Weight = tuple[int, int]  # 1 - f or f: the axis of the fraction f, and that of the step which chooses between the two
OF_Y, OF_X, FX_FOR_FY, FY_FOR_FX = (0, 0), (1, 1), (1, 0), (0, 1)  # two right ones, and two that are mixed up


def corner_weight(fraction: np.ndarray, step: tuple[int, ...], weights: tuple[Weight, ...] = (OF_Y, OF_X)) -> Any:
    """The product of some weights, (N,). fraction: (N, 2); step: (dy, dx), each 0 or 1, from the pixel below."""
    return math.prod(fraction[:, f] if step[s] else 1 - fraction[:, f] for f, s in weights)


def four_pixels(
    x: np.ndarray,
    p: np.ndarray,
    *,
    weights: tuple[Weight, Weight] = (OF_Y, OF_X),
    exchanged: tuple[int, ...] = (),
    clamp: bool = False,
) -> np.ndarray:
    """Bilinear sampling once more, at pixel coordinates p (N, 2), with the ways to go wrong as settings.

    exchanged: the axes on which the near pixel has the weight of the far one.
    """
    low = np.floor(p)
    fraction = p - low
    for axis in exchanged:
        fraction[:, axis] = 1 - fraction[:, axis]
    output = np.zeros((len(p), x.shape[2]))
    for dy, dx in np.ndindex(2, 2):
        weight = corner_weight(fraction, (dy, dx), weights)
        output += weight[:, None] * read(x, low[:, 0] + dy, low[:, 1] + dx, clamp=clamp)
    return output


def nearest(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return read(x, *np.round(pixels(x, positions)).T)


def lower(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return read(x, *np.floor(pixels(x, positions)).T)


X_FOR_Y = "the weight of x stands where that of y should: a corner weighs the product of one of each"
Y_FOR_X = "the weight of y stands where that of x should: a corner weighs the product of one of each"

EXERCISE = Exercise(
    chapter="07-bilinear-sampling",
    functions=(
        Function(
            name="bilinear",
            hints=Hints(
                where="For one point by hand: which are its four pixels? x[rows, columns] with two arrays of N "
                "integers reads N pixels at once, (N, C); weights (N,) need another axis, weights[:, None].",
                idea="Loop over the four corners (dy, dx) of 0 and 1: the pixel is (floor(py) + dy, floor(px) + dx), "
                "its weight the product of one for y and one for x. For a pixel outside, clip its index, so that it "
                "can be read, and set its weight to 0.",
                formula="with fy = py - floor(py), fx = px - floor(px), the corners (0, 0), (0, 1), (1, 0), (1, 1) "
                "weigh\n"
                "    (1 - fy) (1 - fx),   (1 - fy) fx,   fy (1 - fx),   fy fx",
            ),
            sizes=SIZES,
            case=case,
            reference=forward,
            fixed=frozenset({"positions"}),
            mistakes=(
                Mistake(
                    "output", "y and x are swapped: positions[:, 0] is y, positions[:, 1] is x",
                    lambda x, positions: forward(x, positions[:, ::-1]),
                ),
                Mistake(
                    "output", "-1 and 1 are taken for the edges of the map: here they are the centers of the first and "
                    "last pixel, so that p = (position + 1) / 2 * (n - 1)",
                    lambda x, positions: sample(x, positions, align_corners=False)[0],
                ),
                Mistake(
                    "output", "positions are scaled by n: from the first to the last pixel there are n - 1 steps",
                    lambda x, positions: four_pixels(x, (positions + 1) / 2 * x.shape[:2]),
                ),
                Mistake(
                    "output", "only the nearest pixel is read: all four around the point have a weight",
                    nearest,
                ),
                Mistake(
                    "output", "only the pixel above and to the left is read: all four around the point have a weight",
                    lower,
                ),
                Mistake(
                    "output", "points outside read the pixel at the border: outside the map there are zeros",
                    lambda x, positions: four_pixels(x, pixels(x, positions), clamp=True),
                ),
                Mistake(
                    "output", "the weights are exchanged: the nearer a pixel, the larger its weight, so that the lower "
                    "pixel has 1 - fraction",
                    lambda x, positions: four_pixels(x, pixels(x, positions), exchanged=(0, 1)),
                ),
                Mistake(
                    "output", X_FOR_Y,
                    lambda x, positions: four_pixels(x, pixels(x, positions), weights=(FX_FOR_FY, OF_X)),
                ),
                Mistake(
                    "output", X_FOR_Y,
                    lambda x, positions: four_pixels(x, pixels(x, positions), weights=(OF_X, OF_X)),
                ),
                Mistake(
                    "output", Y_FOR_X,
                    lambda x, positions: four_pixels(x, pixels(x, positions), weights=(OF_Y, FY_FOR_FX)),
                ),
                Mistake(
                    "output", Y_FOR_X,
                    lambda x, positions: four_pixels(x, pixels(x, positions), weights=(OF_Y, OF_Y)),
                ),
                Mistake(
                    "output", "the weights of y and x are swapped: that of y is made of positions[:, 0]",
                    lambda x, positions: four_pixels(x, pixels(x, positions), weights=(FX_FOR_FY, FY_FOR_FX)),
                ),
                Mistake(
                    "output", "the weights of y are exchanged: the nearer a pixel, the larger its weight",
                    lambda x, positions: four_pixels(x, pixels(x, positions), exchanged=(0,)),
                ),
                Mistake(
                    "output", "the weights of x are exchanged: the nearer a pixel, the larger its weight",
                    lambda x, positions: four_pixels(x, pixels(x, positions), exchanged=(1,)),
                ),
                Mistake(
                    "output", "both coordinates are made of positions[:, 1]: y is positions[:, 0]",
                    lambda x, positions: forward(x, positions[:, [1, 1]]),
                ),
                Mistake(
                    "output", "both coordinates are made of positions[:, 0]: x is positions[:, 1]",
                    lambda x, positions: forward(x, positions[:, [0, 0]]),
                ),
                Mistake(
                    "output", "the weights are exchanged, and points outside read the pixel at the border",
                    lambda x, positions: four_pixels(x, pixels(x, positions), exchanged=(0, 1), clamp=True),
                ),
            ),
        ),
    ),
)  # fmt: skip
