"""PyTorch's way of each operator that a model calls, on tensors of our shapes: the peers in `minidat bench --plain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, scale: float) -> Tensor:
    mask = None if bias is None else bias.transpose(-1, -2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, **settings: Any) -> Tensor:
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, **settings).permute(0, 2, 3, 1)


def local_perception(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x + conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)


def convolutional_mlp(
    x: Tensor, weight1: Tensor, bias1: Tensor, kernel: Tensor, kernel_bias: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    h = local_perception(F.linear(x, weight1, bias1), kernel, kernel_bias)
    return F.linear(F.gelu(h), weight2, bias2)


def residual(x: Tensor, branch: Tensor, factors: Tensor | None) -> Tensor:
    return x + branch if factors is None else torch.addcmul(x, branch, factors)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def cyclic_shift(x: Tensor, *, shift: int) -> Tensor:
    return x if shift == 0 else x.roll((-shift, -shift), (1, 2))


def window_partition(x: Tensor, *, window: int) -> Tensor:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def window_reverse(windows: Tensor, *, window: int, height: int, width: int) -> Tensor:
    x = windows.reshape(-1, height // window, width // window, window, window, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def grid_sample(x: Tensor, positions: Tensor, *, align_corners: bool = True) -> Tensor:
    (batch, height, width, channels), (_, groups, rows, columns, _) = x.shape, positions.shape
    maps = x.permute(0, 3, 1, 2).reshape(batch * groups, channels // groups, height, width)
    grid = positions.flip(-1).reshape(batch * groups, rows, columns, 2)
    output = F.grid_sample(maps, grid, "bilinear", "zeros", align_corners)
    return output.reshape(batch, channels, rows, columns).permute(0, 2, 3, 1)


def sample_product_grid(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Four gathers for each query and key, as the authors do it."""
    (heads, table_rows, table_columns), (batch, groups, keys, grid_rows) = table.shape, rows.shape
    grid_columns = columns.shape[-1]
    y = ((2 * rows + 1) / table_rows - 1)[..., :, None].expand(-1, -1, -1, -1, grid_columns)
    x = ((2 * columns + 1) / table_columns - 1)[..., None, :].expand(-1, -1, -1, grid_rows, -1)
    grid = torch.stack([x, y], dim=-1).reshape(batch * groups, keys * grid_rows, grid_columns, 2)
    tables = table.expand(batch, -1, -1, -1).reshape(batch * groups, heads // groups, table_rows, table_columns)
    output = F.grid_sample(tables, grid, "bilinear", "zeros", align_corners=False)
    return output.reshape(batch, heads, keys, grid_rows, grid_columns)


PEERS: dict[str, Callable[..., Tensor]] = {
    "attention": attention,
    "conv2d": conv2d,
    "convolutional_mlp": convolutional_mlp,
    "cyclic_shift": cyclic_shift,
    "gelu": F.gelu,
    "global_average_pool": lambda x: x.mean(dim=(1, 2)),
    "grid_sample": grid_sample,
    "layer_norm": layer_norm,
    "linear": F.linear,
    "local_perception": local_perception,
    "mlp": mlp,
    "residual": residual,
    "sample_product_grid": sample_product_grid,
    "window_partition": window_partition,
    "window_reverse": window_reverse,
}
