"""Window and shifted-window attention (Swin's). Maps are channels first, (B, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowAttention(nn.Module):
    """Attention within non-overlapping windows, with a learned bias per relative position (Swin's).

    Where the window does not divide the map, it is padded with zeros at the right and the bottom (as in detectors).
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window, self.scale = heads, window, (dim // heads) ** -0.5
        self.proj_qkv = nn.Linear(dim, 3 * dim)
        self.proj_out = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.01)

        y, x = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
        row, column = (axis[:, None] - axis[None, :] + window - 1 for axis in (y, x))
        self.register_buffer("relative_position_index", row * (2 * window - 1) + column, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(self.padded(x))[:, :, : x.shape[2], : x.shape[3]]

    def attend(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: a map that the window divides; mask: (windows, n, n) or None."""
        batch, channels, height, width = x.shape
        w, n = self.window, self.window**2  # side of a window, tokens in it
        rows, columns = height // w, width // w
        x = x.reshape(batch, channels, rows, w, columns, w).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(batch * rows * columns, n, channels)

        query, key, value = self.proj_qkv(x).chunk(3, dim=2)
        query = query * self.scale
        query, key, value = (t.reshape(len(x), n, self.heads, -1).permute(0, 2, 1, 3) for t in (query, key, value))
        scores = torch.einsum("bhmc,bhnc->bhmn", query, key)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(n, n, self.heads)
        scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:  # (windows, n, n)
            scores = scores.reshape(batch, len(mask), self.heads, n, n) + mask[:, None]
            scores = scores.reshape(len(x), self.heads, n, n)
        x = torch.einsum("bhmn,bhnc->bhmc", scores.softmax(dim=3), value)

        x = self.proj_out(x.permute(0, 2, 1, 3).reshape(-1, n, channels))
        x = x.reshape(batch, rows, columns, w, w, channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(batch, channels, height, width)

    def padded(self, x: Tensor) -> Tensor:
        bottom, right = (-side % self.window for side in x.shape[2:])
        return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


class ShiftedWindowAttention(WindowAttention):
    """Window attention on a map rolled by half a window, so that information crosses the borders of the windows.

    Tokens that only the roll made neighbors are kept apart by a mask, made for the map size the model is built for, or
    for another one when it comes.
    """

    attn_mask: Tensor

    def __init__(self, dim: int, heads: int, window: int, map_size: tuple[int, int]) -> None:
        super().__init__(dim, heads, window)
        self.shift = -(-window // 2)
        self.mask_size: tuple[int, ...] = tuple(-(-side // window) * window for side in map_size)
        self.register_buffer("attn_mask", self.mask(), persistent=False)

    def mask(self) -> Tensor:
        """(windows, n, n) for a map of `mask_size`."""
        window, (height, width) = self.window, self.mask_size
        slices = (slice(0, -window), slice(-window, -self.shift), slice(-self.shift, None))
        region = torch.zeros(height, width)
        for i, rows in enumerate(slices):
            for j, columns in enumerate(slices):
                region[rows, columns] = 3 * i + j
        region = region.reshape(height // window, window, width // window, window).transpose(1, 2)
        region = region.reshape(-1, window**2)
        differs = region[:, None, :] != region[:, :, None]
        return torch.zeros(differs.shape).masked_fill(differs, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        padded = self.padded(x)
        if padded.shape[2:] != self.mask_size:
            self.mask_size = tuple(padded.shape[2:])
            self.attn_mask = self.mask().to(x)
        rolled = torch.roll(padded, shifts=(-self.shift, -self.shift), dims=(2, 3))
        rolled = self.attend(rolled, self.attn_mask)
        return torch.roll(rolled, shifts=(self.shift, self.shift), dims=(2, 3))[:, :, : x.shape[2], : x.shape[3]]
