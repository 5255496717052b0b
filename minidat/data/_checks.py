"""What functions on batches of pictures expect of their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError, shown


def check_images(images: np.ndarray, dtype: Any = np.uint8) -> None:
    """Raise ShapeError unless `images` is a (B, H, W, 3) array of `dtype`."""
    if not isinstance(images, np.ndarray):
        raise ShapeError(f"images: found {type(images).__name__}, expected an array (batch, height, width, 3)")
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:] or images.dtype != dtype:
        raise ShapeError(
            f"images: found shape {images.shape} of {images.dtype}, expected (batch, height, width, 3) of "
            f"{np.dtype(dtype)}"
        )


def check_setting(fits: bool, function: str, setting: str, found: object, expected: str) -> None:
    """Raise ConfigError naming the setting unless it `fits`."""
    if not fits:
        text = found if isinstance(found, str) else shown(found)
        raise ConfigError(f"{function}: {setting}: found {text}, expected {expected}")


def check_range(limits: tuple[float, float], function: str, setting: str, largest: float = np.inf) -> None:
    """Raise ConfigError unless `limits` are (low, high) with 0 < low <= high <= largest."""
    fits = len(limits) == 2 and 0 < limits[0] <= limits[1] <= largest and limits[1] < np.inf
    bound = "" if largest == np.inf else f" <= {largest:g}"
    check_setting(fits, function, setting, limits, f"(low, high) with 0 < low <= high{bound}")


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise ShapeError unless `labels` are (B,) integers in [0, classes)."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels: found shape {labels.shape} of {labels.dtype}, expected (batch,) integers")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ShapeError(f"labels: found {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
