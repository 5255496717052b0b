"""Attention inside windows, plain and shifted: the local half of DAT's blocks (Swin, arXiv 2103.14030)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, Module, Parameter
from ..nn.initializers import truncated_normal
from .patch_embedding import pad_to_multiple


class WindowAttention(Module):
    """Multi-head self-attention among the tokens of each window, with a bias learned for each relative position.

    x: (B, H, W, dim) -> the same shape. A `shifted` map is first rolled by ceil(window / 2), so that windows straddle
    the borders of the plain ones; a mask keeps apart what the roll brought together (DAT rounds up where Swin rounds
    down). A map that the window does not divide is padded with zeros at the right and the bottom, and cropped
    afterwards. As in the authors' code for dense prediction, the padding takes part: its keys and values are the
    biases of `qkv`.
    """

    def __init__(self, dim: int, heads: int, window: int, *, shifted: bool) -> None:
        self.qkv = Linear(dim, 3 * dim)
        self.projection = Linear(dim, dim)
        self.relative_position_bias_table = Parameter(((2 * window - 1) ** 2, heads), truncated_normal(0.01))
        self.heads, self.window = heads, window
        self.shift = -(-window // 2) if shifted else 0

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        dim, window, shift = x.shape[-1], self.window, self.shift
        padded, pad_backward = pad_to_multiple(x, window)
        height, width = padded.shape[1:3]

        # 1. tokens of each window: (B nW, w w, dim)
        rolled, roll_backward = context.apply(ops.cyclic_shift, padded, shift=shift)
        tokens, partition_backward = context.apply(ops.window_partition, rolled, window=window)

        # 2. queries, keys and values, with the windows on an axis of their own: each (B, nW, heads, w w, d)
        qkv, qkv_backward = self.qkv.forward(tokens, context)
        windows = (height // window) * (width // window)
        qkv = qkv.reshape(-1, windows, window * window, 3, self.heads, dim // self.heads)
        query, key, value = qkv.transpose(3, 0, 1, 4, 2, 5)

        # 3. attention, with the bias of the relative positions and the mask of the shift: (nW or 1, heads, keys,
        # queries)
        bias, bias_backward = context.apply(ops.window_position_bias, self.relative_position_bias_table, window=window)
        if shift:
            mask = ops.shifted_window_mask(height, width, window=window, shift=shift).astype(x.dtype)
            bias = bias + mask[:, None]
        mixed, attention_backward = context.apply(
            ops.attention, query, key, value, bias, scale=(dim // self.heads) ** -0.5, inference=not context.gradients
        )

        # 4. the heads side by side again, their mixture, and back to the map
        merged = mixed.swapaxes(2, 3).reshape(tokens.shape)
        output, projection_backward = self.projection.forward(merged, context)
        output, reverse_backward = context.apply(ops.window_reverse, output, window=window, height=height, width=width)
        output, unroll_backward = context.apply(ops.cyclic_shift, output, shift=-shift)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_padded, _ = pad_to_multiple(d_output, window)
            d_merged = projection_backward(reverse_backward(unroll_backward(d_padded)))  # 4
            d_mixed = d_merged.reshape(mixed_shape).swapaxes(2, 3)
            d_query, d_key, d_value, d_bias = attention_backward(d_mixed)  # 3
            bias_backward(d_bias.sum(axis=0) if shift else d_bias)
            d_qkv = np.stack([d_query, d_key, d_value]).transpose(1, 2, 4, 0, 3, 5)  # 2
            d_tokens = qkv_backward(d_qkv.reshape(*tokens_shape[:2], 3 * dim))
            return pad_backward(roll_backward(partition_backward(d_tokens)))  # 1

        mixed_shape, tokens_shape = mixed.swapaxes(2, 3).shape, tokens.shape
        return output[:, : x.shape[1], : x.shape[2]], backward
