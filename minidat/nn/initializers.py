"""How parameters start: PyTorch's defaults, which are what the authors' code has in effect.

An initializer is a function of this module with its settings filled in, which can be pickled, as a model must be.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .module import Initializer


def uniform(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the default of PyTorch's linear and convolution layers, biases included."""
    return partial(_draw_uniform, bound=fan_in**-0.5)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)), for the weight (out, in, kh, kw) of a convolution (Glorot, 2010)."""
    bound = (6 / (int(np.prod(shape[1:])) + shape[0] * int(np.prod(shape[2:])))) ** 0.5
    return ((2 * rng.random(shape, dtype=np.float32) - 1) * bound).astype(np.float32)


def truncated_normal(std: float) -> Initializer:
    """N(0, std^2), drawn again where it falls beyond +-2 (for the small std used here that never happens)."""
    return partial(_draw_truncated_normal, std=std)


def constant(value: float) -> Initializer:
    """Every entry equal to `value`."""
    return partial(_fill, value=value)


def _draw_uniform(rng: np.random.Generator, shape: tuple[int, ...], *, bound: float) -> np.ndarray:
    return ((2 * rng.random(shape, dtype=np.float32) - 1) * bound).astype(np.float32)


def _draw_truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], *, std: float) -> np.ndarray:
    values = std * rng.standard_normal(shape, dtype=np.float32)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = std * rng.standard_normal(int(beyond.sum()), dtype=np.float32)
    return values


def _fill(rng: np.random.Generator, shape: tuple[int, ...], *, value: float) -> np.ndarray:
    return np.full(shape, value, np.float32)
