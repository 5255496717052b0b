# minidat exercise: capstone
"""The capstone: your own operators classify a photograph (chapter 11, docs/pages/tutorial/11-network.md).

You have written the parts of a deformable attention transformer. Put them together here: paste the functions of your
solutions in place of those below, with whatever they need. A function that returns (output, backward) can stay as it
is; the backward is ignored. One is new, since `attention` is given a bias:

    scores = scale * query key^T + bias                 (heads, Q, K)
    output = softmax(scores) value                      (heads, Q, d)

Each is first checked by itself. Then the model that comes with minidat, a network of seven blocks, classifies a
photograph of 32 x 32 pixels. Wherever it has linear layers, norms, attention, windows, offsets and samples, yours
compute. Its convolutions, its GELU and its sums are minidat's own. The logits must be those that `minidat classify`
gets, to 0.0001.

Check it with: minidat grade examples/exercises/capstone.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

import numpy as np


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (B, T, inputs), weight (outputs, inputs), bias (outputs,) -> output (B, T, outputs)."""
    raise NotImplementedError


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> np.ndarray:
    """x (N, C), weight (C,), bias (C,) -> output (N, C)."""
    raise NotImplementedError


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, scale: float) -> np.ndarray:
    """query (heads, Q, d), key (heads, K, d), value (heads, K, d), bias (heads, Q, K) -> output (heads, Q, d)."""
    raise NotImplementedError


def window_partition(x: np.ndarray, *, window: int) -> np.ndarray:
    """x (B, H, W, C), H and W multiples of w -> windows (B * H/w * W/w, w * w, C)."""
    raise NotImplementedError


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    """windows (B * H/w * W/w, w * w, C) -> x (B, H, W, C), the inverse of window_partition."""
    raise NotImplementedError


def bilinear(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """x (H, W, C), positions (N, 2) as (y, x) in [-1, 1] -> samples (N, C); zeros outside of the map."""
    raise NotImplementedError


def sampling_points(offsets: np.ndarray, *, range_factor: float) -> np.ndarray:
    """offsets (H, W, 2) -> positions (H, W, 2): the reference points, moved."""
    raise NotImplementedError


def sample_product_grid(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table (R, C), rows (K, Qy), columns (K, Qx) -> output (K, Qy, Qx)."""
    raise NotImplementedError
