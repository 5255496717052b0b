# minidat exercise: capstone
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (B, T, inputs), weight (outputs, inputs), bias (outputs,) -> output (B, T, outputs)."""
    return x @ weight.T + bias


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> np.ndarray:
    """x (N, C), weight (C,), bias (C,) -> output (N, C)."""
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) / std * weight + bias


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, scale: float) -> np.ndarray:
    """query (heads, Q, d), key (heads, K, d), value (heads, K, d), bias (heads, Q, K) -> output (heads, Q, d)."""
    scores = scale * query @ key.swapaxes(-1, -2) + bias
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True) @ value


def window_partition(x: np.ndarray, *, window: int) -> np.ndarray:
    """x (B, H, W, C), H and W multiples of w -> windows (B * H/w * W/w, w * w, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window * window, channels)


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    """windows (B * H/w * W/w, w * w, C) -> x (B, H, W, C), the inverse of window_partition."""
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // window, width // window, window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, height, width, channels)


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C); zeros outside of the map."""
    hats = []
    for axis, size in enumerate(x.shape[:2]):
        pixels = (positions[:, axis] + 1) / 2 * (size - 1)
        hats.append(np.maximum(0, 1 - np.abs(pixels[:, None] - np.arange(size))))
    return np.einsum("ny,nx,yxc->nc", *hats, x)


def sampling_points(offsets: np.ndarray, *, range_factor: float) -> np.ndarray:
    """offsets (H, W, 2) -> positions (H, W, 2): the reference points, moved."""
    size = np.array(offsets.shape[:2])
    lines = ((np.arange(n) + 0.5) / n * 2 - 1 for n in size)
    reference = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    return reference + np.tanh(offsets) * range_factor / size


def sample_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table (R, C), rows (K, Qy), columns (K, Qx) -> output (K, Qy, Qx)."""
    row_hats = np.maximum(0, 1 - np.abs(rows[..., None] - np.arange(len(table))))
    column_hats = np.maximum(0, 1 - np.abs(columns[..., None] - np.arange(table.shape[1])))
    return row_hats @ table @ column_hats.swapaxes(1, 2)
