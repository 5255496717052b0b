# minidat exercise: windows
"""The reference solution of this exercise; the task is in examples/exercises."""

import numpy as np


def window_partition(x: np.ndarray, *, window: int) -> np.ndarray:
    """x (B, H, W, C), window w dividing H and W -> windows (B * H/w * W/w, w * w, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window * window, channels)


def window_reverse(windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    """windows (B * H/w * W/w, w * w, C) -> x (B, H, W, C)."""
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // window, width // window, window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, height, width, channels)
