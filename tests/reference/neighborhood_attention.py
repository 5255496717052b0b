"""Neighborhood attention without a compiled kernel: NATTEN's result from dense products of small tiles.

Every query sees a k x k window that slides inward at the border, so neighbors share most of their keys. A tile of
2 x 14 queries and the (k + 1) x (k + 13) keys that any of them sees go through one small matrix product; a bias of -inf
hides the keys outside a query's own window. Measured in datpp_tiny as a whole (float32, two threads, 224 pixels, batch
1 and 8): gathering the k x k keys of every query instead takes 1.4 and 2.8 times as long, one tile for each row of the
map 1.1 and 1.3 times, and `F.unfold` is slower than either; tiles of 4 x 7, 7 x 7 and 4 x 14 are within a few percent.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = (2, 14)  # queries (rows, columns)


class NeighborhoodAttention(nn.Module):
    """Attention of every query to the `kernel` x `kernel` keys around it. Maps are channels first, (B, C, H, W).

    A map smaller than the kernel is padded with zeros at the right and bottom before the first linear layer, as in the
    authors' code: the padded tokens take part, with that layer's biases, and are cropped at the end.
    """

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.kernel, self.scale = heads, kernel, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rpb = nn.Parameter(torch.zeros(heads, 2 * kernel - 1, 2 * kernel - 1))
        nn.init.trunc_normal_(self.rpb, std=0.02)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        _, height, width, channels = x.shape
        if height < self.kernel or width < self.kernel:
            x = F.pad(x, (0, 0, 0, max(0, self.kernel - width), 0, max(0, self.kernel - height)))
        qkv = self.qkv(x).reshape(*x.shape[:3], 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 4, 1, 2, 5)  # each (B, heads, H, W, channels of a head)
        out = neighborhood_attention(query * self.scale, key, value, self.rpb)
        out = out.permute(0, 2, 3, 1, 4).reshape(x.shape)[:, :height, :width]
        return self.proj(out).permute(0, 3, 1, 2)


def neighborhood_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query . key + bias) value over each query's window.

    query, key, value: (B, heads, H, W, d) with H, W at least the kernel k; bias: (heads, 2k - 1, 2k - 1), entry
    (key - query + k - 1) on each axis. Returns (B, heads, H, W, d).
    """
    batch, heads, height, width, d = query.shape
    kernel = (bias.shape[1] + 1) // 2
    keys, entries, (rows, columns) = _tiles(height, width, kernel)
    tiles = batch, heads, rows * columns, -1, d

    missing = (0, columns * TILE[1] - width, 0, rows * TILE[0] - height)
    if any(missing):
        query = F.pad(query, (0, 0, *missing))
    query = query.reshape(batch, heads, rows, TILE[0], columns, TILE[1], d).transpose(3, 4).reshape(tiles)
    index = torch.from_numpy(keys)
    key = key.reshape(batch, heads, height * width, d).index_select(2, index).reshape(tiles)
    value = value.reshape(batch, heads, height * width, d).index_select(2, index).reshape(tiles)
    hidden = F.pad(bias, (0, 1, 0, 1), value=float("-inf")).reshape(heads, -1)  # the last row and column hide a key
    tile_bias = hidden.index_select(1, torch.from_numpy(entries)).reshape(heads, rows * columns, query.shape[3], -1)

    scores = torch.matmul(query, key.transpose(3, 4)).add_(tile_bias)
    scores = scores.softmax(dim=-1)
    out = torch.matmul(scores, value)
    out = out.reshape(batch, heads, rows, columns, *TILE, d).transpose(3, 4)
    return out.reshape(batch, heads, rows * TILE[0], columns * TILE[1], d)[:, :, :height, :width]


@functools.cache
def _tiles(height: int, width: int, kernel: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Which keys each tile sees, which entry of the padded bias each query and key takes, and (rows, columns) of tiles.

    Both index arrays are flat: (tiles * keys,) into the map, (tiles * queries * keys,) into the table of side 2k.
    """
    key_y, entry_y = _axis_tiles(height, kernel, TILE[0])
    key_x, entry_x = _axis_tiles(width, kernel, TILE[1])
    keys = key_y[:, None, :, None] * width + key_x[None, :, None, :]
    entries = entry_y[:, None, :, None, :, None] * (2 * kernel) + entry_x[None, :, None, :, None, :]
    return keys.reshape(-1), entries.reshape(-1), (len(key_y), len(key_x))


def _axis_tiles(length: int, kernel: int, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """(tiles, keys) positions of the keys a tile sees on one axis, and (tiles, queries, keys) entries of the bias.

    The queries that fill up the last tile, beyond the map, keep finite scores: they are cropped, but must not be NaN.
    """
    first_query = np.arange(0, length, tile)
    reach = min(tile + kernel - 1, length)
    keys = np.clip(first_query - kernel // 2, 0, length - reach)[:, None] + np.arange(reach)
    queries = first_query[:, None] + np.arange(tile)
    start = np.clip(queries - kernel // 2, 0, length - kernel)[:, :, None]
    keys_, queries_ = keys[:, None, :], queries[:, :, None]
    visible = (keys_ >= start) & (keys_ < start + kernel)
    entries = np.where(visible, np.clip(keys_ - queries_ + kernel - 1, 0, 2 * kernel - 2), 2 * kernel - 1)
    return keys, entries
