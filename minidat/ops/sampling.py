"""Where deformable attention looks, and how it reads a map between the pixels.

Positions are (y, x) in [-1, 1] over the map. With *aligned corners*, -1 and 1 are the centres of the first and last
pixel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..runtime.threads import empty, parallel, thread_count
from ._shapes import check

CORNERS = (0, 0), (0, 1), (1, 0), (1, 1)  # (dy, dx) from the pixel above and to the left of a position
SAMPLES_GRAIN = 65536  # numbers to read from a map that are worth waking a thread for
PARTIAL_SUMS_FLOATS = 524288  # of a bias table contracted with the columns of some keys

# --- the grid and the offsets -----------------------------------------------------------------------------------------


def reference_points(size: int, *, rule: str, dtype: Any = np.float32) -> np.ndarray:
    """The coordinates on one axis of the uniform grid that sampling starts from: (size,), for i = 0 ... size - 1.

    rule "dat": (i + 0.5) / size * 2 - 1, the centres of `size` equal cells (CVPR paper, section 3.2).
    rule "dat++": (i + 0.5) / (size - 1) * 2 - 1, whose last point lies beyond 1 (the authors' DAT++ code); a single
    point, which that formula would divide by zero, is put at the centre, 0.
    """
    _check_rule("reference_points", rule)
    i = np.arange(size)
    if rule == "dat":
        return ((i + 0.5) / size * 2 - 1).astype(dtype)
    return ((i + 0.5) / (size - 1) * 2 - 1).astype(dtype) if size > 1 else np.zeros(1, dtype)


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
    check(offsets.dtype.kind == "f", "sampling_points", "offsets", offsets.dtype, "floats")
    height, width = offsets.shape[2:4]
    lines = (reference_points(n, rule=rule, dtype=offsets.dtype) for n in (height, width))
    reference = np.empty((height, width, 2), offsets.dtype)
    reference[..., 0], reference[..., 1] = np.ix_(*lines)

    if range_factor is not None:
        cells = np.array([height, width], offsets.dtype) - (rule == "dat++")
        reach = np.divide(range_factor, cells, out=np.zeros_like(cells), where=cells > 0)
        squashed = np.tanh(offsets)
        return reference + squashed * reach, lambda d_positions: (d_positions * reach * (1 - squashed**2),)
    moved = reference + offsets
    if rule == "dat":
        positions = np.tanh(moved)
        return positions, lambda d_positions: (d_positions * (1 - positions**2),)
    inside = (moved >= -1) & (moved <= 1)  # the gradient passes at the bounds themselves, as PyTorch's clamp has it
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
    batch, height, width, channels = x.shape
    check(
        positions.ndim == 5 and len(positions) == batch and positions.shape[-1] == 2,
        "grid_sample",
        "positions",
        positions.shape,
        f"({batch}, groups, Hs, Ws, 2)",
    )
    check(positions.dtype.kind == "f", "grid_sample", "positions", positions.dtype, "floats")
    groups, rows, columns = positions.shape[1:4]
    check(channels % groups == 0, "grid_sample", "channels of x", channels, f"a multiple of groups ({groups})")
    pixels_y, scale_y = _to_pixels(positions[..., 0], height, align_corners)  # (B, groups, Hs, Ws)
    pixels_x, scale_x = _to_pixels(positions[..., 1], width, align_corners)
    y0, x0 = np.floor(pixels_y), np.floor(pixels_x)
    fraction_y, fraction_x = pixels_y - y0, pixels_x - x0

    # a map of vectors: x[b, y, x, g] is row ((b H + y) W + x) groups + g of this matrix
    vectors = x.reshape(batch * height * width * groups, channels // groups)
    first_row = np.arange(batch)[:, None, None, None] * (height * width * groups) + np.arange(groups)[:, None, None]

    def line(pixel: np.ndarray, size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What row or column `pixel` adds to a row number, and whether there is such a pixel."""
        exists = (pixel >= 0) & (pixel < size)
        return np.where(exists, pixel, 0).astype(np.intp) * step, exists

    weights_y, weights_x = (1 - fraction_y, fraction_y), (1 - fraction_x, fraction_x)
    lines_y = [line(y0 + dy, height, width * groups) for dy in (0, 1)]
    lines_x = [line(x0 + dx, width, groups) for dx in (0, 1)]
    corners = []  # (row numbers, weight), each (B, groups, Hs, Ws)
    for dy, dx in CORNERS:
        (row, row_exists), (column, column_exists) = lines_y[dy], lines_x[dx]
        corners.append((first_row + row + column, weights_y[dy] * weights_x[dx] * (row_exists & column_exists)))

    samples = empty((batch * groups * rows * columns, channels // groups), x.dtype)

    def read(start: int, stop: int) -> None:
        samples[start:stop] = 0
        for row, weight in corners:
            samples[start:stop] += vectors[row.reshape(-1)[start:stop]] * weight.reshape(-1)[start:stop, None]

    parallel(read, len(samples), grain=1 + SAMPLES_GRAIN * groups // max(1, channels))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_samples = d_output.reshape(batch, rows, columns, groups, -1).transpose(0, 3, 1, 2, 4)  # as output
        d_y, d_x = np.zeros_like(pixels_y), np.zeros_like(pixels_x)
        for (dy, dx), (row, _) in zip(CORNERS, corners, strict=True):
            agreement = np.einsum("bghwc,bghwc->bghw", vectors[row], d_samples)
            agreement *= lines_y[dy][1] & lines_x[dx][1]
            d_y += (2 * dy - 1) * weights_x[dx] * agreement  # the slopes of the hat functions
            d_x += (2 * dx - 1) * weights_y[dy] * agreement
        d_positions = np.stack([d_y * scale_y, d_x * scale_x], axis=-1)
        d_vectors = _scatter(corners, d_samples.reshape(-1, channels // groups), len(vectors))
        return d_vectors.reshape(x.shape), d_positions

    # (B, groups, Hs, Ws, Cg) -> (B, Hs, Ws, groups Cg)
    output = samples.reshape(batch, groups, rows, columns, channels // groups).transpose(0, 2, 3, 1, 4)
    return output.reshape(batch, rows, columns, channels), backward


def _to_pixels(positions: np.ndarray, size: int, align_corners: bool) -> tuple[np.ndarray, Any]:
    """Positions in [-1, 1] as pixel coordinates, and the factor between the two."""
    if align_corners:
        scale = positions.dtype.type((size - 1) / 2)
        return (positions + 1) * scale, scale
    scale = positions.dtype.type(size / 2)
    return (positions + 1) * scale - positions.dtype.type(0.5), scale


def _scatter(corners: list[Any], d_samples: np.ndarray, count: int) -> np.ndarray:
    """Add each sample's gradient to the pixels it was read from: the transpose of sampling, as a sparse matrix product.

    d_samples: (N, C) -> (count, C).
    """
    from scipy.sparse import csr_array

    pixel = np.concatenate([row.ravel() for row, _ in corners])
    weight = np.concatenate([weight.ravel() for _, weight in corners])
    sample = np.tile(np.arange(len(d_samples)), len(corners))
    return csr_array((weight, (pixel, sample)), shape=(count, len(d_samples))) @ d_samples


# --- sampling a table on a product grid -------------------------------------------------------------------------------


def sample_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, Any]:
    """Bilinear samples of a table at every (row, column) of a grid, one grid for each key:

        output[b, n, k, i, j] = sum_rs hat(rows[b, g, k, i] - r) hat(columns[b, g, k, j] - s) table[n, r, s],

    hat(t) = max(0, 1 - |t|). table: (heads, R, S), rows: (B, groups, K, Qy), columns: (B, groups, K, Qx), in pixels of
    the table, zeros outside it; g is the group of head n -> output: (B, heads, K, Qy, Qx). The queries of deformable
    attention form such a grid, seen from any one key, so the relative position bias is two small matrix products with
    "hat" matrices instead of four gathers for each query and key. Raises ShapeError if the groups do not divide the
    heads or differ. Source: DAT, section 3.2 (deformable relative position bias); exact, not an approximation.
    """
    batch, groups, keys, grid_rows = rows.shape
    grid_columns = columns.shape[-1]
    check(columns.shape[:3] == rows.shape[:3], "sample_product_grid", "columns", columns.shape, (*rows.shape[:3], "Qx"))
    check(
        len(table) % groups == 0,
        "sample_product_grid",
        "heads of table",
        len(table),
        f"a multiple of groups ({groups})",
    )
    heads, table_rows, table_columns = len(table) // groups, *table.shape[1:]
    output_shape = (batch, groups, heads, keys, grid_rows, grid_columns)
    output = empty(output_shape, table.dtype)
    stacked_table = table.reshape(groups, heads * table_rows, table_columns)
    tasks = _tasks(batch, groups, keys, heads * table_rows * grid_columns)

    def partial_sums(images: slice, g: int, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Hat matrices of the columns (b, k, Qx, S), and the table contracted with them: (b, k, Qx, heads, R)."""
        hats = _hats(columns[images, g, part], table_columns)
        sums = hats.reshape(-1, table_columns) @ stacked_table[g].T
        return hats, sums.reshape(*hats.shape[:3], heads, table_rows)

    def work(start: int, stop: int) -> None:
        for images, g, part in tasks[start:stop]:
            _, sums = partial_sums(images, g, part)
            row_hats = _hats(rows[images, g, part], table_rows)[:, None]  # (b, 1, k, Qy, R)
            np.matmul(row_hats, sums.transpose(0, 3, 1, 4, 2), out=output[images, g, :, part])

    parallel(work, len(tasks))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_output = d_output.reshape(output_shape)
        d_rows, d_columns = np.empty_like(rows), np.empty_like(columns)
        d_tables = np.zeros((len(tasks), heads * table_rows, table_columns), table.dtype)

        def work(start: int, stop: int) -> None:
            for task in range(start, stop):
                images, g, part = tasks[task]
                d_part = d_output[images, g, :, part].swapaxes(1, 2)  # (b, k, heads, Qy, Qx)
                column_hats, sums = partial_sums(images, g, part)
                row_hats = _hats(rows[images, g, part], table_rows)[:, :, None]  # (b, k, 1, Qy, R)
                d_row_hats = (d_part @ sums.swapaxes(2, 3)).sum(axis=2)  # (b, k, Qy, R)
                d_sums = np.empty_like(sums)
                np.matmul(d_part.swapaxes(3, 4), row_hats, out=d_sums.swapaxes(2, 3))
                d_sums = d_sums.reshape(-1, heads * table_rows)
                d_column_hats = (d_sums @ stacked_table[g]).reshape(column_hats.shape)
                d_tables[task] = d_sums.T @ column_hats.reshape(-1, table_columns)
                for d_axis, d_hats, axis in ((d_rows, d_row_hats, rows), (d_columns, d_column_hats, columns)):
                    slopes = _hat_slopes(axis[images, g, part], d_hats.shape[-1])
                    d_axis[images, g, part] = np.vecdot(d_hats, slopes)

        parallel(work, len(tasks))
        d_table = np.zeros_like(stacked_table)
        for (_, g, _), d_part in zip(tasks, d_tables, strict=True):
            d_table[g] += d_part
        return d_table.reshape(table.shape), d_rows, d_columns

    return output.reshape(batch, groups * heads, keys, grid_rows, grid_columns), backward


def _tasks(batch: int, groups: int, keys: int, key_floats: int) -> list[tuple[slice, int, slice]]:
    """(images, group, keys) that cover a product grid: as many images, or keys of one image, as the cache takes.

    key_floats: the partial sums of one key. There are as many tasks for one thread as for another.
    """
    images = max(1, min(PARTIAL_SUMS_FLOATS // (keys * key_floats), batch // thread_count()))
    parts = -(-keys * key_floats // PARTIAL_SUMS_FLOATS)
    if images == 1:
        parts += -parts * batch * groups % thread_count()
    bounds = [keys * i // parts for i in range(parts + 1)]
    return [
        (slice(start, start + images), g, slice(*part))
        for start in range(0, batch, images)
        for g in range(groups)
        for part in pairwise(bounds)
    ]


def _hats(t: np.ndarray, size: int) -> np.ndarray:
    """max(0, 1 - |t - r|) for r = 0 ... size - 1: (..., N) -> (..., N, size)."""
    distance = t[..., None] - np.arange(size, dtype=t.dtype)
    np.abs(distance, out=distance)
    np.subtract(1, distance, out=distance)
    return distance.clip(0, 1, out=distance)  # three times faster than np.maximum with one number


def _hat_slopes(t: np.ndarray, size: int) -> np.ndarray:
    """The derivative of `_hats` by t: 1 on the way up (-1 <= t - r < 0), -1 on the way down (0 <= t - r < 1)."""
    distance = t[..., None] - np.arange(size, dtype=t.dtype)
    return ((distance >= -1) & (distance < 0)).astype(t.dtype) - ((distance >= 0) & (distance < 1))
