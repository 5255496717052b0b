"""Cutting a map into windows, shifting it, and the bookkeeping of who may look at whom (Swin, arXiv 2103.14030)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def window_partition(x: np.ndarray, *, window: int) -> tuple[np.ndarray, Any]:
    """Cut the map into non-overlapping windows, in row-major order, each a list of tokens.

    x: (B, H, W, C), H and W multiples of `window` -> windows: (B * H/w * W/w, w * w, C).
    Raises ShapeError if the window does not divide the map. Source: Swin, section 3.1.
    """
    _, height, width, _ = x.shape
    check_windows("window_partition", height, width, window)

    def backward(d_windows: np.ndarray) -> tuple[np.ndarray]:
        return (_merge(d_windows, window, height, width),)

    return _split(x, window), backward


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> tuple[np.ndarray, Any]:
    """Put the windows of `window_partition` back in their places: its inverse.

    windows: (B * H/w * W/w, w * w, C) -> x: (B, H, W, C). Raises ShapeError if their number does not fit the map.
    """
    check_reverse(windows, window, height, width)

    def backward(d_x: np.ndarray) -> tuple[np.ndarray]:
        return (_split(d_x, window),)

    return _merge(windows, window, height, width), backward


def check_windows(op: str, height: int, width: int, window: int) -> None:
    """Raise ShapeError unless the window divides the map."""
    check(height % window == 0 and width % window == 0, op, "map", (height, width), f"multiples of {window}")


def check_reverse(windows: np.ndarray, window: int, height: int, width: int) -> None:
    """Raise ShapeError unless the arguments of `window_reverse` fit each other."""
    count = (height // window) * (width // window)
    check(
        len(windows) % count == 0 and windows.shape[1] == window**2,
        "window_reverse",
        "windows",
        windows.shape,
        f"(a multiple of {count}, {window**2}, channels)",
    )


def _split(x: np.ndarray, window: int) -> np.ndarray:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window * window, channels)


def _merge(windows: np.ndarray, window: int, height: int, width: int) -> np.ndarray:
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // window, width // window, window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, height, width, channels)


def cyclic_shift(x: np.ndarray, *, shift: int) -> tuple[np.ndarray, Any]:
    """Roll the map up and to the left by `shift` pixels, around the edges: output[y, x] = x[y + shift, x + shift].

    x: (B, H, W, C) -> output: (B, H, W, C). A negative shift rolls back. Source: Swin, section 3.2 and Fig. 4.
    """

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (np.roll(d_output, (shift, shift), axis=(1, 2)),)

    return np.roll(x, (-shift, -shift), axis=(1, 2)), backward


def shifted_window_mask(height: int, width: int, *, window: int, shift: int) -> np.ndarray:
    """What is added to the scores of a shifted map: -100 between tokens that the roll made neighbors, 0 elsewhere.

    -> (H/w * W/w, w * w, w * w), float32, symmetric. On each axis the rolled map has three regions, [0, -w), [-w,
    -shift) and [-shift, end); tokens of different regions of a window do not see each other. Source: Swin, Fig. 4; the
    value -100 and the slices are those of the authors' code. Raises ShapeError unless the window divides the map, and
    unless 0 < shift < window.
    """
    op = "shifted_window_mask"
    check_windows(op, height, width, window)
    expected = f"above 0 and below the window, {window}"
    check(0 < shift < window, op, "shift", shift, expected)
    region = np.zeros((1, height, width, 1), np.float32)
    for axis in (1, 2):
        line = np.zeros(region.shape[axis], np.float32)
        line[-window:-shift] = 1
        line[-shift:] = 2
        others = [a for a in range(4) if a != axis]
        region += np.expand_dims(line, others) * 3 ** (axis - 1)  # its number, y + 3 x
    windows = _split(region, window)[..., 0]  # (windows, tokens)
    same = windows[:, :, None] == windows[:, None, :]
    return np.where(same, np.float32(0), np.float32(-100))


def relative_position_index(window: int) -> np.ndarray:
    """Which row of a bias table belongs to each pair of tokens of a window, keys first.

    -> (w * w keys, w * w queries) of int: (dy + w - 1) (2w - 1) + (dx + w - 1) with dy = y_query - y_key, dx alike.
    Source: Swin, section 3.2 (its table B-hat).
    """
    y, x = np.divmod(np.arange(window * window), window)
    dy = y[None, :] - y[:, None]  # (keys, queries)
    dx = x[None, :] - x[:, None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def window_position_bias(table: np.ndarray, *, window: int) -> tuple[np.ndarray, Any]:
    """Spread a table of one number per relative position over all pairs of tokens of a window.

    table: ((2w - 1)^2, heads) -> bias: (heads, w * w keys, w * w queries).
    Raises ShapeError if the table's length is not (2w - 1)^2. Source: Swin, Eq. 4.
    """
    rows, expected = len(table), (2 * window - 1) ** 2
    check(rows == expected, "window_position_bias", "rows of table", rows, expected)
    index = relative_position_index(window)

    def backward(d_bias: np.ndarray) -> tuple[np.ndarray]:
        d_table = [np.bincount(index.ravel(), d.ravel(), rows) for d in d_bias]
        return (np.stack(d_table, axis=1).astype(table.dtype, copy=False),)

    return table.T[:, index], backward
