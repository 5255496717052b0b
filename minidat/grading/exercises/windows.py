"""Chapter 5: cutting a map into windows, and putting them back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

SIZES = {
    "batch": (1, 2), "window_rows": (1, 2, 3), "window_columns": (1, 2, 3), "window": (1, 2, 3), "channels": (1, 2),
}  # fmt: skip


def partition_case(
    numbers: Numbers, *, batch: int, window_rows: int, window_columns: int, window: int, channels: int
) -> dict[str, Any]:
    return {"x": numbers.counted(batch, window_rows * window, window_columns * window, channels), "window": window}


def reverse_case(
    numbers: Numbers, *, batch: int, window_rows: int, window_columns: int, window: int, channels: int
) -> dict[str, Any]:
    return {
        "windows": numbers.counted(batch * window_rows * window_columns, window * window, channels),
        "window": window,
        "height": window_rows * window,
        "width": window_columns * window,
    }


def partition(x: np.ndarray, *, window: int) -> np.ndarray:
    return ops.window_partition(x, window=window)[0]


def reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    return ops.window_reverse(windows, window=window, height=height, width=width)[0]


def by_columns(x: np.ndarray, window: int) -> np.ndarray:
    """Windows in column-major order, tokens in row-major order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(0, 3, 1, 2, 4, 5).reshape(-1, window * window, channels)


def flipped_tokens(windows: np.ndarray, window: int) -> np.ndarray:
    """The tokens of each window in column-major order."""
    return windows.reshape(-1, window, window, windows.shape[-1]).swapaxes(1, 2).reshape(windows.shape)


EXERCISE = Exercise(
    chapter="05-windows",
    functions=(
        Function(
            name="window_partition",
            hints=Hints(
                where="A reshape keeps the order in memory: for a row of the map that is first the columns of the "
                "first window, then those of the second. Into which two axes does each of H and W fall apart?",
                idea="H falls apart into (H/w, w), W into (W/w, w). One swap of two of the six axes brings the rows of "
                "a window together. -1 in a reshape stands for the number that fits.",
                formula="x.reshape(B, H // w, w, W // w, w, C).swapaxes(2, 3).reshape(-1, w * w, C)",
            ),
            sizes=SIZES,
            case=partition_case,
            reference=partition,
            outputs=("windows",),
            fixed=frozenset({"x"}),
            mistakes=(
                Mistake(
                    "windows", "the map is cut in memory order: the rows of a window must first come together (swap "
                    "the axis of rows in a window with the axis of columns of windows)",
                    lambda x, window, channels: x.reshape(-1, window * window, channels),
                ),
                Mistake(
                    "windows", "the windows are listed column by column: they should come row by row, as one reads",
                    by_columns,
                ),
                Mistake(
                    "windows", "the tokens within a window are listed column by column: they should come row by row",
                    lambda x, window: flipped_tokens(partition(x, window=window), window),
                ),
                Mistake(
                    "windows", "y and x are swapped: both the windows and their tokens are listed column by column",
                    lambda x, window: partition(x.swapaxes(1, 2), window=window),
                ),
            ),
        ),
        Function(
            name="window_reverse",
            hints=Hints(
                where="It is window_partition run backwards: which shape did the array have before the last reshape?",
                idea="Reshape to six axes, with the windows' rows and columns in front of those inside a window, swap "
                "the same two axes back, flatten. -1 can stand for the batch.",
                formula="windows.reshape(-1, height // w, width // w, w, w, C).swapaxes(2, 3).reshape(-1, height, "
                "width, C)",
            ),
            sizes=SIZES,
            case=reverse_case,
            reference=reverse,
            outputs=("x",),
            fixed=frozenset({"windows"}),
            mistakes=(
                Mistake(
                    "x", "the windows are joined in memory order: the axes must be swapped back before the last "
                    "reshape",
                    lambda windows, height, width: windows.reshape(-1, height, width, windows.shape[-1]),
                ),
                Mistake(
                    "x", "y and x are swapped inside each window",
                    lambda windows, window, height, width: reverse(
                        flipped_tokens(windows, window), window=window, height=height, width=width),
                ),
                Mistake(
                    "x", "H / w and W / w are swapped in the first reshape: H / w, the rows of windows, comes first",
                    lambda windows, window, height, width, channels: windows.reshape(
                        -1, width // window, height // window, window, window, channels)
                    .swapaxes(2, 3).reshape(-1, height, width, channels),
                ),
                Mistake(
                    "x", "height and width are swapped",
                    lambda windows, window, height, width: reverse(
                        windows, window=window, height=width, width=height),
                ),
            ),
        ),
    ),
)  # fmt: skip
