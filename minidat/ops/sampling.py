"""Where deformable attention looks, and how it reads a map between the pixels.

Positions are (y, x) in [-1, 1] over the map. With *aligned corners*, -1 and 1 are the centers of the first and last
pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check

CORNERS = (0, 0), (0, 1), (1, 0), (1, 1)  # (dy, dx) from the pixel above and to the left of a position

# --- the grid and the offsets -----------------------------------------------------------------------------------------


def reference_points(size: int, *, rule: str, dtype: Any = np.float32) -> np.ndarray:
    """The coordinates on one axis of the uniform grid that sampling starts from: (size,), for i = 0 ... size - 1.

    rule "dat": (i + 0.5) / size * 2 - 1, the centers of `size` equal cells (CVPR paper, section 3.2).
    rule "dat++": (i + 0.5) / (size - 1) * 2 - 1, whose last point lies beyond 1 (the authors' DAT++ code); a single
    point, which that formula would divide by zero, is put at the center, 0.
    """
    _check_rule("reference_points", rule)
    i = np.arange(size)
    if rule == "dat":
        return ((i + 0.5) / size * 2 - 1).astype(dtype)
    if size == 1:
        return np.zeros(1, dtype)
    return ((i + 0.5) / (size - 1) * 2 - 1).astype(dtype)


def query_points(size: int, *, rule: str, dtype: Any = np.float32) -> np.ndarray:
    """The coordinates on one axis of the queries, for their distance to the sampling points: (size,).

    rule "dat": those of `reference_points`. rule "dat++": i / (size - 1) * 2 - 1, the pixels' own aligned-corners
    coordinates (0 for a single pixel).
    """
    _check_rule("query_points", rule)
    if rule == "dat":
        return reference_points(size, rule=rule, dtype=dtype)
    return (np.arange(size) / (size - 1) * 2 - 1).astype(dtype) if size > 1 else np.zeros(1, dtype)


def sampling_points(offsets: np.ndarray, *, rule: str, range_factor: float | None) -> tuple[np.ndarray, Any]:
    """Move the reference points by the offsets: position = reference + tanh(offset) * range_factor / n.

    offsets: (B, groups, Hk, Wk, 2), (y, x) -> positions: the same shape. n is the number of points on that axis
    (rule "dat") or that number less one (rule "dat++"; offset 0 if that is 0). With range_factor None the offset is not
    squashed; the position is bounded instead: tanh(reference + offset) for "dat", clip(reference + offset, -1, 1) for
    "dat++". Raises ShapeError for offsets that are not floats. Source: DAT, section 3.2 (its s tanh); DAT++, section
    3.3.
    """
    (height, width), dtype = offsets.shape[2:4], offsets.dtype
    check(dtype.kind == "f", "sampling_points", "offsets", dtype, "floats")
    lines = (reference_points(n, rule=rule, dtype=dtype) for n in (height, width))
    reference = np.empty((height, width, 2), dtype)
    reference[..., 0], reference[..., 1] = np.ix_(*lines)

    if range_factor is not None:
        cells = np.array([height, width], dtype) - (rule == "dat++")
        reach = np.where(cells > 0, range_factor / np.maximum(cells, 1), 0)
        squashed = np.tanh(offsets)
        slope = reach * (1 - squashed**2)
        return reference + squashed * reach, lambda d_positions: (d_positions * slope,)
    moved = reference + offsets
    if rule == "dat":
        positions = np.tanh(moved)
        return positions, lambda d_positions: (d_positions * (1 - positions**2),)
    # the gradient passes at the bounds themselves, as PyTorch's clamp has it
    inside = (moved >= -1) & (moved <= 1)
    return moved.clip(-1, 1), lambda d_positions: (d_positions * inside,)


def _check_rule(op: str, rule: str) -> None:
    check(rule in ("dat", "dat++"), op, "rule", repr(rule), "'dat' or 'dat++'")


# --- sampling a map at any points -------------------------------------------------------------------------------------


def grid_sample(x: np.ndarray, positions: np.ndarray, *, align_corners: bool = True) -> tuple[np.ndarray, Any]:
    """Read a map between its pixels: output = sum over pixels of max(0, 1 - |py - y|) max(0, 1 - |px - x|) x[y, x].

    x: (B, H, W, groups * Cg), positions: (B, groups, Hs, Ws, 2), (y, x) in [-1, 1]; group g of the channels is read at
    positions[:, g] -> output: (B, Hs, Ws, groups * Cg). Only the four pixels around p count; outside the map there are
    zeros. In pixels p = (position + 1) / 2 * (n - 1), or ((position + 1) n - 1) / 2 without `align_corners`.
    Raises ShapeError if batch or groups do not fit, or positions are not floats.
    Source: DAT, Eq. 8; torch.nn.functional.grid_sample.
    """
    check_grid_sample(x, positions)
    batch, height, width, channels = x.shape
    _, groups, rows, columns, _ = positions.shape
    maps = x.reshape(batch, height, width, groups, -1)
    image, group = np.ix_(range(batch), range(groups), [0], [0])[:2]
    # in pixels, (B, groups, Hs, Ws) each, and how many pixels a unit is
    pixels_y, scale_y = to_pixels(positions[..., 0], height, align_corners)
    pixels_x, scale_x = to_pixels(positions[..., 1], width, align_corners)
    y0, x0 = np.floor(pixels_y), np.floor(pixels_x)
    samples = np.zeros((batch, groups, rows, columns, channels // groups), x.dtype)
    corners = []
    for dy, dx in CORNERS:
        row, column = y0 + dy, x0 + dx
        weight_y, weight_x = 1 - np.abs(pixels_y - row), 1 - np.abs(pixels_x - column)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = image, *np.where(inside, (row, column), 0).astype(int), group
        samples += (weight_y * weight_x * inside)[..., None] * maps[place]
        corners.append((place, weight_y * inside, weight_x * inside))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_samples = d_output.reshape(batch, rows, columns, groups, -1)
        d_samples = d_samples.transpose(0, 3, 1, 2, 4)  # as samples
        d_maps = np.zeros_like(maps)
        d_y, d_x = np.zeros_like(pixels_y), np.zeros_like(pixels_x)
        for (dy, dx), (place, weight_y, weight_x) in zip(CORNERS, corners, strict=True):
            np.add.at(d_maps, place, (weight_y * weight_x)[..., None] * d_samples)
            agreement = (maps[place] * d_samples).sum(axis=-1)
            # as y grows, the weight of an upper corner falls and that of a lower one rises
            d_y += (2 * dy - 1) * weight_x * agreement
            d_x += (2 * dx - 1) * weight_y * agreement
        return d_maps.reshape(x.shape), np.stack([d_y * scale_y, d_x * scale_x], axis=-1)

    output = samples.transpose(0, 2, 3, 1, 4).reshape(batch, rows, columns, channels)
    return output, backward


def to_pixels(positions: np.ndarray, size: int, align_corners: bool) -> tuple[np.ndarray, Any]:
    """Positions in [-1, 1] on an axis of `size` pixels as pixel coordinates, and the factor between the two."""
    if align_corners:
        scale = positions.dtype.type((size - 1) / 2)
        return (positions + 1) * scale, scale
    scale = positions.dtype.type(size / 2)
    return (positions + 1) * scale - positions.dtype.type(0.5), scale


def check_grid_sample(x: np.ndarray, positions: np.ndarray) -> None:
    """Raise ShapeError unless the arguments of `grid_sample` fit each other."""
    fits = positions.ndim == 5 and len(positions) == len(x) and positions.shape[-1] == 2
    check(fits, "grid_sample", "positions", positions.shape, f"({len(x)}, groups, Hs, Ws, 2)")
    check(positions.dtype.kind == "f", "grid_sample", "positions", positions.dtype, "floats")
    groups, channels = positions.shape[1], x.shape[-1]
    check(channels % groups == 0, "grid_sample", "channels of x", channels, f"a multiple of groups ({groups})")


# --- sampling a table on a product grid -------------------------------------------------------------------------------


def sample_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, Any]:
    """Bilinear samples of a table at every (row, column) of a grid, one grid for each key:

        output[b, n, k, i, j] = sum_rs hat(rows[b, g, k, i] - r) hat(columns[b, g, k, j] - s) table[n, r, s],

    hat(t) = max(0, 1 - |t|). table: (heads, R, S), rows: (B, groups, K, Qy), columns: (B, groups, K, Qx), in pixels of
    the table, zeros outside it; g is the group of head n -> output: (B, heads, K, Qy, Qx). The queries of deformable
    attention form such a grid, seen from any one key. Raises ShapeError if the groups do not divide the heads or
    differ. Source: DAT, section 3.2 (deformable relative position bias).
    """
    check_product_grid(table, rows, columns)
    # n heads in each of g groups: (g, n, R, S)
    tables = table.reshape(rows.shape[1], -1, *table.shape[1:])
    row_hats, row_slopes = hats(rows, table.shape[1])  # (B, g, K, Qy, R)
    column_hats, column_slopes = hats(columns, table.shape[2])  # (B, g, K, Qx, S)
    # summed over the columns s first: (B, g, n, K, Qx, R)
    sums = np.einsum("bgkjs,gnrs->bgnkjr", column_hats, tables, optimize=True)
    output = row_hats[:, :, None] @ sums.swapaxes(-1, -2)  # (B, g, n, K, Qy, Qx)
    shape = len(rows), len(table), *output.shape[3:]

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_output = d_output.reshape(output.shape)
        d_row_hats = (d_output @ sums).sum(axis=2)  # (B, g, K, Qy, R)
        d_sums = d_output.swapaxes(-1, -2) @ row_hats[:, :, None]  # (B, g, n, K, Qx, R)
        d_column_hats = np.einsum("bgnkjr,gnrs->bgkjs", d_sums, tables, optimize=True)
        d_tables = np.einsum("bgnkjr,bgkjs->gnrs", d_sums, column_hats, optimize=True)
        d_rows = (d_row_hats * row_slopes).sum(axis=-1)
        d_columns = (d_column_hats * column_slopes).sum(axis=-1)
        return d_tables.reshape(table.shape), d_rows, d_columns

    return output.reshape(shape), backward


def hats(t: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """max(0, 1 - |t - r|) for r = 0 ... size - 1, and its derivative by t: (..., N) -> (..., N, size) each.

    The slope is 1 on the way up (-1 <= t - r < 0) and -1 on the way down (0 <= t - r < 1).
    """
    distance = t[..., None] - np.arange(size, dtype=t.dtype)
    rises = (distance >= -1) & (distance < 0)
    falls = (distance >= 0) & (distance < 1)
    return np.maximum(0, 1 - np.abs(distance)), rises.astype(t.dtype) - falls


def check_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Raise ShapeError unless the arguments of `sample_product_grid` fit each other."""
    op, groups = "sample_product_grid", rows.shape[1]
    check(columns.shape[:3] == rows.shape[:3], op, "columns", columns.shape, (*rows.shape[:3], "Qx"))
    check(len(table) % groups == 0, op, "heads of table", len(table), f"a multiple of groups ({groups})")
