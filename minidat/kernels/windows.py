"""The rearrangements of window attention, their copies shared among threads; a shift by nothing copies nothing.

On one core they take up to twice the textbook's time for a small map (`minidat bench dat_tiny --plain --threads 1`:
0.3 ms more in all): two cores share a large one, and a shift by nothing is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.windows import check_reverse, check_windows
from ..runtime.threads import COPY_GRAIN, contiguous, empty, parallel


def window_partition(x: np.ndarray, *, window: int) -> tuple[np.ndarray, Any]:
    """`ops.window_partition`."""
    _, height, width, _ = x.shape
    check_windows("window_partition", height, width, window)
    return _split(x, window), lambda d_windows: (_merge(d_windows, window, height, width),)


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> tuple[np.ndarray, Any]:
    """`ops.window_reverse`."""
    check_reverse(windows, window, height, width)
    return _merge(windows, window, height, width), lambda d_x: (_split(d_x, window),)


def _split(x: np.ndarray, window: int) -> np.ndarray:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return contiguous(x.swapaxes(2, 3)).reshape(-1, window * window, channels)


def _merge(windows: np.ndarray, window: int, height: int, width: int) -> np.ndarray:
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // window, width // window, window, window, channels)
    return contiguous(x.swapaxes(2, 3)).reshape(-1, height, width, channels)


def cyclic_shift(x: np.ndarray, *, shift: int) -> tuple[np.ndarray, Any]:
    """`ops.cyclic_shift`; x itself for a shift of 0."""
    if shift == 0:
        return x, lambda d_output: (d_output,)
    return _roll(x, shift), lambda d_output: (_roll(d_output, -shift),)


def _roll(x: np.ndarray, shift: int) -> np.ndarray:
    """np.roll(x, (-shift, -shift), axis=(1, 2)), shared among threads."""
    height, width = x.shape[1:3]
    output = empty(x.shape, x.dtype)
    wrap = shift % width

    def work(start: int, stop: int) -> None:
        for row in range(start, stop):
            source = x[:, (row + shift) % height]
            output[:, row, : width - wrap] = source[:, wrap:]
            output[:, row, width - wrap :] = source[:, :wrap]

    parallel(work, height, grain=1 + COPY_GRAIN * height // max(1, x.size))
    return output
