"""What is dropped at random in training: numbers, whole channels, or whole branches (stochastic depth)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError


def dropout(x: np.ndarray, *, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """Set each number to zero with probability `rate` and divide the others by 1 - rate, so that the mean is kept.

    x: (...) -> output: (...); x itself at rate 0. Raises ConfigError for a rate outside [0, 1).
    Source: Srivastava et al., Dropout, 2014, in the inverted form of torch.nn.functional.dropout.
    """
    return _drop(x, x.shape, rate, rng, "dropout")


def channel_dropout(x: np.ndarray, *, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """Set a whole channel of a sample to zero with probability `rate` and divide the others by 1 - rate.

    Neighboring pixels of a channel tell much the same, so that dropping single ones would change little.
    x: (B, ..., C) -> output: (B, ..., C); x itself at rate 0. Raises ConfigError for a rate outside [0, 1).
    Source: Tompson et al., arXiv 1411.4280, section 3.2; torch.nn.functional.dropout2d.
    """
    return _drop(x, (len(x), *(1,) * (x.ndim - 2), x.shape[-1]), rate, rng, "channel_dropout")


def drop_path(x: np.ndarray, *, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """Set a whole sample to zero with probability `rate` and divide the others by 1 - rate: its branch is skipped.

    x: (B, ...) -> output: (B, ...); x itself at rate 0. Raises ConfigError for a rate outside [0, 1).
    Source: Huang et al., Deep networks with stochastic depth, arXiv 1603.09382.
    """
    return _drop(x, (len(x),) + (1,) * (x.ndim - 1), rate, rng, "drop_path")


def _drop(
    x: np.ndarray, mask_shape: tuple[int, ...], rate: float, rng: np.random.Generator, op: str
) -> tuple[np.ndarray, Any]:
    if not 0 <= rate < 1:
        raise ConfigError(f"{op}: rate: found {rate}, expected a number in [0, 1)")
    if rate == 0:
        return x, lambda d_output: (d_output,)
    kept = rng.random(mask_shape) >= rate
    scale = 1 / (1 - rate)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (d_output * kept * scale,)

    return x * kept * scale, backward
