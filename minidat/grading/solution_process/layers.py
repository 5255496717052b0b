"""Layers that are arguments of an exercise: functions that return (output, backward)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Backward = Callable[[np.ndarray], np.ndarray]
Layer = Callable[[np.ndarray], tuple[np.ndarray, Backward]]


class Square:
    """x -> factor * x * x, number by number."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, Backward]:
        return self.factor * x * x, lambda d_output: 2 * self.factor * x * d_output

    def __repr__(self) -> str:
        return "x -> x * x" if self.factor == 1 else f"x -> {self.factor} * x * x"


class Matrix:
    """x -> x @ factor."""

    def __init__(self, factor: np.ndarray) -> None:
        self.factor = factor

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, Backward]:
        return x @ self.factor, lambda d_output: d_output @ self.factor.T

    def __repr__(self) -> str:
        return f"x -> x @ {np.round(self.factor, 4).tolist()}"
