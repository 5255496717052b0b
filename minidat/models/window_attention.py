"""Attention inside windows, plain and shifted: the local half of DAT's blocks (Swin, arXiv 2103.14030)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Linear, LocalAttentionRecord, Module, Parameter
from ..nn.initializers import truncated_normal
from .patch_embedding import pad_to_multiple


class WindowAttention(Module):
    """Multi-head self-attention among the tokens of each window, with a bias learned for each relative position.

    x: (B, H, W, dim) -> the same shape. A `shifted` map is first rolled by ceil(window / 2), so that windows straddle
    the borders of the plain ones; a mask keeps apart what the roll brought together (DAT rounds up where Swin rounds
    down). A map that the window does not divide is padded with zeros at the right and the bottom, and cropped
    afterwards. As in the authors' code for dense prediction, the padding takes part: its keys and values are the
    biases of `qkv`. With a `local_trace` in the context, a LocalAttentionRecord is left in it.
    """

    def __init__(self, dim: int, heads: int, window: int, *, shifted: bool) -> None:
        self.qkv = Linear(dim, 3 * dim)
        self.projection = Linear(dim, dim)
        self.relative_position_bias_table = Parameter(((2 * window - 1) ** 2, heads), truncated_normal(0.01))
        self.heads, self.window = heads, window
        self.shift = -(-window // 2) if shifted else 0

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        window, shift = self.window, self.shift
        padded, pad_backward = pad_to_multiple(x, window)
        height, width = padded.shape[1:3]

        # 1. the tokens of each window: (B nW, w w, dim)
        rolled, roll_backward = context.apply(ops.cyclic_shift, padded, shift=shift)
        tokens, cut_backward = context.apply(ops.window_partition, rolled, window=window)

        # 2. attention among them, with a bias for relative positions and the shift's mask
        table = self.relative_position_bias_table
        bias, bias_backward = context.apply(ops.window_position_bias, table, window=window)
        mask = None
        if shift:
            mask = ops.shifted_window_mask(height, width, window=window, shift=shift)
            mask = mask.astype(x.dtype, copy=False)  # (nW, keys, queries)
        if context.local_trace is not None:
            record = self._record(tokens, bias, mask, x.shape, (height, width))
            context.local_trace[self.path] = record
        output, attend_backward = self._attend(tokens, bias, mask, len(x), context)

        # 3. back to the map
        size = {"window": window, "height": height, "width": width}
        output, reverse_backward = context.apply(ops.window_reverse, output, **size)
        output, unroll_backward = context.apply(ops.cyclic_shift, output, shift=-shift)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_padded, _ = pad_to_multiple(d_output, window)
            d_windows = reverse_backward(unroll_backward(d_padded))  # 3
            d_tokens, d_bias = attend_backward(d_windows)  # 2
            bias_backward(d_bias)
            return pad_backward(roll_backward(cut_backward(d_tokens)))  # 1

        return output[:, : x.shape[1], : x.shape[2]], backward

    def _attend(
        self, tokens: np.ndarray, bias: np.ndarray, mask: np.ndarray | None, batch: int, context: Context
    ) -> tuple[np.ndarray, Backward]:
        """Attention in each window: tokens (B nW, w w, dim) -> the same shape.

        bias: (heads, keys, queries), mask: (nW, keys, queries) or None. Backward returns the gradients of tokens and
        bias.
        """
        qkv, qkv_backward = self.qkv.forward(tokens, context)
        query, key, value = self._split_heads(qkv, batch)
        if mask is not None:
            bias = bias + mask[:, None]  # (nW, heads, keys, queries)
        heads = query, key, value
        scale = query.shape[-1] ** -0.5
        mixed, mixed_backward = context.apply(ops.attention, *heads, bias, scale=scale)
        side_by_side = mixed.swapaxes(2, 3)  # (B, nW, w w, heads, d)
        merged = side_by_side.reshape(tokens.shape)
        output, projection_backward = self.projection.forward(merged, context)

        def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            d_merged = projection_backward(d_output).reshape(side_by_side.shape)
            d_query, d_key, d_value, d_bias = mixed_backward(d_merged.swapaxes(2, 3))
            d_qkv = np.stack([d_query, d_key, d_value], axis=3)  # (B, nW, heads, 3, w w, d)
            d_tokens = qkv_backward(d_qkv.transpose(0, 1, 4, 3, 2, 5).reshape(qkv.shape))
            return d_tokens, d_bias if mask is None else d_bias.sum(axis=0)

        return output, backward

    def _split_heads(self, qkv: np.ndarray, batch: int) -> np.ndarray:
        """(B nW, w w, 3 dim) -> query, key and value, (3, B, nW, heads, w w, d), a view."""
        count, length, channels = qkv.shape
        shape = (batch, count // batch, length, 3, self.heads, channels // (3 * self.heads))
        return qkv.reshape(shape).transpose(3, 0, 1, 4, 2, 5)

    def _record(
        self,
        tokens: np.ndarray,
        bias: np.ndarray,
        mask: np.ndarray | None,
        shape: tuple[int, ...],
        padded_size: tuple[int, int],
    ) -> LocalAttentionRecord:
        """Whom each token attends to, and how strongly; tokens, bias and mask as for `_attend`, shape: that of x."""
        batch, height, width, dim = shape
        length, window_count = tokens.shape[1], len(tokens) // batch
        query, key, _ = self._split_heads(self.qkv.forward(tokens, Context())[0], batch)
        if mask is not None:
            bias = bias + mask[:, None]  # (nW, heads, keys, queries)
        probabilities = ops.attention_probabilities(query, key, bias, scale=(dim // self.heads) ** -0.5)
        probabilities = probabilities.reshape(batch * window_count, self.heads, length, length)

        # where the tokens of a window were before the roll: the same for each query of the window
        places = np.moveaxis(np.indices(padded_size), 0, -1)[None]  # (1, H, W, 2)
        rolled, _ = ops.cyclic_shift(places, shift=self.shift)
        seen, _ = ops.window_partition(rolled, window=self.window)  # (nW, keys, 2)
        seen = seen.reshape(window_count, 1, -1).repeat(length, axis=1)  # (nW, queries, keys 2)

        def on_map(windows: np.ndarray) -> np.ndarray:
            """(n nW, queries of the window, ...) -> (n, queries of the map, keys, ...)"""
            flat = windows.reshape(*windows.shape[:2], -1)
            rolled, _ = ops.window_reverse(flat, window=self.window, height=padded_size[0], width=padded_size[1])
            back, _ = ops.cyclic_shift(rolled, shift=-self.shift)
            return back[:, :height, :width].reshape(len(back), height * width, length, -1)

        attention = on_map(probabilities.transpose(0, 3, 2, 1))  # (B, queries, keys, heads)
        return LocalAttentionRecord(on_map(seen)[0], attention.transpose(0, 3, 2, 1), (height, width))
