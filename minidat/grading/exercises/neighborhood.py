"""Chapter 14: which keys a query of neighborhood attention sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

Line = Callable[[int, int], np.ndarray]  # (size, kernel) -> (size, kernel) indices on one axis


def case(numbers: Numbers, *, height: int, width: int, kernel: int) -> dict[str, Any] | None:
    if min(height, width) < kernel:
        return None
    return {"height": height, "width": width, "kernel": kernel}


def numbered(height: int, width: int, kernel: int, row_length: int) -> np.ndarray:
    """The numbers y * row_length + x of the keys: (H, W, kernel * kernel)."""
    tokens = ops.neighborhood_tokens(height, width, kernel=kernel).reshape(height, width, -1, 2)
    return tokens[..., 0] * row_length + tokens[..., 1]


def reference(height: int, width: int, kernel: int) -> np.ndarray:
    return numbered(height, width, kernel, width)


def centered(size: int, kernel: int) -> np.ndarray:
    return np.arange(size)[:, None] + np.arange(kernel) - kernel // 2


def repeated(size: int, kernel: int) -> np.ndarray:
    return centered(size, kernel).clip(0, size - 1)


def wrapped(size: int, kernel: int) -> np.ndarray:
    return centered(size, kernel) % size


def starting(size: int, kernel: int) -> np.ndarray:
    return np.clip(np.arange(size), 0, size - kernel)[:, None] + np.arange(kernel)


def last_excluded(size: int, kernel: int) -> np.ndarray:
    """As if the last window began at size - kernel - 1."""
    return np.clip(np.arange(size) - kernel // 2, 0, max(size - kernel - 1, 0))[:, None] + np.arange(kernel)


def start_clipped_only(size: int, kernel: int) -> np.ndarray:
    return np.maximum(np.arange(size) - kernel // 2, 0)[:, None] + np.arange(kernel)


def neighborhoods(line: Line) -> Callable[..., np.ndarray]:
    """Windows that are wrong on each axis alone."""

    def result(height: int, width: int, kernel: int) -> np.ndarray:
        rows, columns = line(height, kernel)[:, None, :, None], line(width, kernel)[None, :, None, :]
        return (rows * width + columns).reshape(height, width, -1)

    return result


def by_columns(height: int, width: int, kernel: int) -> np.ndarray:
    keys = reference(height, width, kernel).reshape(height, width, kernel, kernel)
    return keys.swapaxes(2, 3).reshape(height, width, -1)


EXERCISE = Exercise(
    chapter="14-datpp",
    functions=(
        Function(
            name="neighborhood",
            hints=Hints(
                where="Begin with one axis. The window of place i would begin at i - kernel // 2; which beginnings are "
                "allowed?",
                idea="An array of beginnings (n, 1) plus np.arange(kernel) gives all windows of an axis, (n, kernel). "
                "For two axes, rows (H, 1, kernel, 1) and columns (1, W, 1, kernel) broadcast to (H, W, kernel, "
                "kernel).",
                formula="a window begins at np.clip(np.arange(n) - kernel // 2, 0, n - kernel), and pixel (y, x) is "
                "number\n"
                "    y * W + x",
            ),
            sizes={"height": (1, 2, 3, 4, 5, 6, 7), "width": (1, 2, 3, 4, 5, 6, 7), "kernel": (1, 3, 5)},
            case=case,
            reference=reference,
            outputs=("indices",),
            mistakes=(
                Mistake(
                    "indices", "keys beyond the border are replaced by the last pixel, so that it is seen several "
                    "times: the whole window should slide inward instead",
                    neighborhoods(repeated),
                ),
                Mistake(
                    "indices", "windows reach beyond the border: near it, they should slide inward",
                    neighborhoods(centered),
                ),
                Mistake(
                    "indices", "windows wrap around the border: near it, they should slide inward",
                    neighborhoods(wrapped),
                ),
                Mistake(
                    "indices", "windows begin at their query: they should have it in the middle, so they begin at "
                    "i - kernel // 2",
                    neighborhoods(starting),
                ),
                Mistake(
                    "indices", "the last window begins one pixel too early: n - kernel is still allowed",
                    neighborhoods(last_excluded),
                ),
                Mistake(
                    "indices", "windows slide inward at the first border only: at the other end they must not begin "
                    "after n - kernel",
                    neighborhoods(start_clipped_only),
                ),
                Mistake(
                    "indices", "the number of pixel (y, x) is taken for y * height + x: a row has `width` pixels",
                    lambda height, width, kernel: numbered(height, width, kernel, height),
                ),
                Mistake(
                    "indices", "the keys of a window are listed column by column: they should come row by row",
                    by_columns,
                ),
                Mistake(
                    "indices", "height and width are swapped",
                    lambda height, width, kernel: reference(width, height, kernel),
                ),
                Mistake(
                    "indices", "y and x are swapped: pixels should be numbered row by row, y * width + x",
                    lambda height, width, kernel: reference(width, height, kernel).swapaxes(0, 1),
                ),
            ),
        ),
    ),
)  # fmt: skip
