"""Deformable multi-head self-attention: the paper's contribution (DAT, section 3.2 and Fig. 2).

Queries decide where to look: from each group of their channels a small network predicts how far the points of a uniform
grid move; keys and values are read from the map at the moved points, and are shared by all queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..nn import AttentionRecord, Backward, Context, Conv2d, LayerNorm, Linear, Module, Parameter, depthwise_conv
from ..nn.initializers import truncated_normal
from .config import DEFORMABLE, DeformableConfig, StageConfig, as_image_size, check_dtype, check_image_size, check_stage


class DeformableAttention(Module):
    """x: (B, H, W, dim) -> the same shape; `sample_grid` tells how many points are sampled for each group of channels.

    `table_size` is the (H, W) of the map that bias tables are made for. The relative table is sampled in normalized
    coordinates and serves a map of any size, the MLP and the convolution too; a fixed table serves its own size only
    (ShapeError otherwise). With a `trace` in the context, an AttentionRecord is left in it.
    """

    def __init__(self, dim: int, heads: int, config: DeformableConfig, table_size: tuple[int, int]) -> None:
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.projection = Linear(dim, dim)
        self.heads, self.config = heads, config

        group_dim = dim // config.groups
        if config.offsets:
            padding = 0 if self._whole_cells() else config.kernel // 2
            self.offset_conv = Conv2d(
                group_dim, group_dim, config.kernel, stride=config.stride, padding=padding, groups=group_dim
            )
            self.offset_norm = LayerNorm(group_dim)
            self.offset_projection = Linear(group_dim, 2, bias=False)

        height, width = table_size
        if config.position_encoding == "relative":
            shape = (heads, 2 * height - 1, 2 * width - 1)
            self.relative_position_bias_table = Parameter(shape, truncated_normal(0.01))
        elif config.position_encoding == "fixed":
            samples_y, samples_x = self.sample_grid(table_size)
            self.fixed_position_bias = Parameter((heads, height * width, samples_y * samples_x), truncated_normal(0.01))
        elif config.position_encoding == "depthwise":
            self.position_conv = depthwise_conv(dim)
        elif config.position_encoding == "log_mlp":
            self.position_mlp = PositionMLP(heads // config.groups)

    @classmethod
    def create(
        cls,
        dim: int,
        heads: int,
        map_size: int | tuple[int, int],
        *,
        groups: int = 1,
        kernel: int = 5,
        stride: int = 1,
        dtype: Any = np.float32,
        seed: int = 0,
        **settings: Any,
    ) -> DeformableAttention:
        """A layer of its own with fresh random weights, for a network that is not one of ours.

        dim: channels; map_size: (H, W) of the maps it is made for, or one side of a square; other sizes do too (but see
        above); groups, kernel, stride, settings: fields of DeformableConfig; dtype: float32 or float64; the same seed
        draws the same weights. Raises ConfigError for a layer that cannot be built.
        """
        config = DeformableConfig(groups, kernel, stride, **settings)
        check_stage(StageConfig(dim, heads, (DEFORMABLE,), deformable=config), cls.__name__)
        table_size = as_image_size(map_size)
        check_image_size(cls.__name__, "map_size", table_size)
        layer = cls(dim, heads, config, table_size)
        layer.initialize(np.random.default_rng(seed), check_dtype(dtype))
        return layer

    def sample_grid(self, map_size: tuple[int, int]) -> tuple[int, int]:
        """(Hk, Wk): the sampling points on a map, which are what the offset convolution leaves, or the pooling."""
        stride = self.config.stride
        height, width = (n // stride if self._whole_cells() else -(-n // stride) for n in map_size)
        return height, width

    def _whole_cells(self) -> bool:
        """Whether points stand for stride x stride cells that do not overlap (cells cut off by the border get none)."""
        config = self.config
        return config.position_rule == "dat++" and (config.kernel == config.stride or not config.offsets)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        scale = (x.shape[-1] // self.heads) ** -0.5
        query, query_backward = self.query.forward(x, context)

        # 1. where to look, (B, groups, Hk, Wk, 2), and what is there, (B, Hk, Wk, dim)
        positions, positions_backward = self._positions(query, context)
        sampled, sample_backward = self._sample(x, positions, context)
        key, key_backward = self.key.forward(sampled, context)
        value, value_backward = self.value.forward(sampled, context)

        # 2. attention to the samples: bias (B or 1, heads, keys, queries) or None
        bias, bias_backward = self._position_bias(positions, x.shape[1:3], context)
        heads = [_split_heads(tokens, self.heads) for tokens in (query, key, value)]
        mixed, attention_backward = context.apply(ops.attention, *heads, bias, scale=scale)
        merged = _merge_heads(mixed, x.shape)
        if context.trace is not None:
            queries, keys, _ = heads
            probabilities = ops.attention_probabilities(queries, keys, bias, scale=scale)
            context.trace[self.path] = self._record(positions, probabilities, x.shape[1:3])
        if self.config.position_encoding == "depthwise":
            position, position_backward = self.position_conv.forward(query, context)
            merged = merged + position  # not in place: attention's backward needs it

        # 3. the mixture of the heads
        output, projection_backward = self.projection.forward(merged, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_merged = projection_backward(d_output)  # 3
            d_mixed = _split_heads(d_merged, self.heads)
            d_query, d_key, d_value, *d_bias = attention_backward(d_mixed)  # 2
            d_positions = bias_backward(*d_bias)
            d_sampled = value_backward(_merge_heads(d_value, sampled.shape))  # 1
            d_sampled += key_backward(_merge_heads(d_key, sampled.shape))
            d_x, d_sample_positions = sample_backward(d_sampled)
            d_query = _merge_heads(d_query, x.shape)
            d_query = d_query + positions_backward(d_positions + d_sample_positions)
            if self.config.position_encoding == "depthwise":
                d_query += position_backward(d_merged)
            return d_x + query_backward(d_query)

        return output, backward

    def _positions(self, query: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        """The offset network (DAT, Fig. 2b): query (B, H, W, dim) -> positions (B, groups, Hk, Wk, 2)."""
        config = self.config
        batch, height, width, dim = query.shape
        rule: dict[str, Any] = {"rule": config.position_rule, "range_factor": config.range_factor}
        if not config.offsets:
            grid = self.sample_grid((height, width))
            offsets = np.zeros((batch, config.groups, *grid, 2), query.dtype)
            positions, _ = ops.sampling_points(offsets, **rule)
            return positions, lambda d_positions: np.zeros_like(query)

        # the groups share one network: they become a part of the batch
        grouped = query.reshape(batch, height, width, config.groups, -1)
        grouped = grouped.transpose(0, 3, 1, 2, 4)
        grouped = grouped.reshape(-1, height, width, dim // config.groups)
        o, conv_backward = self.offset_conv.forward(grouped, context)
        o, norm_backward = self.offset_norm.forward(o, context)
        o, gelu_backward = context.apply(ops.gelu, o)
        o, projection_backward = self.offset_projection.forward(o, context)
        offsets = o.reshape(batch, config.groups, *o.shape[1:])  # (B, groups, Hk, Wk, 2)
        positions, points_backward = context.apply(ops.sampling_points, offsets, **rule)

        def backward(d_positions: np.ndarray) -> np.ndarray:
            d_o = projection_backward(points_backward(d_positions).reshape(o.shape))
            d_grouped = conv_backward(norm_backward(gelu_backward(d_o)))
            d_grouped = d_grouped.reshape(batch, config.groups, height, width, -1)
            return d_grouped.transpose(0, 2, 3, 1, 4).reshape(query.shape)

        return positions, backward

    def _sample(self, x: np.ndarray, positions: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        """x (B, H, W, dim) read at the positions -> (B, Hk, Wk, dim); backward returns d_x and d_positions."""
        if self.config.offsets or self.config.position_rule == "dat":
            return context.apply(ops.grid_sample, x, positions)
        # DAT++ without offsets pools instead, since its reference points do not lie at the centers of the cells
        pooled, pool_backward = context.apply(ops.average_pool, x, kernel=self.config.stride)
        return pooled, lambda d_pooled: (pool_backward(d_pooled), np.zeros_like(positions))

    def _position_bias(
        self, positions: np.ndarray, map_size: tuple[int, int], context: Context
    ) -> tuple[np.ndarray | None, Backward]:
        """What the scores get added, (B or 1, heads, keys, queries) or None; backward(d_bias) returns d_positions."""
        if self.config.position_encoding in ("none", "depthwise"):
            return None, lambda: 0.0
        if self.config.position_encoding == "fixed":
            _, queries, keys = self.fixed_position_bias.shape
            found = (map_size[0] * map_size[1], positions.shape[2] * positions.shape[3])
            if found != (queries, keys):
                raise ShapeError(
                    f"fixed position bias: found a map of {found[0]} queries and {found[1]} samples, expected "
                    f"{queries} and {keys}; load the model with image_size set to the size of these images"
                )
            bias, transpose_backward = context.apply(_swap_last_axes, self.fixed_position_bias)

            def backward(d_bias: np.ndarray) -> float:
                transpose_backward(d_bias)
                return 0.0  # the positions do not matter to it

            return bias, backward
        if self.config.position_encoding == "log_mlp":
            return self._log_mlp_bias(positions, map_size, context)
        return self._relative_bias(positions, map_size, context)

    def _relative_bias(
        self, positions: np.ndarray, map_size: tuple[int, int], context: Context
    ) -> tuple[np.ndarray, Backward]:
        """The table at (query - position) / 2, in [-1, 1] over its 2H - 1 rows and 2W - 1 columns (section 3.2)."""
        batch, groups = positions.shape[:2]
        points = positions.reshape(batch, groups, -1, 2)  # (B, groups, K, 2)
        table = self.relative_position_bias_table
        scales = [(n - 1) / 2 for n in table.shape[1:]]  # pixels of the table per unit
        grids = []  # rows (B, groups, K, H) and columns (B, groups, K, W)
        for axis, (n, scale) in enumerate(zip(map_size, scales, strict=True)):
            queries = _query_points(n, self.config, points.dtype)
            displacement = queries - points[..., axis, None]
            grids.append((displacement / 2 + 1) * points.dtype.type(scale))
        bias, sample_backward = context.apply(ops.sample_product_grid, table, *grids)

        def backward(d_bias: np.ndarray) -> np.ndarray:
            d_grids = sample_backward(d_bias)
            pairs = zip(d_grids, scales, strict=True)
            d_points = [d_grid.sum(axis=-1) * (-scale / 2) for d_grid, scale in pairs]
            return np.stack(d_points, axis=-1).reshape(positions.shape)

        return bias.reshape(batch, self.heads, points.shape[2], -1), backward

    def _log_mlp_bias(
        self, positions: np.ndarray, map_size: tuple[int, int], context: Context
    ) -> tuple[np.ndarray, Backward]:
        """A small network of the log-spaced displacement 4 (query - position), whose components lie in [-8, 8]."""
        batch, groups = positions.shape[:2]
        query_y, query_x = (_query_points(n, self.config, positions.dtype) for n in map_size)
        queries = np.stack(np.meshgrid(query_y, query_x, indexing="ij"), axis=-1).reshape(-1, 2)  # (Q, 2)
        displacement = 4 * (queries - positions.reshape(batch, groups, -1, 1, 2))  # (B, groups, K, Q, 2)
        spaced, spaced_backward = context.apply(ops.log_spaced, displacement)
        bias, mlp_backward = self.position_mlp.forward(spaced, context)  # (B, groups, K, Q, heads / groups)
        bias = bias.transpose(0, 1, 4, 2, 3).reshape(batch, self.heads, *displacement.shape[2:4])

        def backward(d_bias: np.ndarray) -> np.ndarray:
            d_bias = d_bias.reshape(batch, groups, -1, *d_bias.shape[2:]).transpose(0, 1, 3, 4, 2)
            d_displacement = spaced_backward(mlp_backward(d_bias))
            return -4 * d_displacement.sum(axis=3).reshape(positions.shape)

        return bias, backward

    def _record(self, positions: np.ndarray, probabilities: np.ndarray, map_size: tuple[int, int]) -> AttentionRecord:
        """For pictures: these and the reference points (Hk, Wk, 2)."""
        lines = [
            ops.reference_points(n, rule=self.config.position_rule, dtype=positions.dtype) for n in positions.shape[2:4]
        ]
        reference = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
        return AttentionRecord(positions, reference, probabilities, map_size)


class PositionMLP(Module):
    """Linear, ReLU, linear without bias: 2 coordinates -> one bias for each head of a group (DAT++; Swin V2, Eq. 3)."""

    def __init__(self, heads: int) -> None:
        self.hidden = Linear(2, 32)
        self.output = Linear(32, heads, bias=False)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        h, hidden_backward = self.hidden.forward(x, context)
        h, relu_backward = context.apply(ops.relu, h)
        output, output_backward = self.output.forward(h, context)
        return output, lambda d_output: hidden_backward(relu_backward(output_backward(d_output)))


def _query_points(size: int, config: DeformableConfig, dtype: np.dtype) -> np.ndarray:
    return ops.query_points(size, rule=config.position_rule, dtype=dtype)


def _split_heads(tokens: np.ndarray, heads: int) -> np.ndarray:
    """(B, H, W, heads d) -> (B, heads, H W, d), a view."""
    batch, height, width, dim = tokens.shape
    return tokens.reshape(batch, height * width, heads, dim // heads).swapaxes(1, 2)


def _merge_heads(tokens: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(B, heads, H W, d) -> `shape`, (B, H, W, heads d): the inverse of `_split_heads`."""
    return tokens.swapaxes(1, 2).reshape(shape)


def _swap_last_axes(table: np.ndarray) -> tuple[np.ndarray, Backward]:
    return table.swapaxes(1, 2), lambda d_output: (d_output.swapaxes(1, 2),)
