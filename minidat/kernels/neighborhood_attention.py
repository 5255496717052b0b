"""Neighborhood attention tile by tile, as matrix products, instead of gathering each query's own keys.

The map is cut into small tiles of queries. The windows of a tile's queries lie together in one block of keys, so that a
tile's scores are one matrix product with its block; where the block reaches beyond a query's own window, the bias added
to the score is -inf. With kernel 7, a tile of 4 x 4 queries has a block of 10 x 10 keys: twice the scores that are
needed, and in exchange nothing but matrix products and passes over whole arrays.

In shapes, `rows` are rows of tiles and `tiles` the tiles of one row, or a run of them; `queries` are those of one tile
and `keys` those of its block.

On one core 9 times as fast as the textbook (`minidat bench datpp_tiny --plain --threads 1`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from ..ops.neighborhood import check_neighborhood
from ..runtime.threads import CACHE_FLOATS, empty, in_parts, parallel

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def neighborhood_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, kernel: int, scale: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """`ops.neighborhood_attention`; time and memory are proportional to pixels x heads x kernel^2."""
    check_neighborhood(query, key, value, bias, kernel)
    batch, height, width, heads, d = query.shape
    tiling = _tile_map(height, width, kernel)
    rows, first_keys = len(tiling.kinds), tiling.first_keys[0]
    biases = _spread_bias(bias, tiling)  # (kinds, keys, heads, tiles, queries)
    query_tiles = _cut(query, tiling)
    output_tiles = empty(query_tiles.shape, query.dtype)
    log_sums = np.empty((batch, rows, *biases.shape[2:]), query.dtype)  # log of each query's sum of exponentials

    def attend(start: int, stop: int) -> None:
        for image, part in _split(start, stop, rows):
            top, bottom = first_keys[part[0]], first_keys[part[-1]] + tiling.block[0]
            key_pixels, value_pixels = _pixels(key[image, top:bottom]), _pixels(value[image, top:bottom])
            for row, tiles in product(part, _runs(tiling, heads)):
                above = (first_keys[row] - top) * width
                keys, values = (
                    _blocks(pixels[above:], heads, tiling.keys[tiles]) for pixels in (key_pixels, value_pixels)
                )
                # 1. scores of the queries with all keys of their block
                weights = _dot(keys, _columns(query_tiles[image, row, :, tiles], scale))
                weights += biases[tiling.kinds[row], :, :, tiles]
                # 2. softmax over the keys, its division left for the end
                maximum = weights.max(axis=0)
                weights -= maximum
                np.exp(weights, out=weights)
                total = weights.sum(axis=0)
                log_sums[image, row, :, tiles] = maximum + np.log(total)
                # 3. weighted mean of the values
                mean = _sum_keys(weights, values)
                total = total.swapaxes(0, 1)[..., None]  # (tiles, heads, queries, 1)
                np.divide(_as_rows(mean, tiling), _as_rows(total, tiling), out=output_tiles[image, row, :, tiles])

    thread_scores = CACHE_FLOATS // 4  # worth waking a thread for
    parallel(attend, batch * rows, grain=1 + thread_scores // biases[0].size)

    def backward(d_output: np.ndarray) -> Gradients:
        d_query_tiles = np.empty(query_tiles.shape, query.dtype)
        d_key, d_value = np.zeros(key.shape, key.dtype), np.zeros(value.shape, value.dtype)
        d_output_tiles = _cut(d_output, tiling)
        d_tables: dict[int, np.ndarray] = {}  # the gradient of bias, as much of it as each part gives

        # Blocks of neighboring tiles overlap in d_key and d_value, so a part has some heads of an image to itself
        def attend_backward(items: slice) -> None:
            d_biases = np.zeros(biases.shape, biases.dtype)
            for image, part in _split(items.start, items.stop, heads):
                some = slice(part[0], part[-1] + 1)
                key_pixels, value_pixels = _pixels(key[image, :, :, some]), _pixels(value[image, :, :, some])
                d_key_columns, d_value_columns = np.zeros((2, *tiling.column_shape, len(part), d), query.dtype)
                for row, tiles in product(range(rows), _runs(tiling, len(part))):
                    kind, below = tiling.kinds[row], slice(first_keys[row] * width, None)
                    area = tiles, slice(first_keys[row], first_keys[row] + tiling.block[0])
                    keys = _blocks(key_pixels[below], len(part), tiling.keys[tiles])
                    values = _blocks(value_pixels[below], len(part), tiling.keys[tiles])
                    queries = _columns(query_tiles[image, row, :, tiles, :, some], scale)
                    d_mean = _columns(d_output_tiles[image, row, :, tiles, :, some], 1)
                    # the weights once more: to keep them would take over twice kernel^2 floats for each pixel and head
                    weights = _dot(keys, queries)
                    weights += biases[kind, :, some, tiles]
                    weights -= log_sums[image, row, some, tiles]
                    np.exp(weights, out=weights)
                    # 3. weighted mean of the values
                    d_value_columns[area] += _as_area(_sum_queries(weights, d_mean), tiling)
                    # 2. softmax: d_score = weight * (d_weight - mean of d_weight)
                    d_scores = _dot(values, d_mean)
                    d_scores *= weights
                    weights *= d_scores.sum(axis=0)
                    d_scores -= weights
                    # 1. scores
                    d_biases[kind, :, some, tiles] += d_scores
                    d_key_columns[area] += _as_area(_sum_queries(d_scores, queries), tiling)
                    d_queries = _sum_keys(d_scores, keys)
                    np.multiply(_as_rows(d_queries, tiling), scale, out=d_query_tiles[image, row, :, tiles, :, some])
                _add_columns(d_key[image, :, :, some], d_key_columns, tiling)
                _add_columns(d_value[image, :, :, some], d_value_columns, tiling)
            d_tables[items.start] = _gather_bias(d_biases, tiling)

        count = batch * heads
        in_parts(attend_backward, count, step=count, grain=1 + thread_scores * heads // (biases[0].size * rows))
        d_bias = np.sum([d_tables[start] for start in sorted(d_tables)], axis=0)
        return _mend(d_query_tiles, tiling), d_key, d_value, d_bias.astype(bias.dtype)

    return _mend(output_tiles, tiling), backward


class _Tiling(NamedTuple):
    """Tiles, their blocks of keys, and where in the bias table a query and a key meet. Pairs are (y, x)."""

    kernel: int
    size: tuple[int, int]  # of the map
    side: tuple[int, int]  # of a tile
    block: tuple[int, int]  # size of a block
    first_keys: tuple[list[int], list[int]]  # the y of the blocks of each row, the x of the block of each tile
    keys: np.ndarray  # (tiles, keys) number of each key's pixel, counted from the first of the row's blocks
    kinds: list[int]  # of each row: rows of one kind get the same biases (only those near a border differ)
    offsets: np.ndarray  # (kinds, keys, tiles, queries) number of the entry in the flattened table of `_spread_bias`

    @property
    def column_shape(self) -> tuple[int, int, int]:
        """(tiles, H, block_x): the part of the map that the blocks of each column of tiles lie in."""
        return len(self.keys), self.size[0], self.block[1]


@lru_cache(maxsize=16)
def _tile_map(height: int, width: int, kernel: int) -> _Tiling:
    side_y, first_y, offsets_y = _tile_axis(height, kernel)
    side_x, first_x, offsets_x = _tile_axis(width, kernel)
    (_, block_y, _), (tiles, block_x, _) = offsets_y.shape, offsets_x.shape
    block = np.arange(block_y)[:, None] * width + np.arange(block_x)  # (block_y, block_x)
    kinds_y, kinds = np.unique(offsets_y, axis=0, return_inverse=True)  # (kinds, block_y, side_y), (rows,)
    table_y = 2 * kernel * kinds_y[:, :, None, None, :, None]
    table_x = offsets_x.swapaxes(0, 1)[:, :, None, :]  # (block_x, tiles, 1, side_x)
    return _Tiling(
        kernel=kernel,
        size=(height, width),
        side=(side_y, side_x),
        block=(block_y, block_x),
        first_keys=(first_y.tolist(), first_x.tolist()),
        keys=first_x[:, None] + block.reshape(-1),
        kinds=kinds.reshape(-1).tolist(),
        offsets=(table_y + table_x).reshape(len(kinds_y), block_y * block_x, tiles, side_y * side_x),
    )


def _tile_axis(n: int, kernel: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Cut an axis of n queries into tiles of 4 to 8, whichever makes the fewest scores.

    Returns a tile's side, the first key (tiles,) of each block, and (tiles, block, side) the position of key and query
    in the bias table, key - query + kernel - 1, or 2 kernel - 1 if the key is outside the query's window.
    """

    def cut(side: int) -> tuple[int, np.ndarray, np.ndarray]:
        tiles = -(-n // side)
        queries = np.minimum(np.arange(tiles * side), n - 1).reshape(tiles, side)  # the last tile may not be full
        windows = np.clip(queries - kernel // 2, 0, n - kernel)  # first key of each query
        block = int((windows[:, -1] - windows[:, 0]).max()) + kernel
        first = np.minimum(windows[:, 0], n - block)
        keys = (first[:, None] + np.arange(block))[:, :, None]  # (tiles, block, 1)
        windows, queries = windows[:, None], queries[:, None]  # (tiles, 1, side)
        inside = (windows <= keys) & (keys < windows + kernel)
        return side, first, np.where(inside, keys - queries + kernel - 1, 2 * kernel - 1)

    return min((cut(side) for side in range(min(4, n), min(8, n) + 1)), key=lambda axis: axis[2].size)


def _split(start: int, stop: int, size: int) -> Iterator[tuple[int, range]]:
    """Items start..stop of groups of `size`, group by group: (number of the group, range of its items)."""
    for group in range(start // size, -(-stop // size)):
        yield group, range(max(start - group * size, 0), min(stop - group * size, size))


def _runs(tiling: _Tiling, heads: int) -> list[slice]:
    """The tiles of a row, in runs whose scores for `heads` heads stay in the cache."""
    tiles, keys = tiling.keys.shape
    most = max(1, 3 * CACHE_FLOATS // (heads * keys * tiling.side[0] * tiling.side[1]))
    count = -(-tiles // most)
    return [slice(tiles * i // count, tiles * (i + 1) // count) for i in range(count)]


# --- from maps to tiles and back --------------------------------------------------------------------------------------


def _spread_bias(bias: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """Bias (heads, 2k - 1, 2k - 1) -> what is added to the scores, (kinds, keys, heads, tiles, queries)."""
    size = 2 * tiling.kernel
    table = np.full((len(bias), size, size), -np.inf, bias.dtype)  # the last row and column: keys outside the window
    table[:, :-1, :-1] = bias
    spread = table.reshape(len(bias), -1).take(tiling.offsets, axis=1)  # (heads, kinds, keys, tiles, queries)
    return np.ascontiguousarray(np.moveaxis(spread, 0, 2))


def _gather_bias(d_biases: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """The transpose of `_spread_bias`: (kinds, keys, heads, tiles, queries) -> (heads, 2k - 1, 2k - 1)."""
    size, offsets = 2 * tiling.kernel, tiling.offsets.reshape(-1)
    tables = [np.bincount(offsets, d_biases[:, :, h].reshape(-1), size**2) for h in range(d_biases.shape[2])]
    return np.stack(tables).reshape(-1, size, size)[:, :-1, :-1]


def _cut(x: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """Map (B, H, W, heads, d) -> (B, rows, side, tiles, side, heads, d), a view unless zeros must fill the last."""
    (height, width), (side_y, side_x) = tiling.size, tiling.side
    rows, tiles = (len(first) for first in tiling.first_keys)
    missing = rows * side_y - height, tiles * side_x - width
    if any(missing):
        x = np.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0), (0, 0)))
    return x.reshape(len(x), rows, side_y, tiles, side_x, *x.shape[3:])


def _mend(x: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """The inverse of `_cut`."""
    batch, rows, side_y, tiles, side_x, heads, d = x.shape
    height, width = tiling.size
    return np.ascontiguousarray(x.reshape(batch, rows * side_y, tiles * side_x, heads, d)[:, :height, :width])


def _columns(x: np.ndarray, scale: float) -> np.ndarray:
    """Queries (side, tiles, side, heads, d) as in a map -> scale * x as (tiles, heads, d, queries)."""
    side_y, tiles, side_x, heads, d = x.shape
    columns = np.empty((tiles, heads, d, side_y, side_x), x.dtype)
    np.multiply(x.transpose(1, 3, 4, 0, 2), scale, out=columns)
    return columns.reshape(tiles, heads, d, side_y * side_x)


def _as_rows(x: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """Queries (tiles, heads, queries, d) -> a view as in a map, (side, tiles, side, heads, d)."""
    tiles, heads, _, d = x.shape
    return x.reshape(tiles, heads, *tiling.side, d).transpose(2, 0, 3, 1, 4)


def _pixels(x: np.ndarray) -> np.ndarray:
    """Map (H, W, heads, d) -> contiguous (pixels, heads * d)."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[2] * x.shape[3])


def _blocks(pixels: np.ndarray, heads: int, numbers: np.ndarray) -> np.ndarray:
    """Pixels (pixels, heads * d) with the given numbers (tiles, keys) -> blocks of keys (tiles, heads, keys, d)."""
    return pixels.take(numbers, axis=0).reshape(*numbers.shape, heads, -1).swapaxes(1, 2)


def _as_area(blocks: np.ndarray, tiling: _Tiling) -> np.ndarray:
    """Blocks of keys (tiles, heads, keys, d) -> a view as in a map, (tiles, block_y, block_x, heads, d)."""
    tiles, heads, _, d = blocks.shape
    return blocks.swapaxes(1, 2).reshape(tiles, *tiling.block, heads, d)


def _add_columns(x: np.ndarray, columns: np.ndarray, tiling: _Tiling) -> None:
    """Add columns (tiles, H, block_x, heads, d) where they belong in the map x (H, W, heads, d), in place."""
    for first, column in zip(tiling.first_keys[1], columns, strict=True):
        x[:, first : first + tiling.block[1]] += column


# --- products of the tiles --------------------------------------------------------------------------------------------


def _per_tile(weights: np.ndarray) -> np.ndarray:
    """(keys, heads, tiles, queries) -> a view as matrices, (tiles, heads, keys, queries).

    In memory the keys come first, then everything else: a maximum or sum over the keys runs along long vectors.
    """
    return weights.transpose(2, 1, 0, 3)


def _dot(blocks: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Keys (tiles, heads, keys, d), queries (tiles, heads, d, queries) -> (keys, heads, tiles, queries)."""
    tiles, heads, keys, _ = blocks.shape
    products = np.empty((keys, heads, tiles, columns.shape[3]), columns.dtype)
    np.matmul(blocks, columns, out=_per_tile(products))
    return products


def _sum_keys(weights: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Weights (keys, heads, tiles, queries), keys (tiles, heads, keys, d) -> (tiles, heads, queries, d)."""
    return _per_tile(weights).swapaxes(2, 3) @ blocks


def _sum_queries(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Weights (keys, heads, tiles, queries), queries (tiles, heads, d, queries) -> (tiles, heads, keys, d)."""
    keys, heads, tiles, _ = weights.shape
    sums = np.empty((tiles, keys, heads, columns.shape[2]), columns.dtype).swapaxes(1, 2)  # heads side by side
    # the copy is worth it: small products of contiguous matrices take half the time
    return np.matmul(_per_tile(weights), np.ascontiguousarray(columns.swapaxes(2, 3)), out=sums)
