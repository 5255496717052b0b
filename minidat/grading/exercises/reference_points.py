"""Chapter 8: reference points, and the offsets that move them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

SIZES = {"height": (1, 2, 3, 4), "width": (1, 2, 3, 4)}


def points_case(numbers: Numbers, *, height: int, width: int) -> dict[str, Any]:
    return {"height": height, "width": width}


def offsets_case(numbers: Numbers, *, height: int, width: int) -> dict[str, Any]:
    return {"offsets": numbers.normal(height, width, 2), "range_factor": 2.0}


def grid(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(H, W, 2) points (y, x)."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)


def points(height: int, width: int) -> np.ndarray:
    return grid(*(ops.reference_points(n, rule="dat", dtype=np.float64) for n in (height, width)))


def sampling_points(offsets: np.ndarray, *, range_factor: float) -> np.ndarray:
    return ops.sampling_points(offsets[None, None], rule="dat", range_factor=range_factor)[0][0, 0]


def of(offsets: np.ndarray) -> np.ndarray:
    """The reference points that belong to some offsets."""
    return points(*offsets.shape[:2])


def size(offsets: np.ndarray) -> np.ndarray:
    return np.array(offsets.shape[:2])


def cells(height: int, width: int, shift: float, span: float) -> np.ndarray:
    """Points (i + shift) / n * span - 1."""
    return grid(*((np.arange(n) + shift) / n * span - 1 for n in (height, width)))


EXERCISE = Exercise(
    chapter="08-reference-points",
    functions=(
        Function(
            name="reference_points",
            hints=Hints(
                where="Each coordinate depends on one index only: y on the row, x on the column. Try H = 2, W = 3.",
                idea='np.arange makes the line of each axis; np.meshgrid(rows, columns, indexing="ij") and np.stack '
                'on the last axis make (H, W, 2) of two lines. Without indexing="ij", meshgrid puts x first.',
                formula="rows = (np.arange(H) + 0.5) / H * 2 - 1, and columns alike with W; then\n"
                '    np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)',
            ),
            sizes=SIZES,
            case=points_case,
            reference=points,
            outputs=("points",),
            mistakes=(
                Mistake(
                    "points", "y and x are swapped: points[i, j] should be (y of row i, x of column j)",
                    lambda height, width: points(height, width)[..., ::-1],
                ),
                Mistake(
                    "points", "the first and last points lie at -1 and 1: they should be centers of cells, half a cell "
                    "inside",
                    lambda height, width: grid(*(np.linspace(-1, 1, n) for n in (height, width))),
                ),
                Mistake(
                    "points", "the points are at the corners of the cells: the 0.5 in i + 0.5 is missing",
                    lambda height, width: cells(height, width, 0, 2),
                ),
                Mistake(
                    "points", "the points lie in [0, 1]: they should be in [-1, 1]",
                    lambda height, width: cells(height, width, 0.5, 1) + 1,
                ),
                Mistake(
                    "points", "the points are in pixels: they should be in [-1, 1]",
                    lambda height, width: grid(np.arange(height), np.arange(width)),
                ),
                Mistake(
                    "points", "the points are in pixels: they should be in [-1, 1]",
                    lambda height, width: grid(np.arange(height) + 0.5, np.arange(width) + 0.5),
                ),
                Mistake(
                    "points", "height and width are swapped: np.meshgrid has the rows first with indexing='ij' only",
                    lambda height, width: points(height, width).swapaxes(0, 1),
                ),
                Mistake(
                    "points", "height and width are swapped: np.meshgrid has the rows first with indexing='ij' only",
                    lambda height, width: points(width, height),
                ),
            ),
        ),
        Function(
            name="sampling_points",
            hints=Hints(
                where="The offsets' own shape says how many points there are. Which axis do y and x lie on, and what "
                "is each of them divided by?",
                idea="np.array([H, W]) divides the last axis, of y and x, number by number. The tanh is taken of the "
                "offsets alone, before anything is scaled.",
                formula="reference_points(H, W) + np.tanh(offsets) * range_factor / np.array([H, W])",
            ),
            sizes=SIZES,
            case=offsets_case,
            reference=sampling_points,
            outputs=("positions",),
            mistakes=(
                Mistake(
                    "positions", "the tanh is missing",
                    lambda offsets, range_factor: of(offsets) + offsets * range_factor / size(offsets),
                ),
                Mistake(
                    "positions", "the division by the number of points is missing: range_factor is in half "
                    "cells, and half a cell is 1 / n",
                    lambda offsets, range_factor: of(offsets) + np.tanh(offsets) * range_factor,
                ),
                Mistake(
                    "positions", "y and x are swapped in the reach: the y of an offset belongs to the height",
                    lambda offsets, range_factor: of(offsets) + np.tanh(offsets) * range_factor / size(offsets)[::-1],
                ),
                Mistake(
                    "positions", "the range factor is missing",
                    lambda offsets: of(offsets) + np.tanh(offsets) / size(offsets),
                ),
                Mistake(
                    "positions", "the range is applied before the tanh: it is tanh(offsets) that is scaled, so that no "
                    "point moves farther than the range",
                    lambda offsets, range_factor: of(offsets) + np.tanh(offsets * range_factor / size(offsets)),
                ),
                Mistake(
                    "positions", "the tanh goes over reference and offset together: only the offset is squashed",
                    lambda offsets, range_factor: np.tanh(of(offsets) + offsets * range_factor / size(offsets)),
                ),
                Mistake(
                    "positions", "the reference points are missing: these are the offsets alone",
                    lambda offsets, range_factor: np.tanh(offsets) * range_factor / size(offsets),
                ),
            ),
        ),
    ),
)  # fmt: skip
