"""Resizing with two samples a place and axis, instead of a product with a matrix that is nearly all zeros.

Bilinear and nearest interpolation mix at most two neighbors. The columns are mixed once for each row of the map, then
rows are mixed, some of them at a time, which stay in the cache. A map that has the size already is its own answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops.resize import interpolation_matrix
from ..runtime.threads import cut, empty, parallel

ROWS_FLOATS = 524288  # of output rows worked on at once
ROWS_GRAIN = 131072  # numbers of the output that are worth waking a thread for

Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def resize(
    x: np.ndarray, *, size: tuple[int, int], method: str = "bilinear", align_corners: bool = False, keep: bool = True
) -> tuple[np.ndarray, Any]:
    """`ops.resize`; bicubic interpolation, and what raises an error, are left to it."""
    if method not in ("bilinear", "nearest") or x.ndim != 4 or 0 in x.shape or len(size) != 2 or min(size) < 1:
        output, plain_backward = ops.resize(x, size=size, method=method, align_corners=align_corners)
        return output, plain_backward if keep else None
    if tuple(size) == x.shape[1:3]:
        return x, (lambda d_output: (d_output,)) if keep else None
    batch, height, width, channels = x.shape
    new_height, new_width = size
    along_y = interpolation_matrix(height, new_height, method, align_corners).astype(x.dtype)  # (h, H)
    along_x = interpolation_matrix(width, new_width, method, align_corners).astype(x.dtype)  # (w, W)
    above, below, of_above, of_below = _taps(along_y)
    left, right, of_left, of_right = _taps(along_x)
    output = empty((batch, new_height, new_width, channels), x.dtype)
    row = new_width * channels
    step, grain = max(1, ROWS_FLOATS // row), 1 + ROWS_GRAIN // row
    tasks = [(i, part) for i in range(batch) for part in cut(new_height, step=step, grain=grain)]

    def work(start: int, stop: int) -> None:
        for i, part in tasks[start:stop]:
            first = above[part.start]
            rows = x[i, first : below[part.stop - 1] + 1]
            wide = rows.take(left, axis=1)
            wide *= of_left[:, None]
            second = rows.take(right, axis=1)
            second *= of_right[:, None]
            wide += second
            product = np.empty(wide.shape[1:], wide.dtype)
            for y in range(part.start, part.stop):
                np.multiply(wide[above[y] - first], of_above[y], out=output[i, y])
                np.multiply(wide[below[y] - first], of_below[y], out=product)
                output[i, y] += product

    parallel(work, len(tasks), grain=max(1, grain * len(tasks) // (batch * new_height)))
    if not keep:
        return output, None

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_rows = along_x.T @ d_output.reshape(batch * new_height, new_width, channels)
        d_x = along_y.T @ d_rows.reshape(batch, new_height, width * channels)
        return (d_x.reshape(batch, height, width, channels),)

    return output, backward


def _taps(matrix: np.ndarray) -> Taps:
    """The two neighbors of each row of an interpolation matrix (new, old), and their weights; the second may be 0."""
    rows = np.arange(len(matrix))
    first = (matrix != 0).argmax(axis=1)
    second = np.minimum(first + 1, matrix.shape[1] - 1)
    return first, second, matrix[rows, first], np.where(second > first, matrix[rows, second], matrix.dtype.type(0))
