"""Two things every operator needs: an error that names what is wrong, and the inverse of broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError


def check(condition: bool, op: str, what: str, found: Any, expected: Any) -> None:
    """Raise ShapeError, naming operator and argument, unless `condition` holds."""
    if not condition:
        raise ShapeError(f"{op}: {what}: found {found}, expected {expected}")


def unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum `gradient` down to `shape`: the transpose of NumPy's broadcasting of `shape` to `gradient.shape`."""
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1
    )
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient.reshape(shape)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """An int as (int, int), for settings that are the same on both axes."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
