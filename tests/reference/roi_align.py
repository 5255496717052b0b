"""RoIAlign in PyTorch: every sampling point of every box, read with four gathers and weighted, then averaged."""

from __future__ import annotations

import math

import numpy as np
import torch


def roi_align(x: torch.Tensor, *, boxes: np.ndarray, images: np.ndarray, size: int, scale: float) -> torch.Tensor:
    """x (B, H, W, C), boxes (n, 4), images (n,) -> (n, size, size, C): aligned, with adaptive sampling."""
    output = []
    for box, image in zip(boxes.tolist(), images.tolist(), strict=True):
        x1, y1, x2, y2 = (scale * side - 0.5 for side in box)
        y, y_exists = _samples(y1, y2, size, x.shape[1])  # (size, samples of a bin)
        x_, x_exists = _samples(x1, x2, size, x.shape[2])
        if y.numel() == 0 or x_.numel() == 0:
            output.append(0 * x[image, :1, :1].expand(size, size, -1))
            continue
        values = _bilinear(x[image], y.reshape(-1), x_.reshape(-1))  # (all rows of samples, all columns, C)
        values = values * (y_exists.reshape(-1, 1) & x_exists.reshape(-1))[..., None]
        output.append(values.reshape(*y.shape, *x_.shape, -1).mean(dim=(1, 3)))
    return torch.stack(output)


def _samples(start: float, stop: float, bins: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples' places on one axis, and which of them lie near the map."""
    bin_size = (stop - start) / bins
    count = math.ceil(np.float32(bin_size))
    places = torch.tensor(
        [[start + i * bin_size + (j + 0.5) * bin_size / count for j in range(count)] for i in range(bins)],
        dtype=torch.float64,
    )
    return places.clamp(0, length - 1), (places >= -1) & (places <= length)


def _bilinear(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """x (H, W, C) at every row and column (numbers inside the map): (rows, columns, C)."""
    top, left = rows.floor().long(), columns.floor().long()
    bottom, right = (top + 1).clamp(max=len(x) - 1), (left + 1).clamp(max=x.shape[1] - 1)
    down, across = (rows - top).to(x)[:, None, None], (columns - left).to(x)[:, None]
    upper = x[top][:, left] * (1 - across) + x[top][:, right] * across
    lower = x[bottom][:, left] * (1 - across) + x[bottom][:, right] * across
    return upper * (1 - down) + lower * down
