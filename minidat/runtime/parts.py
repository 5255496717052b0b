"""Some images at a time through several operators: what they write in between stays in a core's cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .team import empty
from .threads import in_parts

PART_FLOATS = 786432  # of a map, at once
FEWEST_TOKENS = 256  # below, a matrix product is faster when threads share its columns


def by_images(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """function(x), from function(some images): x (B, H, W, C) -> the same shape. Threads meet once."""
    tokens = x[0].size // x.shape[-1]  # of an image
    fewest = -(-FEWEST_TOKENS // tokens)
    if len(x) < 2 * fewest:
        return function(x)
    output = empty(x.shape, x.dtype)

    def work(part: slice) -> None:
        output[part] = function(x[part])

    in_parts(work, len(x), step=max(2 * fewest, PART_FLOATS // x[0].size), grain=fewest)
    return output
