"""Deformable attention of both papers. Maps are channels first, (B, C, H, W); coordinates are (y, x)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidat.models.config import DeformableConfig

from .layers import LayerNorm2d


class DeformableAttention(nn.Module):
    """Every query attends to the same few points, which move with the image.

    `last_positions` holds the points of the latest forward pass, (B, groups, Hk, Wk, 2), detached.

    Offsets switched off under the rule "dat++" means that the map is pooled, as in the authors' code, which then wants
    the stride to divide it. Two things are not theirs: the offset network keeps its parameters but does not run when
    offsets are off; and where "dat++" would divide by zero, on an axis of one cell, the point is the center, 0, and a
    squashed offset is 0 too.
    """

    def __init__(self, dim: int, heads: int, config: DeformableConfig, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.groups, self.scale = heads, config.groups, (dim // heads) ** -0.5
        self.kernel, self.stride, self.offsets = config.kernel, config.stride, config.offsets
        self.range_factor, self.rule = config.range_factor, config.position_rule
        self.padding = 0 if self.rule == "dat++" and self.kernel == self.stride else self.kernel // 2
        self.pooled = self.rule == "dat++" and not self.offsets
        self.encoding = config.position_encoding
        self.last_positions: Tensor | None = None

        group_dim = dim // self.groups
        self.conv_offset = nn.Sequential(
            nn.Conv2d(group_dim, group_dim, self.kernel, self.stride, self.padding, groups=group_dim),
            LayerNorm2d(group_dim),
            nn.GELU(),
            nn.Conv2d(group_dim, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(dim, dim, 1)
        self.proj_k = nn.Conv2d(dim, dim, 1)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.rpe_table = self._position_encoding(dim, *map_size)

    def _position_encoding(self, dim: int, height: int, width: int) -> nn.Module | nn.Parameter | None:
        """The learned part of the position encoding, made for queries of a map of this size."""
        if self.encoding == "none":
            return None
        if self.encoding == "depthwise":
            return nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        if self.encoding == "log_mlp":
            output = nn.Linear(32, self.heads // self.groups, bias=False)
            return nn.Sequential(nn.Linear(2, 32), nn.ReLU(inplace=True), output)
        if self.encoding == "fixed":
            table = torch.zeros(self.heads, height * width, math.prod(self._key_size(height, width)))
        else:
            table = torch.zeros(self.heads, 2 * height - 1, 2 * width - 1)
        return nn.Parameter(nn.init.trunc_normal_(table, std=0.01))

    def _key_size(self, height: int, width: int) -> tuple[int, int]:
        """(Hk, Wk): how many points sample a map of this size."""
        if self.pooled:
            return height // self.stride, width // self.stride
        rows, columns = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in (height, width))
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        query = self.proj_q(x)

        positions = self._positions(query)  # (B * groups, Hk, Wk, 2)
        self.last_positions = positions.detach().reshape(batch, self.groups, *positions.shape[1:])
        points = positions.shape[1] * positions.shape[2]
        if self.pooled:
            sampled = F.avg_pool2d(x, self.stride, self.stride)
        else:
            group_maps = x.reshape(batch * self.groups, channels // self.groups, height, width)
            sampled = F.grid_sample(group_maps, positions[..., (1, 0)], mode="bilinear", align_corners=True)
        sampled = sampled.reshape(batch, channels, 1, points)

        head_channels = channels // self.heads
        query = query.reshape(batch * self.heads, head_channels, height * width)
        key = self.proj_k(sampled).reshape(batch * self.heads, head_channels, points)
        value = self.proj_v(sampled).reshape(batch * self.heads, head_channels, points)

        scores = torch.einsum("bcm,bcn->bmn", query, key)  # (B * heads, H * W, points)
        scores = scores.mul(self.scale)
        if self.encoding in ("relative", "fixed", "log_mlp"):
            scores = scores + self._bias(positions, batch, height, width)
        out = torch.einsum("bmn,bcn->bcm", F.softmax(scores, dim=2), value)
        if self.encoding == "depthwise":
            out = out + self.rpe_table(query.reshape(batch, channels, height, width)).reshape(out.shape)
        return self.proj_out(out.reshape(batch, channels, height, width))

    def _positions(self, query: Tensor) -> Tensor:
        """(B * groups, Hk, Wk, 2) sampling points: the reference points plus the offsets, in [-1, 1] units."""
        batch, channels, height, width = query.shape
        count = batch * self.groups
        rows, columns = self._key_size(height, width)
        reference = grid(reference_axis(rows, self.rule, query), reference_axis(columns, self.rule, query))
        reference = reference[None].expand(count, -1, -1, -1)
        if not self.offsets:
            offsets = torch.zeros_like(reference)
        else:
            offsets = self.conv_offset(query.reshape(count, channels // self.groups, height, width)).contiguous()
            if self.range_factor is not None:
                cells = [n if self.rule == "dat" else n - 1 for n in (rows, columns)]
                units = query.new_tensor([1 / n if n > 0 else 0 for n in cells]).reshape(1, 2, 1, 1)
                offsets = offsets.tanh().mul(units).mul(self.range_factor)
            offsets = offsets.permute(0, 2, 3, 1)
        positions = offsets + reference
        if self.range_factor is not None:
            return positions
        return positions.tanh() if self.rule == "dat" else positions.clamp(-1, 1)

    def _bias(self, positions: Tensor, batch: int, height: int, width: int) -> Tensor:
        """(B * heads or broadcastable, H * W, points): the learned bias for the distance of each query and point."""
        count, queries = batch * self.groups, height * width
        points = positions.shape[1] * positions.shape[2]
        shape = batch * self.heads, queries, points
        if self.encoding == "fixed":
            return self.rpe_table[None].expand(batch, -1, -1, -1).reshape(shape)

        query_grid = grid(query_axis(height, self.rule, positions), query_axis(width, self.rule, positions))
        distance = query_grid.reshape(1, queries, 1, 2) - positions.reshape(count, 1, points, 2)
        if self.encoding == "log_mlp":
            distance = distance.mul(4)
            distance = torch.sign(distance) * torch.log2(torch.abs(distance) + 1) / math.log2(8)
            return self.rpe_table(distance).permute(0, 3, 1, 2).reshape(shape)
        tables = self.rpe_table[None].expand(batch, -1, -1, -1)
        tables = tables.reshape(count, self.heads // self.groups, *self.rpe_table.shape[1:])
        distance = distance.mul(0.5)  # the table spans distances from -2 to 2
        return F.grid_sample(tables, distance[..., (1, 0)], mode="bilinear", align_corners=True).reshape(shape)


def reference_axis(count: int, rule: str, like: Tensor) -> Tensor:
    """(count,) coordinates of the sampling points before their offsets; by the rule "dat++" the last lies beyond 1."""
    centers = torch.linspace(0.5, count - 0.5, count, dtype=like.dtype, device=like.device)
    if rule == "dat":
        return centers / count * 2 - 1
    return centers / (count - 1) * 2 - 1 if count > 1 else torch.zeros_like(centers)


def query_axis(count: int, rule: str, like: Tensor) -> Tensor:
    """(count,) coordinates of the queries, from which the position bias measures distances."""
    if rule == "dat":
        return reference_axis(count, rule, like)
    cells = torch.arange(count, dtype=like.dtype, device=like.device)
    return cells / (count - 1) * 2 - 1 if count > 1 else torch.zeros_like(cells)


def grid(y: Tensor, x: Tensor) -> Tensor:
    """(H, W, 2) points (y, x) of a product grid."""
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
