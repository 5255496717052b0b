"""Chapter 6: the mask of shifted windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, window_rows: int, window_columns: int, window: int, shift: int) -> dict[str, Any] | None:
    if shift >= window:
        return None
    return {"height": window_rows * window, "width": window_columns * window, "window": window, "shift": shift}


def right(height: int, width: int, window: int, shift: int) -> np.ndarray:
    return ops.shifted_window_mask(height, width, window=window, shift=shift)


def mask_of_regions(regions_y: np.ndarray, regions_x: np.ndarray, window: int, *, factor: int = 3) -> np.ndarray:
    """The mask, from the number of each row's and column's region: together, they are y * factor + x."""
    regions = regions_y[:, None] * factor + regions_x
    windows = ops.window_partition(regions[None, :, :, None], window=window)[0][..., 0]
    return np.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0)


def line(size: int, window: int, shift: int) -> np.ndarray:
    """0 for what stayed in whole windows, 1 for the rest of the last window, 2 for what was rolled around."""
    i = np.arange(size)
    return (i >= size - window).astype(int) + (i >= size - shift)


def rolled_first(size: int, shift: int) -> np.ndarray:
    """As if what is rolled around came first."""
    return (np.arange(size) < shift).astype(int)


def edge(size: int, shift: int) -> np.ndarray:
    """1 for the last `shift`, 0 before: with the right shift these two regions make the same mask as the three."""
    return (np.arange(size) >= size - shift).astype(int)


EXERCISE = Exercise(
    chapter="06-shifted-windows",
    functions=(
        Function(
            name="shifted_window_mask",
            hints=Hints(
                where="Draw the rolled map of 4 x 4 tokens with w = 2 and shift = 1, and color the tokens that were "
                "neighbors before rolling. How many colors does the last window have?",
                idea="Make a map (H, W) with a different number in each of the nine regions, cut it into windows as in "
                "the exercise before, and compare the numbers of every two tokens of a window.",
                formula="number a token 3 * region of its row + region of its column, the regions being 0, 1, 2. With "
                "numbers (windows, w * w),\n"
                "    same = numbers[:, :, None] == numbers[:, None, :]\n"
                "    mask = np.where(same, 0.0, -100.0)",
            ),
            sizes={"window_rows": (1, 2, 3), "window_columns": (1, 2, 3), "window": (2, 3, 4), "shift": (1, 2, 3)},
            case=case,
            reference=right,
            outputs=("mask",),
            mistakes=(
                Mistake(
                    "mask", "the mask is inverted: -100 belongs where two tokens come from different regions",
                    lambda height, width, window, shift: -100 - right(height, width, window, shift),
                ),
                Mistake(
                    "mask", "the sign is wrong: a score must be lowered, by -100, for its probability to vanish",
                    lambda height, width, window, shift: -right(height, width, window, shift),
                ),
                Mistake(
                    "mask", "the mask says True or 1 where two tokens may look at each other: it should hold what is "
                    "added to their score, 0 there and -100 elsewhere",
                    lambda height, width, window, shift: 1 + right(height, width, window, shift) / 100,
                ),
                Mistake(
                    "mask", "the mask says True or 1 where two tokens may not look at each other: it should hold what "
                    "is added to their score, -100 there and 0 elsewhere",
                    lambda height, width, window, shift: -right(height, width, window, shift) / 100,
                ),
                Mistake(
                    "mask", "the mask has minus infinity where it should have -100",
                    lambda height, width, window, shift: np.where(
                        right(height, width, window, shift) == 0, 0, -np.inf),
                ),
                Mistake(
                    "mask", "only the rows are told apart: the map is rolled along x too, and has nine regions",
                    lambda height, width, window, shift: mask_of_regions(
                        line(height, window, shift), 0 * np.arange(width), window),
                ),
                Mistake(
                    "mask", "only the columns are told apart: the map is rolled along y too, and has nine regions",
                    lambda height, width, window, shift: mask_of_regions(
                        0 * np.arange(height), line(width, window, shift), window),
                ),
                Mistake(
                    "mask", "the region that was rolled around is put first: rolling up and to the left brings the "
                    "first rows and columns to the end",
                    lambda height, width, window, shift: mask_of_regions(
                        rolled_first(height, shift), rolled_first(width, shift), window),
                ),
                Mistake(
                    "mask", "window - shift is taken for shift: the last `shift` rows and columns are those that were "
                    "rolled around",
                    lambda height, width, window, shift: mask_of_regions(
                        edge(height, window - shift), edge(width, window - shift), window),
                ),
                Mistake(
                    "mask", "the regions of rows and columns are added without a weight, so that different regions "
                    "(1 + 0 and 0 + 1) get the same number",
                    lambda height, width, window, shift: mask_of_regions(
                        line(height, window, shift), line(width, window, shift), window, factor=1),
                ),
            ),
        ),
    ),
)  # fmt: skip
