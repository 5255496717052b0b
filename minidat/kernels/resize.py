"""Resizing without the zeros of the textbook's matrices, some rows at a time, which stay in the cache.

Bilinear and nearest interpolation mix at most two neighbors. The columns are mixed as such, once for each row of the
map; the rows by a matrix product with the few that a piece of the output sees. Backward goes the other way around: rows
first, of which fewer are left for the columns. A map that has the size already is its own answer.

Without the band, and with the rows mixed one at a time, 8 maps of 60 x 80 pixels and 11 channels took three times as
long to become 240 x 320 (on two cores).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops.resize import interpolation_matrix
from ..runtime.threads import SHARES, cut, empty, parallel

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
    above, below, _, _ = _taps(along_y)
    left, right, of_left, of_right = _taps(along_x)
    output = empty((batch, new_height, new_width, channels), x.dtype)
    row = new_width * channels
    step, grain = max(1, ROWS_FLOATS // row), 1 + ROWS_GRAIN // row
    tasks = [(i, part) for i in range(batch) for part in cut(new_height, step=step, grain=grain)]

    def work(start: int, stop: int) -> None:
        for i, part in tasks[start:stop]:
            seen = slice(above[part.start], below[part.stop - 1] + 1)
            wide = x[i, seen].take(left, axis=1)
            wide *= of_left[:, None]
            second = x[i, seen].take(right, axis=1)
            second *= of_right[:, None]
            wide += second
            np.matmul(along_y[part, seen], wide.reshape(-1, row), out=output[i, part].reshape(-1, row))

    parallel(work, len(tasks), grain=max(1, grain * len(tasks) // (batch * new_height)))
    if not keep:
        return output, None

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_rows = empty((batch, height, row), x.dtype)
        pieces = cut(row, step=row, grain=row if batch >= SHARES else 1 + ROWS_GRAIN // new_height)

        def of_rows(start: int, stop: int) -> None:
            for task in range(start, stop):
                i, piece = task // len(pieces), pieces[task % len(pieces)]
                np.matmul(along_y.T, d_output[i].reshape(new_height, row)[:, piece], out=d_rows[i, :, piece])

        parallel(of_rows, batch * len(pieces), grain=1 + ROWS_GRAIN * len(pieces) // d_output[0].size)
        d_wide = d_rows.reshape(batch * height, new_width, channels)
        d_x = empty((batch * height, width, channels), x.dtype)

        def of_columns(start: int, stop: int) -> None:
            np.matmul(along_x.T, d_wide[start:stop], out=d_x[start:stop])

        parallel(of_columns, len(d_x), grain=grain)
        return (d_x.reshape(x.shape),)

    return output, backward


def _taps(matrix: np.ndarray) -> Taps:
    """The two neighbors of each row of an interpolation matrix (new, old), and their weights; the second may be 0."""
    rows = np.arange(len(matrix))
    first = (matrix != 0).argmax(axis=1)
    second = np.minimum(first + 1, matrix.shape[1] - 1)
    return first, second, matrix[rows, first], np.where(second > first, matrix[rows, second], matrix.dtype.type(0))
