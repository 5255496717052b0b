"""Attention of every token to those around it: the local half of DAT++'s blocks (NAT, arXiv 2204.07143)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, LocalAttentionRecord, Module, Parameter
from ..nn.initializers import truncated_normal
from .config import NEIGHBORHOOD, StageConfig, check_dtype, check_stage


class NeighborhoodAttention(Module):
    """Multi-head self-attention of each token to the kernel x kernel tokens around it, with a relative position bias.

    x: (B, H, W, dim) -> the same shape. A map smaller than the kernel is first padded with zeros at the right and the
    bottom, and cropped afterwards. As in the authors' code the padding takes part: its keys and values are the biases
    of `qkv`. With a `local_trace` in the context, a LocalAttentionRecord is left in it.
    """

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        self.qkv = Linear(dim, 3 * dim)
        self.projection = Linear(dim, dim)
        self.relative_position_bias_table = Parameter((heads, 2 * kernel - 1, 2 * kernel - 1), truncated_normal(0.01))
        self.heads, self.kernel = heads, kernel

    @classmethod
    def create(
        cls, dim: int, heads: int, kernel: int = 7, *, dtype: Any = np.float32, seed: int = 0
    ) -> NeighborhoodAttention:
        """A layer of its own with fresh random weights, for a network that is not one of ours.

        dim: channels; kernel: side of the neighborhoods, odd; dtype: float32 or float64; the same seed draws the same
        weights. Raises ConfigError for a layer that cannot be built.
        """
        check_stage(StageConfig(dim, heads, (NEIGHBORHOOD,), neighborhood=kernel), cls.__name__)
        layer = cls(dim, heads, kernel)
        layer.initialize(np.random.default_rng(seed), check_dtype(dtype))
        return layer

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        batch, height, width, dim = x.shape
        missing = ((0, 0), (0, max(0, self.kernel - height)), (0, max(0, self.kernel - width)), (0, 0))
        if np.any(missing):
            x = np.pad(x, missing)

        # queries, keys and values: each (B, H, W, heads, d), strided views of one array
        qkv, qkv_backward = self.qkv.forward(x, context)
        heads_shape = (*x.shape[:3], 3, self.heads, dim // self.heads)
        query, key, value = np.moveaxis(qkv.reshape(heads_shape), 3, 0)
        mixed, attention_backward = context.apply(
            ops.neighborhood_attention,
            query,
            key,
            value,
            self.relative_position_bias_table,
            kernel=self.kernel,
            scale=(dim // self.heads) ** -0.5,
        )
        if context.local_trace is not None:
            context.local_trace[self.path] = self._record(query, key, (height, width))
        merged = mixed[:, :height, :width].reshape(batch, height, width, dim)
        output, projection_backward = self.projection.forward(merged, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_merged = projection_backward(d_output)
            if np.any(missing):
                d_merged = np.pad(d_merged, missing)
            d_heads = attention_backward(d_merged.reshape(*heads_shape[:3], *heads_shape[4:]))
            d_x = qkv_backward(np.stack(d_heads, axis=3).reshape(*heads_shape[:3], 3 * dim))
            return d_x[:, :height, :width]

        return output, backward

    def _record(self, query: np.ndarray, key: np.ndarray, map_size: tuple[int, int]) -> LocalAttentionRecord:
        """Whom each token of the map attends to, and how strongly; query, key: (B, H, W, heads, d), maybe padded."""
        (batch, *padded_size, heads, d), (height, width) = query.shape, map_size
        table = self.relative_position_bias_table.value
        probabilities = ops.neighborhood_probabilities(query, key, table, kernel=self.kernel, scale=d**-0.5)
        attention = probabilities.reshape(batch, heads, -1, *padded_size)[..., :height, :width]
        tokens = ops.neighborhood_tokens(*padded_size, kernel=self.kernel)
        tokens = tokens.reshape(*padded_size, -1, 2)[:height, :width]
        return LocalAttentionRecord(
            tokens.reshape(height * width, -1, 2), attention.reshape(batch, heads, -1, height * width), map_size
        )
